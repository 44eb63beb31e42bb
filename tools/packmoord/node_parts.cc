#include "node_parts.h"

#include "exit_code.h"
#include "log.h"

#include <kj/debug.h>

#include <systemd/sd-daemon.h>

#include <cstdio>
#include <cstring>
#include <fstream>

#include <unistd.h>

namespace packmoor::daemon {
namespace {

constexpr size_t kSecretBytesMax = 4096;

}  // namespace

kj::Own<kernelio::RealEnv> openEnv(kj::AsyncIoContext& io, const rpc::NodeConfig& config) {
  kernelio::RealEnvOptions options;
  options.dataFolder = config.node.data.c_str();
  options.workerThreads = config.io.workers;
  switch (config.io.backend) {
    case rpc::IoBackend::kAuto: options.backend = kernelio::DiskBackend::kAuto; break;
    case rpc::IoBackend::kIoUring: options.backend = kernelio::DiskBackend::kIoUring; break;
    case rpc::IoBackend::kThreads: options.backend = kernelio::DiskBackend::kThreads; break;
  }
  return kernelio::makeRealEnv(io, options);
}

gitlayer::GitOptions gitOptions(const rpc::NodeConfig& config) {
  gitlayer::GitOptions options;
  options.inlinePackBytesMax = config.git.inlinePackBytesMax;
  options.packBytesMax = config.git.packBytesMax;
  options.commandsMax = static_cast<uint32_t>(config.git.commandsMax);
  options.heldObjectBytesMax = config.git.heldObjectBytesMax;
  options.expansionMax = config.git.expansionMax;
  options.stateCacheBytes = config.git.stateCacheBytes;
  options.refCacheBytes = config.git.refCacheBytes;
  options.settleObjects = config.git.settleObjects;
  options.settleBytes = config.git.settleBytes;
  options.repackPacks = static_cast<uint32_t>(config.git.repackPacks);
  options.repackBytesMax = config.git.repackBytesMax;
  options.repackBytesPerSecond = config.git.repackBytesPerSecond;
  options.packBuildsMax = static_cast<uint32_t>(config.git.packBuildsMax);
  options.fetchCacheBytes = config.git.fetchCacheBytes;
  options.discardedKeepMs = config.git.deletedKeepMs;
  return options;
}

replicator::ReplicatorOptions replicatorOptions(const rpc::NodeConfig& config) {
  replicator::ReplicatorOptions options;
  options.heartbeatMs = config.replication.heartbeatMs;
  options.suspectAfterMs = config.replication.suspectAfterMs;
  options.journalStuckMs = config.replication.journalStuckMs;
  options.proposeTimeoutMs = config.replication.proposeTimeoutMs;
  options.readTimeoutMs = config.replication.readTimeoutMs;
  options.checkpointBytes = config.replication.checkpointBytes;
  options.checkpointIntervalMs = config.replication.checkpointIntervalMs;
  options.logRetainBytes = config.replication.logRetainBytes;
  options.logRepairBytes = config.replication.logRepairBytes;
  options.lagBytesMax = config.replication.lagBytesMax;
  options.transferBytesPerSecond = config.replication.transferBytesPerSecond;
  options.removedDataKeepMs = config.replication.removedDataKeepMs;
  options.diskReserveBytes = config.replication.diskReserveBytes;
  options.autoBalance = config.replication.autoBalance;
  options.autoBalanceQuietMs = config.replication.autoBalanceQuietMs;
  return options;
}

kj::Promise<kj::Own<rpc::EtcdCoordinator>> openEtcd(kj::AsyncIoContext& io, kernelio::Env& env,
                                                    const rpc::NodeConfig& config,
                                                    rpc::TlsMaterial* tls,
                                                    rpc::NoticeSink notices) {
  const auto& part = config.coordinator;
  rpc::EtcdOptions options{env.timer, io.provider->getNetwork(), part.etcd, config.node.cluster,
                           part.prefix, part.requestTimeoutMs, kj::mv(notices)};
  options.node = config.node.id;
  options.disk = &env.disk;
  options.tls = tls;
  options.serverName = part.serverName;
  options.user = part.user;
  if (!part.user.empty()) {
    readSecret(part.passwordFile);  // a mistake shows at the start
    options.password = [&part]() { return readSecret(part.passwordFile); };
  }
  return rpc::EtcdCoordinator::open(kj::mv(options));
}

std::string readSecret(const std::string& path) {
  std::ifstream file(path, std::ios::binary);
  std::string secret;
  const bool read = file && (std::getline(file, secret) || file.eof());
  if (!read || secret.empty() || secret.size() > kSecretBytesMax) {
    kj::throwFatalException(kj::Exception(
        kj::Exception::Type::FAILED, __FILE__, __LINE__,
        kj::str("The password file ", path.c_str(), read ? " holds no password." :
                " cannot be read.")));
  }
  return secret;
}

kj::Promise<kj::Own<kj::ConnectionReceiver>> listenOn(kj::AsyncIoContext& io, kj::StringPtr key,
                                                      const std::string& address) {
  return io.provider->getNetwork().parseAddress(address.c_str())
      .then([](kj::Own<kj::NetworkAddress> parsed) { return parsed->listen(); })
      .catch_([key, address](kj::Exception&& e) -> kj::Own<kj::ConnectionReceiver> {
        // KJ puts the system call in front of the system's reason, and values behind it.
        std::string reason = e.getDescription().cStr();
        size_t start = reason.find("): ");
        if (start != std::string::npos) reason.erase(0, start + 3);
        reason.erase(std::min(reason.find(';'), reason.size()));
        kj::throwFatalException(kj::Exception(
            e.getType(), __FILE__, __LINE__,
            kj::str("The address ", address.c_str(), " (", key, ") cannot be listened on: ",
                    reason.c_str(), ".")));
      });
}

std::string withPort(const std::string& address, kj::uint port) {
  size_t colon = address.rfind(':');
  if (colon == std::string::npos || address.substr(colon) != ":0") return address;
  return address.substr(0, colon + 1) + std::to_string(port);
}

kj::Promise<kj::Maybe<kj::Exception>> attempt(kj::Promise<void> promise) {
  return promise.then([]() -> kj::Maybe<kj::Exception> { return nullptr; },
                      [](kj::Exception&& e) -> kj::Maybe<kj::Exception> { return kj::mv(e); });
}

void journalFailed(kj::StringPtr sentence) {
  logError("journal", std::string(sentence.cStr()) +
                          " The process ends; what was acknowledged is kept. Look after the disk "
                          "and start the node again.");
  _exit(kDiskFailed);
}

std::string describeRecovery(const replicator::RecoveryReport& report) {
  std::string uuid = report.journal.text().cStr();
  if (report.created) return "Made a new journal, " + uuid + ".";
  std::string text = "Opened journal " + uuid + ": " + std::to_string(report.batches) +
                     " batches, " + std::to_string(report.bytes) + " bytes, " +
                     std::to_string(report.volumes.size()) + " volumes.";
  if (report.tornBytes > 0) {
    text += " Cut " + std::to_string(report.tornBytes) +
            " bytes of a torn tail that was never acknowledged.";
  }
  return text;
}

std::string describeDamage(const replicator::RecoveryReport& report) {
  constexpr size_t kShownMax = 3;
  std::string text = "The journal was found damaged at start:";
  for (size_t i = 0; i < report.damage.size() && i < kShownMax; ++i) {
    text += std::string(" ") + report.damage[i].cStr();
  }
  if (report.damage.size() > kShownMax) {
    text += " The log has " + std::to_string(report.damage.size() - kShownMax) + " more of these.";
  }
  return text + " Volumes that may have lost something are repaired from other members. Check the "
                "disk.";
}

void notifyServiceManager(const char* state) { sd_notify(0, state); }

uint64_t residentBytes() {
  std::FILE* file = std::fopen("/proc/self/statm", "re");
  if (file == nullptr) return 0;
  unsigned long total = 0, resident = 0;
  int got = std::fscanf(file, "%lu %lu", &total, &resident);
  std::fclose(file);
  return got == 2 ? resident * static_cast<uint64_t>(sysconf(_SC_PAGESIZE)) : 0;
}

}  // namespace packmoor::daemon
