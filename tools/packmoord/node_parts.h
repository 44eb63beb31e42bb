// The small pieces that Node is put together with: options from the configuration, ports, notes
// to the service manager, and facts about the process.
#pragma once

#include <gitlayer/git_node.h>
#include <kernelio/real_env.h>
#include <replicator/journal.h>
#include <replicator/replicator.h>
#include <rpc/config.h>
#include <rpc/etcd_coordinator.h>
#include <rpc/notice.h>

#include <kj/async-io.h>

#include <string>

namespace packmoor::daemon {

kj::Own<kernelio::RealEnv> openEnv(kj::AsyncIoContext& io, const rpc::NodeConfig& config);
gitlayer::GitOptions gitOptions(const rpc::NodeConfig& config);
replicator::ReplicatorOptions replicatorOptions(const rpc::NodeConfig& config);
// `tls` is null with http. Both, and the configuration, outlive the coordinator.
kj::Promise<kj::Own<rpc::EtcdCoordinator>> openEtcd(kj::AsyncIoContext& io, kernelio::Env& env,
                                                    const rpc::NodeConfig& config,
                                                    rpc::TlsMaterial* tls, rpc::NoticeSink notices);
// The content of a file without the end of its line. Throws a sentence.
std::string readSecret(const std::string& path);

// Listens on "host:port"; rejects with a sentence that names the key of the configuration.
kj::Promise<kj::Own<kj::ConnectionReceiver>> listenOn(kj::AsyncIoContext& io, kj::StringPtr key,
                                                      const std::string& address);
// The address with `port` where it says port 0.
std::string withPort(const std::string& address, kj::uint port);

// What the promise was rejected with, or nullptr.
kj::Promise<kj::Maybe<kj::Exception>> attempt(kj::Promise<void> promise);

// Ends the process: a journal that could not be written must not be written again.
[[noreturn]] void journalFailed(kj::StringPtr sentence);
std::string describeRecovery(const replicator::RecoveryReport& report);
// What was rotten and what becomes of it; there must be something.
std::string describeDamage(const replicator::RecoveryReport& report);

// As sd_notify(3); nothing happens where there is no service manager.
void notifyServiceManager(const char* state);
uint64_t residentBytes();

}  // namespace packmoor::daemon
