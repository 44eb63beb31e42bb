// The configuration: what is read, and that each kind of mistake is found with its place.
#include "rpc/config.h"

#include <gtest/gtest.h>

#include <fstream>
#include <sstream>

namespace packmoor::rpc {
namespace {

constexpr const char* kMinimal = "[node]\nid = \"n1\"\ndata = \"/d\"\n";

std::string problemsOf(const std::string& text) {
  return describeProblems("f", parseConfig(text).problems);
}

TEST(Config, MinimalFileHasTheDocumentedDefaults) {
  auto result = parseConfig(kMinimal);
  ASSERT_TRUE(result.problems.empty()) << describeProblems("f", result.problems);
  EXPECT_EQ(result.config.node.id, "n1");
  EXPECT_EQ(result.config.node.cluster, "packmoor");
  EXPECT_EQ(result.config.http.listen, "127.0.0.1:8080");
  EXPECT_EQ(result.config.httpAdvertised(), "127.0.0.1:8080");
  EXPECT_EQ(result.config.controlSocket(), "/d/control.sock");
  EXPECT_EQ(result.config.statusSocket(), "/d/status.sock");
  EXPECT_TRUE(result.config.coordinator.etcd.empty());
}

// The example file is documentation: it must be right, and its values must be the defaults.
TEST(Config, ExampleFileIsGoodAndGivesTheDefaults) {
  std::ifstream file(PACKMOOR_SOURCE_DIR "/packaging/packmoord.toml");
  ASSERT_TRUE(file.good());
  std::stringstream text;
  text << file.rdbuf();
  auto example = parseConfig(text.str());
  ASSERT_TRUE(example.problems.empty()) << describeProblems("example", example.problems);
  NodeConfig defaults;
  EXPECT_EQ(example.config.http.connectionsMax, defaults.http.connectionsMax);
  EXPECT_EQ(example.config.http.connectionsPerClientMax, defaults.http.connectionsPerClientMax);
  EXPECT_EQ(example.config.http.bodyRateMin, defaults.http.bodyRateMin);
  EXPECT_EQ(example.config.ssh.connectionsMax, defaults.ssh.connectionsMax);
  EXPECT_EQ(example.config.ssh.connectionsPerUserMax, defaults.ssh.connectionsPerUserMax);
  EXPECT_EQ(example.config.http.headerTimeoutMs, defaults.http.headerTimeoutMs);
  EXPECT_EQ(example.config.http.idleTimeoutMs, defaults.http.idleTimeoutMs);
  EXPECT_EQ(example.config.http.stallTimeoutMs, defaults.http.stallTimeoutMs);
  EXPECT_EQ(example.config.http.fetchBodyBytesMax, defaults.http.fetchBodyBytesMax);
  EXPECT_EQ(example.config.replication.heartbeatMs, defaults.replication.heartbeatMs);
  EXPECT_EQ(example.config.replication.suspectAfterMs, defaults.replication.suspectAfterMs);
  EXPECT_EQ(example.config.replication.journalStuckMs, defaults.replication.journalStuckMs);
  EXPECT_EQ(example.config.replication.proposeTimeoutMs, defaults.replication.proposeTimeoutMs);
  EXPECT_EQ(example.config.replication.readTimeoutMs, defaults.replication.readTimeoutMs);
  EXPECT_EQ(example.config.replication.checkpointBytes, defaults.replication.checkpointBytes);
  EXPECT_EQ(example.config.replication.checkpointIntervalMs,
            defaults.replication.checkpointIntervalMs);
  EXPECT_EQ(example.config.replication.logRetainBytes, defaults.replication.logRetainBytes);
  EXPECT_EQ(example.config.replication.logRepairBytes, defaults.replication.logRepairBytes);
  EXPECT_EQ(example.config.replication.scrubBytesPerSecond,
            defaults.replication.scrubBytesPerSecond);
  EXPECT_EQ(example.config.replication.scrubIntervalMs, defaults.replication.scrubIntervalMs);
  EXPECT_EQ(example.config.replication.segmentBytes, defaults.replication.segmentBytes);
  EXPECT_EQ(example.config.replication.extentExpiryMs, defaults.replication.extentExpiryMs);
  EXPECT_EQ(example.config.replication.removedDataKeepMs, defaults.replication.removedDataKeepMs);
  EXPECT_EQ(example.config.replication.diskReserveBytes, defaults.replication.diskReserveBytes);
  EXPECT_EQ(example.config.replication.autoBalance, defaults.replication.autoBalance);
  EXPECT_EQ(example.config.replication.autoBalanceQuietMs, defaults.replication.autoBalanceQuietMs);
  EXPECT_EQ(example.config.git.inlinePackBytesMax, defaults.git.inlinePackBytesMax);
  EXPECT_EQ(example.config.git.packBytesMax, defaults.git.packBytesMax);
  EXPECT_EQ(example.config.git.commandsMax, defaults.git.commandsMax);
  EXPECT_EQ(example.config.git.heldObjectBytesMax, defaults.git.heldObjectBytesMax);
  EXPECT_EQ(example.config.git.expansionMax, defaults.git.expansionMax);
  EXPECT_EQ(example.config.git.stateCacheBytes, defaults.git.stateCacheBytes);
  EXPECT_EQ(example.config.git.refCacheBytes, defaults.git.refCacheBytes);
  EXPECT_EQ(example.config.git.settleObjects, defaults.git.settleObjects);
  EXPECT_EQ(example.config.git.settleBytes, defaults.git.settleBytes);
  EXPECT_EQ(example.config.git.repackPacks, defaults.git.repackPacks);
  EXPECT_EQ(example.config.git.repackBytesMax, defaults.git.repackBytesMax);
  EXPECT_EQ(example.config.git.repackBytesPerSecond, defaults.git.repackBytesPerSecond);
  EXPECT_EQ(example.config.git.packBuildsMax, defaults.git.packBuildsMax);
  EXPECT_EQ(example.config.git.fetchCacheBytes, defaults.git.fetchCacheBytes);
  EXPECT_EQ(example.config.git.deletedKeepMs, defaults.git.deletedKeepMs);
  EXPECT_EQ(example.config.coordinator.prefix, defaults.coordinator.prefix);
  EXPECT_EQ(example.config.log.level, defaults.log.level);
}

TEST(Config, UnknownKeyIsNamedWithPlaceAndNearestKey) {
  EXPECT_EQ(problemsOf(std::string(kMinimal) + "[http]\nlisen = \"127.0.0.1:1\"\n"),
            "f:5:1: There is no key \"lisen\" in [http]. Is \"listen\" meant?\n");
  EXPECT_EQ(problemsOf(std::string(kMinimal) + "[htp]\n"),
            "f:4:2: There is no table [htp]. Is [http] meant?\n");
  std::string far = problemsOf(std::string(kMinimal) + "[log]\nentirely_other = 1\n");
  EXPECT_NE(far.find("f:5:1: There is no key \"entirely_other\" in [log]. The keys there are level."),
            std::string::npos) << far;
}

TEST(Config, WrongTypesSayWhatWasExpectedAndFound) {
  EXPECT_EQ(problemsOf(std::string(kMinimal) + "[http]\nlisten = 8080\n"),
            "f:5:10: http.listen must be text in quotes, and is an integer.\n");
  EXPECT_EQ(problemsOf(std::string(kMinimal) + "[http]\nconnections_max = \"many\"\n"),
            "f:5:19: http.connections_max must be an integer, and is text.\n");
  EXPECT_EQ(problemsOf(std::string(kMinimal) + "[git]\npack_max = \"16 GB\"\n"),
            "f:5:12: git.pack_max must be a size, as in 65536 or \"64 KiB\" (units: KiB, MiB, GiB, "
            "TiB).\n");
  EXPECT_EQ(problemsOf("node = 3\n"), "f:1:8: [node] must be a table, and is an integer.\n");
  EXPECT_EQ(problemsOf(""), "f: node.id is missing; it must be given.\n"
                            "f: node.data is missing; it must be given.\n");
}

TEST(Config, ValuesOutOfBoundsSayTheBounds) {
  EXPECT_EQ(problemsOf(std::string(kMinimal) + "[replication]\nheartbeat_ms = -1\n"),
            "f:5:16: replication.heartbeat_ms must be from 1 to 60000, and is -1.\n");
  EXPECT_EQ(problemsOf(std::string(kMinimal) + "[replication]\nsuspect_after_ms = 149\n"),
            "f:5:20: replication.suspect_after_ms is 149 and must be at least three times "
            "replication.heartbeat_ms, 150: a primary would be replaced for a message that is "
            "late.\n");
  EXPECT_EQ(problemsOf(std::string(kMinimal) +
                       "[replication]\nheartbeat_ms = 10\nsuspect_after_ms = 30\n"), "");
  EXPECT_EQ(problemsOf(std::string(kMinimal) + "[replication]\nsegment = 4096\n"),
            "f:5:11: replication.segment must be from 1 MiB to 4 GiB, and is 4 KiB.\n");
  EXPECT_EQ(problemsOf(std::string(kMinimal) + "[log]\nlevel = \"inf\"\n"),
            "f:5:9: log.level must be one of trace, debug, info, warning, error, and is \"inf\". "
            "Is \"info\" meant?\n");
}

TEST(Config, EveryProblemIsReportedInTheOrderOfTheFile) {
  auto result = parseConfig("[log]\nlevl = \"x\"\n[node]\nid = \"N1\"\ndata = \"d\"\nfoo = 1\n");
  ASSERT_EQ(result.problems.size(), 4u) << describeProblems("f", result.problems);
  EXPECT_EQ(result.problems[0].line, 2u);
  EXPECT_EQ(result.problems[1].line, 4u);
  EXPECT_EQ(result.problems[2].line, 5u);
  EXPECT_EQ(result.problems[3].line, 6u);
}

TEST(Config, SyntaxErrorsHaveAPlace) {
  auto result = parseConfig("[node]\nid = \n");
  ASSERT_EQ(result.problems.size(), 1u);
  EXPECT_EQ(result.problems[0].line, 2u);
  EXPECT_NE(result.problems[0].message.find("not TOML"), std::string::npos);
}

TEST(Config, MissingRequiredKeysPointToTheirTable) {
  EXPECT_EQ(problemsOf("[node]\n"),
            "f:1:1: node.id is missing; it must be given.\n"
            "f:1:1: node.data is missing; it must be given.\n");
}

TEST(Config, ClusterNeedsPeersAndEtcdTogether) {
  std::string etcd = "[coordinator]\netcd = [\"http://127.0.0.1:2379\"]\n";
  std::string peers = "[peers]\nlisten = \"127.0.0.1:1\"\nca = \"a\"\ncertificate = \"b\"\nkey = \"c\"\n";
  EXPECT_EQ(problemsOf(kMinimal + etcd + peers), "");
  EXPECT_NE(problemsOf(kMinimal + etcd).find("[peers] must be given too"), std::string::npos);
  EXPECT_NE(problemsOf(kMinimal + peers).find("coordinator.etcd must be given too"),
            std::string::npos);
  EXPECT_NE(problemsOf(std::string(kMinimal) + "[peers]\nlisten = \"127.0.0.1:1\"\n")
                .find("peers.ca is missing"), std::string::npos);
  EXPECT_NE(problemsOf(kMinimal + peers + "[coordinator]\netcd = [\"127.0.0.1:2379\"]\n")
                .find("must hold URLs"), std::string::npos);
}

TEST(Config, UnreadableFilesAreProblems) {
  auto missing = readConfig("/nonexistent/packmoord.toml");
  ASSERT_EQ(missing.problems.size(), 1u);
  EXPECT_EQ(describeProblems("x", missing.problems),
            "x: The file cannot be opened: No such file or directory.\n");
  EXPECT_FALSE(readConfig("/").problems.empty());
}

TEST(Config, ByteCounts) {
  uint64_t bytes = 0;
  EXPECT_TRUE(parseByteCount("4096", bytes));
  EXPECT_EQ(bytes, 4096u);
  EXPECT_TRUE(parseByteCount("64 MiB", bytes));
  EXPECT_EQ(bytes, 64u << 20);
  EXPECT_TRUE(parseByteCount("10k", bytes));
  EXPECT_EQ(bytes, 10240u);
  for (const char* wrong : {"", "MiB", "1.5 GiB", "-1", "1 GB", "99999999999999999999",
                            "18446744073709551615 TiB"}) {
    EXPECT_FALSE(parseByteCount(wrong, bytes)) << wrong;
  }
}

TEST(Config, HostAndPort) {
  for (const char* right : {"127.0.0.1:80", "[::1]:0", "host.example:65535", "*:8080"}) {
    EXPECT_TRUE(isHostAndPort(right)) << right;
  }
  for (const char* wrong : {"", "80", ":80", "host:", "host:65536", "host:8x", "::1:80", "a b:1",
                            "host:123456"}) {
    EXPECT_FALSE(isHostAndPort(wrong)) << wrong;
  }
}

std::string clusterWith(const std::string& coordinator) {
  return problemsOf(std::string(kMinimal) + "[peers]\nlisten = \"h:1\"\nca = \"a\"\n"
                    "certificate = \"b\"\nkey = \"c\"\n[coordinator]\n" + coordinator);
}

TEST(Config, EtcdOverTlsWithAUser) {
  auto result = parseConfig(
      std::string(kMinimal) + "[peers]\nlisten = \"h:1\"\nca = \"a\"\ncertificate = \"b\"\n"
      "key = \"c\"\n[coordinator]\netcd = [\"https://e1:2379\", \"https://10.0.0.2:2379\"]\n"
      "ca = \"/ca\"\ncertificate = \"/crt\"\nkey = \"/key\"\nserver_name = \"etcd\"\n"
      "user = \"u\"\npassword_file = \"/pw\"\nrequest_timeout_ms = 500\n");
  ASSERT_TRUE(result.problems.empty()) << describeProblems("f", result.problems);
  const auto& part = result.config.coordinator;
  EXPECT_EQ(part.etcd.size(), 2u);
  EXPECT_EQ(part.ca, "/ca");
  EXPECT_EQ(part.certificate, "/crt");
  EXPECT_EQ(part.key, "/key");
  EXPECT_EQ(part.serverName, "etcd");
  EXPECT_EQ(part.user, "u");
  EXPECT_EQ(part.passwordFile, "/pw");
  EXPECT_EQ(part.requestTimeoutMs, 500);
}

TEST(Config, MistakesWithEtcdOverTls) {
  const std::string tls = "etcd = [\"https://e1:2379\"]\nca = \"/ca\"\n";
  EXPECT_EQ(clusterWith(tls), "");
  EXPECT_EQ(clusterWith("etcd = [\"https://e1:2379\"]\n"),
            "f:9:1: coordinator.ca is missing: with https, etcd's certificate is verified by an "
            "authority that this node is given.\n");
  EXPECT_EQ(clusterWith("etcd = [\"https://10.0.0.1:2379\"]\nca = \"/ca\"\n"),
            "f:10:8: coordinator.etcd holds \"https://10.0.0.1:2379\", an address, under which no "
            "certificate can be verified: give coordinator.server_name, a DNS name that is in etcd's "
            "certificates.\n");
  EXPECT_EQ(clusterWith("etcd = [\"https://e1:1\", \"http://e2:1\"]\nca = \"/ca\"\n"),
            "f:10:8: coordinator.etcd mixes http and https; use one of them.\n");
  EXPECT_EQ(clusterWith("etcd = [\"http://e1:1\"]\nca = \"/ca\"\n"),
            "f:11:6: coordinator.ca is for https, and coordinator.etcd holds http URLs.\n");
  EXPECT_EQ(clusterWith(tls + "key = \"/k\"\n"),
            "f:12:7: coordinator.key is given, and coordinator.certificate is not: give both or "
            "neither.\n");
  EXPECT_EQ(clusterWith(tls + "user = \"u\"\n"),
            "f:12:8: coordinator.user is given, and coordinator.password_file is not: give both or "
            "neither.\n");
  EXPECT_EQ(clusterWith(tls + "request_timeout_ms = 1\n"),
            "f:12:22: coordinator.request_timeout_ms must be from 100 to 60000, and is 1.\n");
}

}  // namespace
}  // namespace packmoor::rpc
