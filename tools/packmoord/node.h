// Node: one packmoord process, put together and taken apart.
//
// Everything that the node is made of is built here and nowhere else, and passed down. The order:
// control socket and HTTP port first, so that a node which cannot serve yet says so; then the
// journal, extents, coordinator, peers, git and the replicator. A coordinator that does not answer
// is waited for, unless this node remembers its volumes: then it serves as a standby meanwhile. Volumes
// that do not open are waited for, and /health and the status say so. Everything else that is missing
// ends the start with a sentence.
//
// run() serves until stop() was asked for or something failed for good. Members are destroyed in
// the reverse order of their making. Loop: the calling thread's.
#pragma once

#include "data_directory.h"
#include "exit_code.h"
#include "front_gate.h"
#include "health_log.h"

#include <gitlayer/git_front.h>
#include <kernelio/co.h>
#include <kernelio/real_env.h>
#include <replicator/replicator.h>
#include <rpc/config.h>
#include <rpc/control_server.h>
#include <rpc/git_http.h>
#include <rpc/git_socket.h>
#include <rpc/node_control.h>
#include <rpc/peers.h>

#include <kj/async-io.h>

namespace packmoor::daemon {

class Node final : private kj::TaskSet::ErrorHandler {
 public:
  // `step` says at any time how the process must end if what is being done now fails.
  Node(kj::AsyncIoContext& io, const rpc::NodeConfig& config, ExitCode& step);
  ~Node() noexcept(false);
  KJ_DISALLOW_COPY(Node);

  // Resolves after a clean stop; rejects when the node cannot go on.
  kj::Promise<void> run();
  // Ends requests, makes checkpoints, closes the journal; run() then resolves. Idempotent.
  void stop();

 private:
  Co<void> start();
  Co<void> runToStop();
  Co<void> shutDown();

  void openControl();
  Co<void> openHttp();
  void openGitSocket();
  Co<void> openStores();
  Co<void> openCoordinator();
  Co<void> openEtcdCoordinator();
  void buildGit();
  Co<void> openScrubber();
  Co<void> listenToPeers();
  Co<void> registerNode();
  bool remembersVolumes();
  void rememberAddresses(const std::vector<replicator::NodeRegistration>& nodes);
  Co<void> followNodes();
  Co<void> followHealth();
  Co<void> makeFirstVolume();
  Co<void> followVolumes(std::string needed);
  void background(const char* what, kj::Promise<void> task);
  void noteCertificates();
  // Told in the status from now on; the log has it by the health log.
  void setHealth(const char* code, const char* severity, const std::string& sentence);
  void taskFailed(kj::Exception&& e) override;
  rpc::NoticeSink notices(const char* component);

  kj::AsyncIoContext& io_;
  const rpc::NodeConfig& config_;
  ExitCode& step_;
  DataDirectory data_;
  rpc::NodeView view_;
  kj::Own<kernelio::RealEnv> env_;
  kj::Own<rpc::NodeControl> control_;
  kj::Own<rpc::ControlServer> controlServer_;
  kj::Own<rpc::TlsMaterial> tls_, etcdTls_;
  replicator::RecoveryReport recovered_;
  kj::Own<replicator::Journal> journal_;
  kj::Own<replicator::ExtentStore> extents_;
  kj::Own<replicator::Coordinator> coordinator_;
  rpc::EtcdCoordinator* etcd_ = nullptr;                  // coordinator_, in a cluster
  std::map<replicator::NodeId, std::string> addresses_;   // of the peers, as registered
  kj::Own<replicator::Peers> peers_;
  rpc::PeerTransport* transport_ = nullptr;               // peers_, in a cluster
  kj::Own<gitlayer::GitNode> git_;
  kj::Own<replicator::Replicator> replicator_;
  kj::Own<replicator::Scrubber> scrubber_;
  kj::Own<rpc::PeerListener> peerListener_;
  kj::Own<gitlayer::GitFront> front_;
  FrontGate gate_;
  kj::Own<rpc::GitHttpServer> http_;
  kj::Own<rpc::GitSocketServer> gitSocket_;
  HealthLog healthLog_;
  bool stopping_ = false;
  kj::Own<kj::PromiseFulfiller<void>> stopAsked_, failed_;
  kj::Promise<void> stopPromise_, failPromise_;
  kj::Own<kj::TaskSet> tasks_;  // last: they use the above
};

}  // namespace packmoor::daemon
