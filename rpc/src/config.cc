#include "rpc/config.h"

#include "config_reader.h"

#include <replicator/types.h>

#include <algorithm>
#include <cerrno>
#include <cstring>
#include <fstream>
#include <sstream>

namespace packmoor::rpc {
namespace {

constexpr uint64_t kConfigBytesMax = 1u << 20;
constexpr int64_t kDayMs = 24 * 3600 * 1000;
constexpr uint64_t kKiB = 1024, kMiB = kKiB << 10, kGiB = kMiB << 10, kTiB = kGiB << 10;

void checkAddress(ConfigReader& reader, const char* key, const std::string& name,
                  const std::string& value) {
  if (!reader.has(key) || isHostAndPort(value)) return;
  reader.problemAt(key, name + " must be HOST:PORT, as in \"127.0.0.1:8080\" or \"[::]:8080\", "
                               "and is \"" + value + "\".");
}

void readNode(ConfigReader& reader, NodeConfig& config) {
  reader.table("node");
  NodeConfig::Node& node = config.node;
  reader.text("id", node.id, true);
  reader.text("cluster", node.cluster);
  reader.text("data", node.data, true);
  const char* rule = " must be 1 to 63 of a-z, 0-9 and '-', not starting with '-', and is \"";
  if (!node.id.empty() && !replicator::isValidNodeId(node.id.c_str())) {
    reader.problemAt("id", "node.id" + std::string(rule) + node.id + "\".");
  }
  if (!replicator::isValidNodeId(node.cluster.c_str())) {
    reader.problemAt("cluster", "node.cluster" + std::string(rule) + node.cluster + "\".");
  }
  if (!node.data.empty() && node.data[0] != '/') {
    reader.problemAt("data", "node.data must be an absolute path, and is \"" + node.data + "\".");
  }
  reader.leave();
}

void readHttp(ConfigReader& reader, NodeConfig& config) {
  reader.table("http");
  NodeConfig::Http& http = config.http;
  reader.text("listen", http.listen);
  checkAddress(reader, "listen", "http.listen", http.listen);
  reader.text("advertise", http.advertise);
  checkAddress(reader, "advertise", "http.advertise", http.advertise);
  reader.count("connections_max", http.connectionsMax, 1, 1'000'000);
  reader.count("connections_per_client_max", http.connectionsPerClientMax, 1, 1'000'000);
  reader.millis("header_timeout_ms", http.headerTimeoutMs, 10, kDayMs);
  reader.millis("idle_timeout_ms", http.idleTimeoutMs, 10, kDayMs);
  reader.millis("stall_timeout_ms", http.stallTimeoutMs, 10, kDayMs);
  reader.bytes("body_rate_min", http.bodyRateMin, 0, kGiB);
  reader.bytes("fetch_body_max", http.fetchBodyBytesMax, kKiB, kGiB);
  reader.leave();
}

void readSsh(ConfigReader& reader, NodeConfig& config) {
  reader.table("ssh");
  NodeConfig::Ssh& ssh = config.ssh;
  reader.text("socket", ssh.socket);
  reader.text("group", ssh.group);
  reader.count("connections_max", ssh.connectionsMax, 1, 1'000'000);
  reader.count("connections_per_user_max", ssh.connectionsPerUserMax, 1, 1'000'000);
  reader.millis("silent_timeout_ms", ssh.silentTimeoutMs, 10, kDayMs);
  reader.leave();
}

void readPeers(ConfigReader& reader, NodeConfig& config) {
  reader.table("peers");
  NodeConfig::Peers& peers = config.peers;
  reader.text("listen", peers.listen);
  checkAddress(reader, "listen", "peers.listen", peers.listen);
  reader.text("advertise", peers.advertise);
  checkAddress(reader, "advertise", "peers.advertise", peers.advertise);
  reader.text("ca", peers.ca);
  reader.text("certificate", peers.certificate);
  reader.text("key", peers.key);
  if (!peers.listen.empty()) {
    for (auto& [key, value] : {std::pair<const char*, std::string&>{"ca", peers.ca},
                               {"certificate", peers.certificate},
                               {"key", peers.key}}) {
      if (!value.empty()) continue;
      reader.problemAt(key, std::string("peers.") + key + " is missing: nodes speak to one another "
                                "over mutually authenticated TLS only.");
    }
  }
  reader.leave();
}

void readControl(ConfigReader& reader, NodeConfig& config) {
  reader.table("control");
  NodeConfig::Control& control = config.control;
  reader.text("socket", control.socket);
  reader.text("status_socket", control.statusSocket);
  reader.text("group", control.group);
  reader.leave();
}

// The host of an URL of etcd, or empty when it is none.
std::string etcdHost(std::string_view url, bool& secure) {
  constexpr std::string_view kPlain = "http://", kSecure = "https://";
  secure = url.substr(0, kSecure.size()) == kSecure;
  if (!secure && url.substr(0, kPlain.size()) != kPlain) return {};
  url.remove_prefix(secure ? kSecure.size() : kPlain.size());
  if (!isHostAndPort(url)) return {};
  return std::string(url.substr(0, url.rfind(':')));
}

bool isAddress(const std::string& host) {
  return host.front() == '[' || host.find_first_not_of("0123456789.") == std::string::npos;
}

void checkEtcd(ConfigReader& reader, const NodeConfig::CoordinatorPart& coordinator) {
  size_t secured = 0;
  for (const std::string& url : coordinator.etcd) {
    bool secure = false;
    const std::string host = etcdHost(url, secure);
    if (host.empty()) {
      reader.problemAt("etcd", "coordinator.etcd must hold URLs as \"http://10.0.0.1:2379\" or "
                               "\"https://etcd1.example.org:2379\", and holds \"" + url + "\".");
      return;
    }
    if (secure) ++secured;
    if (secure && isAddress(host) && coordinator.serverName.empty()) {
      reader.problemAt("etcd", "coordinator.etcd holds \"" + url + "\", an address, under which no "
                               "certificate can be verified: give coordinator.server_name, a DNS "
                               "name that is in etcd's certificates.");
    }
  }
  if (reader.has("etcd") && coordinator.etcd.empty()) {
    reader.problemAt("etcd", "coordinator.etcd is empty. Leave it out for a node that stands alone.");
  }
  if (secured != 0 && secured != coordinator.etcd.size()) {
    reader.problemAt("etcd", "coordinator.etcd mixes http and https; use one of them.");
  }
  if (secured != 0 && coordinator.ca.empty()) {
    reader.problemAt("ca", "coordinator.ca is missing: with https, etcd's certificate is verified by "
                           "an authority that this node is given.");
  }
  for (const char* key : {"ca", "certificate", "key", "server_name"}) {
    if (secured != 0 || coordinator.etcd.empty() || !reader.has(key)) continue;
    reader.problemAt(key, std::string("coordinator.") + key + " is for https, and coordinator.etcd "
                              "holds http URLs.");
  }
}

// Either both or none.
void checkPair(ConfigReader& reader, const char* one, const std::string& first, const char* other,
               const std::string& second) {
  if (first.empty() == second.empty()) return;
  const char* given = first.empty() ? other : one;
  const char* missing = first.empty() ? one : other;
  reader.problemAt(given, std::string("coordinator.") + given + " is given, and coordinator." +
                              missing + " is not: give both or neither.");
}

void readCoordinator(ConfigReader& reader, NodeConfig& config) {
  reader.table("coordinator");
  NodeConfig::CoordinatorPart& coordinator = config.coordinator;
  reader.texts("etcd", coordinator.etcd);
  reader.text("prefix", coordinator.prefix);
  reader.text("ca", coordinator.ca);
  reader.text("certificate", coordinator.certificate);
  reader.text("key", coordinator.key);
  reader.text("server_name", coordinator.serverName);
  reader.text("user", coordinator.user);
  reader.text("password_file", coordinator.passwordFile);
  reader.millis("request_timeout_ms", coordinator.requestTimeoutMs, 100, 60'000);
  checkEtcd(reader, coordinator);
  checkPair(reader, "certificate", coordinator.certificate, "key", coordinator.key);
  checkPair(reader, "user", coordinator.user, "password_file", coordinator.passwordFile);
  if (coordinator.prefix.empty() || coordinator.prefix[0] != '/') {
    reader.problemAt("prefix", "coordinator.prefix must start with '/', and is \"" +
                                   coordinator.prefix + "\".");
  }
  reader.leave();
}

void readIo(ConfigReader& reader, NodeConfig& config) {
  reader.table("io");
  std::string backend = "auto";
  reader.choice("backend", backend, {"auto", "io_uring", "threads"});
  config.io.backend = backend == "io_uring"  ? IoBackend::kIoUring
                      : backend == "threads" ? IoBackend::kThreads
                                             : IoBackend::kAuto;
  reader.count("workers", config.io.workers, 0, 1024);
  reader.leave();

  reader.table("log");
  reader.choice("level", config.log.level, {"trace", "debug", "info", "warning", "error"});
  reader.leave();
}

void readLimits(ConfigReader& reader, NodeConfig& config) {
  reader.table("replication");
  NodeConfig::Replication& r = config.replication;
  reader.millis("heartbeat_ms", r.heartbeatMs, 1, 60'000);
  reader.millis("suspect_after_ms", r.suspectAfterMs, 10, 600'000);
  if (r.suspectAfterMs < 3 * r.heartbeatMs) {
    reader.problemAt("suspect_after_ms",
                     "replication.suspect_after_ms is " + std::to_string(r.suspectAfterMs) +
                         " and must be at least three times replication.heartbeat_ms, " +
                         std::to_string(3 * r.heartbeatMs) +
                         ": a primary would be replaced for a message that is late.");
  }
  reader.millis("journal_stuck_ms", r.journalStuckMs, 10, kDayMs);
  reader.millis("propose_timeout_ms", r.proposeTimeoutMs, 10, kDayMs);
  reader.millis("read_timeout_ms", r.readTimeoutMs, 10, kDayMs);
  reader.bytes("checkpoint_bytes", r.checkpointBytes, 64 * kKiB, kTiB);
  reader.millis("checkpoint_interval_ms", r.checkpointIntervalMs, 10, kDayMs);
  reader.bytes("log_retain", r.logRetainBytes, 0, kTiB);
  reader.bytes("log_repair", r.logRepairBytes, 0, kTiB);
  reader.bytes("lag_max", r.lagBytesMax, kMiB, kTiB);
  reader.bytes("transfer_rate", r.transferBytesPerSecond, 0, kTiB);
  reader.bytes("scrub_rate", r.scrubBytesPerSecond, 0, kTiB);
  reader.millis("scrub_interval_ms", r.scrubIntervalMs, 1000, 365 * kDayMs);
  reader.bytes("segment", r.segmentBytes, kMiB, 4 * kGiB);
  reader.millis("extent_expiry_ms", r.extentExpiryMs, 10, 365 * kDayMs);
  reader.millis("removed_data_keep_ms", r.removedDataKeepMs, 0, 365 * kDayMs);
  reader.bytes("disk_reserve", r.diskReserveBytes, 0, kTiB);
  reader.boolean("auto_balance", r.autoBalance);
  reader.millis("auto_balance_quiet_ms", r.autoBalanceQuietMs, 1000, kDayMs);
  reader.leave();

  reader.table("git");
  NodeConfig::Git& git = config.git;
  reader.bytes("inline_pack_max", git.inlinePackBytesMax, 0, 4 * kMiB);
  reader.bytes("pack_max", git.packBytesMax, kKiB, 1024 * kGiB);
  reader.count("commands_max", git.commandsMax, 1, 10'000'000);
  reader.bytes("held_object_max", git.heldObjectBytesMax, 16 * kMiB, 1024 * kGiB);
  reader.count("expansion_max", git.expansionMax, 1, 1'000'000);
  reader.bytes("state_cache", git.stateCacheBytes, 0, kTiB);
  reader.bytes("ref_cache", git.refCacheBytes, 0, kTiB);
  reader.count("settle_objects", git.settleObjects, 1, 100'000'000);
  reader.bytes("settle_bytes", git.settleBytes, kKiB, kTiB);
  reader.count("repack_packs", git.repackPacks, 0, 10'000);
  reader.bytes("repack_max", git.repackBytesMax, kMiB, kTiB);
  reader.bytes("repack_rate", git.repackBytesPerSecond, 0, kTiB);
  reader.count("pack_builds_max", git.packBuildsMax, 1, 1024);
  reader.bytes("fetch_cache", git.fetchCacheBytes, 0, kTiB);
  reader.millis("deleted_keep_ms", git.deletedKeepMs, 0, 3650 * kDayMs);
  reader.leave();
}

void checkTogether(ConfigReader& reader, NodeConfig& config) {
  bool alone = config.peers.listen.empty();
  if (alone && !config.coordinator.etcd.empty()) {
    reader.table("peers");
    reader.problemAt("listen", "coordinator.etcd is given, so this node is one of several: "
                               "[peers] must be given too (listen, ca, certificate, key).");
  } else if (!alone && config.coordinator.etcd.empty()) {
    reader.table("peers");
    reader.problemAt("listen", "[peers] is given, so this node is one of several: "
                               "coordinator.etcd must be given too.");
  }
}

}  // namespace

bool isHostAndPort(std::string_view text) {
  size_t colon = text.rfind(':');
  if (colon == std::string_view::npos || colon == 0) return false;
  std::string_view host = text.substr(0, colon), port = text.substr(colon + 1);
  if (port.empty() || port.size() > 5) return false;
  uint32_t number = 0;
  for (char c : port) {
    if (c < '0' || c > '9') return false;
    number = number * 10 + static_cast<uint32_t>(c - '0');
  }
  if (number > 65535) return false;
  bool bracketed = host.size() > 2 && host.front() == '[' && host.back() == ']';
  if (bracketed) host = host.substr(1, host.size() - 2);
  for (char c : host) {
    bool plain = (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9') ||
                 c == '.' || c == '-' || c == '*' || c == '_';
    if (!plain && !(bracketed && (c == ':' || c == '%'))) return false;
  }
  return true;
}

std::string NodeConfig::controlSocket() const {
  return control.socket.empty() ? node.data + "/control.sock" : control.socket;
}
std::string NodeConfig::statusSocket() const {
  return control.statusSocket.empty() ? node.data + "/status.sock" : control.statusSocket;
}
std::string NodeConfig::gitSocket() const {
  return ssh.socket.empty() ? node.data + "/git.sock" : ssh.socket;
}
std::string NodeConfig::httpAdvertised() const {
  return http.advertise.empty() ? http.listen : http.advertise;
}
std::string NodeConfig::peersAdvertised() const {
  return peers.advertise.empty() ? peers.listen : peers.advertise;
}

ConfigResult parseConfig(std::string_view text) {
  ConfigResult result;
  toml::table document;
  try {  // the library reports syntax errors by exception
    document = toml::parse(text);
  } catch (const toml::parse_error& error) {
    const toml::source_position& where = error.source().begin;
    result.problems.push_back({static_cast<uint32_t>(where.line),
                               static_cast<uint32_t>(where.column),
                               "This is not TOML: " + std::string(error.description()) + "."});
    return result;
  }
  ConfigReader reader(document, result.problems);
  readNode(reader, result.config);
  readHttp(reader, result.config);
  readSsh(reader, result.config);
  readPeers(reader, result.config);
  readControl(reader, result.config);
  readCoordinator(reader, result.config);
  readIo(reader, result.config);
  readLimits(reader, result.config);
  reader.leaveDocument();
  if (result.problems.empty()) checkTogether(reader, result.config);
  std::stable_sort(result.problems.begin(), result.problems.end(),
                   [](const ConfigProblem& a, const ConfigProblem& b) {
                     return a.line != b.line ? a.line < b.line : a.column < b.column;
                   });
  return result;
}

ConfigResult readConfig(const std::string& path) {
  ConfigResult result;
  std::ifstream file(path, std::ios::binary);
  if (!file) {
    result.problems.push_back({0, 0, "The file cannot be opened: " +
                                         std::string(std::strerror(errno)) + "."});
    return result;
  }
  std::string text(kConfigBytesMax + 1, '\0');
  file.read(text.data(), static_cast<std::streamsize>(text.size()));
  if (file.bad()) {
    result.problems.push_back({0, 0, "The file cannot be read: " +
                                         std::string(std::strerror(errno)) + "."});
    return result;
  }
  text.resize(static_cast<size_t>(file.gcount()));
  if (text.size() > kConfigBytesMax) {
    result.problems.push_back({0, 0, "The file is larger than 1 MiB, and so no configuration."});
    return result;
  }
  return parseConfig(text);
}

std::string describeProblems(const std::string& path, const std::vector<ConfigProblem>& problems) {
  std::string text;
  for (const ConfigProblem& problem : problems) {
    text += path + ":";
    if (problem.line != 0) {
      text += std::to_string(problem.line) + ":" + std::to_string(problem.column) + ":";
    }
    text += " " + problem.message + "\n";
  }
  return text;
}

}  // namespace packmoor::rpc
