// NodeConfig: what one node is told in its TOML file.
//
// Why: a typo in a configuration must be found when it is read, not when the value is missed. A
// file is refused as a whole, with every problem in it: file, line, column, what was expected and
// the nearest key that exists. packaging/packmoord.toml documents each key with its default.
//
// Values are as the file says; nothing is opened or resolved here. Durations are milliseconds and
// sizes bytes; a file may write a size as an integer or as text with a unit ("64 MiB").
#pragma once

#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

namespace packmoor::rpc {

enum class IoBackend : uint8_t { kAuto, kIoUring, kThreads };

struct NodeConfig {
  struct Node {
    std::string id;                        // [a-z0-9][a-z0-9-]{0,62}
    std::string cluster = "packmoor";      // nodes of another cluster are refused
    std::string data;                      // an absolute path
  } node;

  struct Http {
    std::string listen = "127.0.0.1:8080";
    std::string advertise;                 // host:port for others; empty: as `listen`
    uint64_t connectionsMax = 1024;
    uint64_t connectionsPerClientMax = 512;   // from one address
    int64_t headerTimeoutMs = 15'000;      // from the first byte of a request to its last header
    int64_t idleTimeoutMs = 75'000;        // between the requests of a connection
    int64_t stallTimeoutMs = 60'000;       // a body or an answer that makes no progress
    uint64_t bodyRateMin = 100;            // bytes per second of waiting for a body; 0: none
    uint64_t fetchBodyBytesMax = 64ull << 20;  // of a fetch's wants and haves, inflated
  } http;

  struct Ssh {
    std::string socket;                    // of packmoor-shell; empty: <data>/git.sock
    std::string group;                     // whose members may use it; empty: root and own user
    uint64_t connectionsMax = 256;
    uint64_t connectionsPerUserMax = 128;
    int64_t silentTimeoutMs = 600'000;     // a client or an answer that makes no progress
  } ssh;

  struct Peers {
    std::string listen;                    // empty: this node stands alone
    std::string advertise;                 // host:port for others; empty: as `listen`
    std::string ca, certificate, key;      // PEM files; the certificate names the node id
  } peers;

  struct Control {
    std::string socket;                    // empty: <data>/control.sock
    std::string statusSocket;              // empty: <data>/status.sock
    std::string group;                     // whose members may administer; empty: root and own user
  } control;

  struct CoordinatorPart {
    std::vector<std::string> etcd;         // URLs; empty: the local coordinator
    std::string prefix = "/packmoor";
    std::string ca, certificate, key;      // PEM files, for https; without the last two: no own one
    std::string serverName;                // in etcd's certificates; empty: the URL's host
    std::string user, passwordFile;        // empty: no authentication
    int64_t requestTimeoutMs = 3'000;      // at one of the URLs
  } coordinator;

  struct Io {
    IoBackend backend = IoBackend::kAuto;
    uint64_t workers = 0;                  // threads; 0: one per processor
  } io;

  struct Replication {
    int64_t heartbeatMs = 50;
    int64_t suspectAfterMs = 300;          // at least three heartbeats
    int64_t journalStuckMs = 1000;
    int64_t proposeTimeoutMs = 30'000;
    int64_t readTimeoutMs = 10'000;
    uint64_t checkpointBytes = 64ull << 20;
    int64_t checkpointIntervalMs = 60'000;
    uint64_t logRetainBytes = 256ull << 20;
    uint64_t logRepairBytes = 32ull << 20;
    uint64_t lagBytesMax = 128ull << 20;
    uint64_t transferBytesPerSecond = 1ull << 30;  // 0: no bound
    uint64_t scrubBytesPerSecond = 32ull << 20;    // 0: no bound
    int64_t scrubIntervalMs = 7ll * 24 * 3600 * 1000;
    uint64_t segmentBytes = 64ull << 20;
    int64_t extentExpiryMs = 3'600'000;
    int64_t removedDataKeepMs = 24 * 3'600'000;
    uint64_t diskReserveBytes = 256ull << 20;      // 0: none
    bool autoBalance = true;
    int64_t autoBalanceQuietMs = 60'000;
  } replication;

  struct Git {
    uint64_t inlinePackBytesMax = 256ull << 10;
    uint64_t packBytesMax = 16ull << 30;
    uint64_t commandsMax = 100'000;
    uint64_t heldObjectBytesMax = 512ull << 20;
    uint64_t expansionMax = 2000;
    uint64_t stateCacheBytes = 64ull << 20;
    uint64_t refCacheBytes = 128ull << 20;   // 0: none
    uint64_t settleObjects = 8000;
    uint64_t settleBytes = 32ull << 20;
    uint64_t repackPacks = 8;              // 0: never
    uint64_t repackBytesMax = 4ull << 30;
    uint64_t repackBytesPerSecond = 32ull << 20;
    uint64_t packBuildsMax = 2;
    uint64_t fetchCacheBytes = 4ull << 30;   // 0: none
    int64_t deletedKeepMs = 7ll * 24 * 3600 * 1000;
  } git;

  struct Log {
    std::string level = "info";            // trace, debug, info, warning, error
  } log;

  std::string controlSocket() const;       // with the defaults filled in
  std::string statusSocket() const;
  std::string gitSocket() const;
  std::string httpAdvertised() const;
  std::string peersAdvertised() const;
};

// One thing that is wrong with a file. Line and column count from 1; 0: the file as a whole.
struct ConfigProblem {
  uint32_t line = 0, column = 0;
  std::string message;                     // a sentence
};

struct ConfigResult {
  NodeConfig config;                       // usable when there are no problems
  std::vector<ConfigProblem> problems;     // in the order of the file
};

ConfigResult parseConfig(std::string_view text);
// Like parseConfig on the content of a file; a file that cannot be read is a problem.
ConfigResult readConfig(const std::string& path);
// "FILE:LINE:COLUMN: message" for each problem, one per line.
std::string describeProblems(const std::string& path, const std::vector<ConfigProblem>& problems);

// "64 MiB", "10k", "4096"; returns false when it is none of these or does not fit.
bool parseByteCount(std::string_view text, uint64_t& bytes);

// The candidate with the least edit distance to `word`, or empty when none is near.
std::string nearestWord(std::string_view word, const std::vector<std::string>& candidates);

// True for "host:port", "1.2.3.4:port" and "[::1]:port" with a port from 0 to 65535.
bool isHostAndPort(std::string_view text);

}  // namespace packmoor::rpc
