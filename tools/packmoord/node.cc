#include "node.h"

#include "exit_code.h"
#include "log.h"
#include "node_parts.h"

#include <kernelio/co.h>
#include <replicator/local_coordinator.h>
#include <rpc/sentence.h>

#include <kj/debug.h>

#include <unistd.h>

namespace packmoor::daemon {
namespace {

constexpr int64_t kRetryMs = 1000;
constexpr int64_t kHealthMs = 1000;
constexpr int64_t kCoordinatorLogMs = 30'000;
constexpr int64_t kDrainMs = 5'000;
constexpr int64_t kStopMs = 30'000;
constexpr kj::StringPtr kFirstVolume = "main"_kj;

}  // namespace

Node::Node(kj::AsyncIoContext& io, const rpc::NodeConfig& config, ExitCode& step)
    : io_(io), config_(config), step_(step),
      data_(config.node.data, config.node.id, config.node.cluster),
      stopPromise_(nullptr), failPromise_(nullptr),
      tasks_(kj::heap<kj::TaskSet>(static_cast<kj::TaskSet::ErrorHandler&>(*this))) {
  auto stop = kj::newPromiseAndFulfiller<void>();
  stopPromise_ = kj::mv(stop.promise);
  stopAsked_ = kj::mv(stop.fulfiller);
  auto fail = kj::newPromiseAndFulfiller<void>();
  failPromise_ = kj::mv(fail.promise);
  failed_ = kj::mv(fail.fulfiller);
  env_ = openEnv(io, config);
  view_.config = &config;
  view_.version = PACKMOOR_VERSION;
  view_.env = &env_->env();
  view_.startedAtMs = env_->env().clock.nowMs();
  view_.residentBytes = residentBytes;
}

Node::~Node() noexcept(false) {}

kj::Promise<void> Node::run() { return runToStop(); }

void Node::stop() {
  if (stopping_) return;
  stopping_ = true;
  stopAsked_->fulfill();
}

Co<void> Node::runToStop() {
  auto stopped = kj::mv(stopPromise_);
  auto failed = kj::mv(failPromise_);
  auto serving = start().promise().then([]() { return kj::Promise<void>(kj::NEVER_DONE); });
  co_await serving.exclusiveJoin(kj::mv(stopped)).exclusiveJoin(kj::mv(failed));
  co_await shutDown();
}

Co<void> Node::start() {
  step_ = kPortInUse;
  openControl();
  co_await openHttp();
  openGitSocket();
  notifyServiceManager("READY=1\nSTATUS=Starting.");
  step_ = kBadData;
  co_await openStores();
  co_await openCoordinator();
  buildGit();
  step_ = kPortInUse;
  if (transport_ != nullptr) co_await listenToPeers();
  step_ = kFailed;
  background("the replicator", replicator_->run());
  background("the git layer's maintenance", git_->run());
  co_await openScrubber();
  if (transport_ != nullptr) background("the list of nodes", followNodes());
  background("the watch over this node's health", followHealth());
  if (remembersVolumes()) background("this node's registration", registerNode());
  else co_await registerNode();
  if (transport_ != nullptr) background("the volumes' start", followVolumes(""));
  else co_await makeFirstVolume();
  gate_.open(*front_);
  view_.phase = rpc::NodePhase::kServing;
  logInfo("node", "Node " + config_.node.id + " serves git at http://" + view_.httpAddress + ".");
  notifyServiceManager("STATUS=Serving.");
}

void Node::openControl() {
  control_ = rpc::NodeControl::create(view_);
  rpc::ControlOptions options;
  options.node = config_.node.id;
  options.cluster = config_.node.cluster;
  options.software = "packmoord " PACKMOOR_VERSION;
  options.adminSocket = config_.controlSocket();
  options.statusSocket = config_.statusSocket();
  options.group = config_.control.group;
  controlServer_ =
      rpc::ControlServer::open(*io_.lowLevelProvider, env_->env().timer, *control_, options);
  background("the control socket", controlServer_->run());
}

Co<void> Node::openHttp() {
  rpc::GitHttpOptions options;
  options.connectionsMax = config_.http.connectionsMax;
  options.connectionsPerClientMax = config_.http.connectionsPerClientMax;
  options.bodyRateMin = config_.http.bodyRateMin;
  options.headerTimeoutMs = config_.http.headerTimeoutMs;
  options.idleTimeoutMs = config_.http.idleTimeoutMs;
  options.stallTimeoutMs = config_.http.stallTimeoutMs;
  options.fetchBodyBytesMax = config_.http.fetchBodyBytesMax;
  options.pushBodyBytesMax = config_.git.packBytesMax + (256ull << 20);
  auto port = co_await listenOn(io_, "http.listen", config_.http.listen);
  view_.httpAddress = withPort(config_.httpAdvertised(), port->getPort());
  http_ = rpc::GitHttpServer::create(env_->env().timer, gate_, options, &io_.unixEventPort);
  http_->setHealth("This node is starting.");
  view_.http = http_.get();
  background("the git port", http_->serve(kj::mv(port)));
}

void Node::openGitSocket() {
  rpc::GitSocketOptions options;
  options.socket = config_.gitSocket();
  options.group = config_.ssh.group;
  options.connectionsMax = config_.ssh.connectionsMax;
  options.connectionsPerUserMax = config_.ssh.connectionsPerUserMax;
  options.bodyRateMin = config_.http.bodyRateMin;
  options.fetchBytesMax = config_.http.fetchBodyBytesMax;
  options.silentMs = config_.ssh.silentTimeoutMs;
  options.pushBytesMax = config_.git.packBytesMax + (256ull << 20);
  gitSocket_ = rpc::GitSocketServer::open(*io_.lowLevelProvider, env_->env().timer, gate_, options,
                                          &io_.unixEventPort);
  background("the git socket", gitSocket_->run());
}

Co<void> Node::openStores() {
  auto& env = env_->env();
  if (env_->fallbackReason() != nullptr) {
    setHealth("NO_IO_URING", "warning", env_->fallbackReason().cStr());
  }
  replicator::JournalOptions options;
  options.segmentBytes = config_.replication.segmentBytes;
  options.create = data_.journal().empty();
  auto opened = co_await replicator::Journal::open(env, options, journalFailed);
  journal_ = kj::mv(opened.journal);
  recovered_ = kj::mv(opened.report);
  std::string uuid = journal_->uuid().text().cStr();
  if (!data_.journal().empty() && data_.journal() != uuid) {
    kj::throwFatalException(KJ_EXCEPTION(
        FAILED, kj::str("The journal in ", config_.node.data.c_str(), " is ", uuid.c_str(),
                        ", and this directory was made with ", data_.journal().c_str(),
                        ". Put the right journal back.")));
  }
  data_.setJournal(uuid);
  view_.journal = journal_.get();
  for (const kj::String& damage : recovered_.damage) logError("journal", damage.cStr());
  if (recovered_.damage.size() > 0) {
    setHealth("JOURNAL_DAMAGED", "error", describeDamage(recovered_));
  }
  logInfo("journal", describeRecovery(recovered_));
  replicator::ExtentStoreOptions extents;
  extents.expiryMs = config_.replication.extentExpiryMs;
  extents_ = co_await replicator::ExtentStore::open(env, extents);
  for (const kj::String& damage : extents_->damage()) logError("extents", damage.cStr());
  view_.extents = extents_.get();
}

Co<void> Node::openCoordinator() {
  auto& env = env_->env();
  view_.audit = notices("audit");
  if (config_.coordinator.etcd.empty()) {
    coordinator_ = co_await replicator::openLocalCoordinator(env, kj::str("coordinator"));
    peers_ = rpc::makeSolitaryPeers(config_.node.id);
  } else {
    step_ = kBadConfiguration;
    rpc::TlsFiles files{config_.peers.ca, config_.peers.certificate, config_.peers.key};
    tls_ = rpc::TlsMaterial::load(files, config_.node.id, env.clock.nowMs());
    co_await openEtcdCoordinator();
    rpc::PeerTransportOptions options{
        env.timer, io_.provider->getNetwork(), *tls_, config_.node.id, config_.node.cluster,
        PACKMOOR_VERSION, {}, notices("peers")};
    options.resolve = [this](const replicator::NodeId& node) -> std::optional<std::string> {
      auto found = addresses_.find(node);
      if (found == addresses_.end()) return std::nullopt;
      return found->second;
    };
    auto transport = rpc::PeerTransport::create(kj::mv(options));
    transport_ = transport.get();
    peers_ = kj::mv(transport);
  }
  view_.coordinator = coordinator_.get();
  view_.peers = peers_.get();
}

Co<void> Node::openEtcdCoordinator() {
  auto& env = env_->env();
  const auto& part = config_.coordinator;
  if (!part.ca.empty()) {
    rpc::TlsFiles files{part.ca, part.certificate, part.key};
    etcdTls_ = rpc::TlsMaterial::loadForClient(files, env.clock.nowMs());
  }
  auto opening = openEtcd(io_, env, config_, etcdTls_.get(), notices("etcd"));
  auto etcd = co_await kj::mv(opening);
  etcd_ = etcd.get();
  coordinator_ = kj::mv(etcd);
  view_.etcd = etcd_;
  rememberAddresses(etcd_->rememberedNodes());
}

void Node::buildGit() {
  auto& env = env_->env();
  git_ = gitlayer::GitNode::create(env, *extents_, gitOptions(config_));
  replicator::NodeParts parts{env, config_.node.id, *journal_, recovered_,
                              *extents_, *coordinator_, *peers_};
  replicator_ = replicator::Replicator::create(
      parts, replicatorOptions(config_),
      [this](const replicator::VolumeRecord& volume) { return git_->makeStateMachine(volume); },
      [this](std::string name, kj::Array<const kj::byte> question) {
        return control_->answerNode(kj::mv(name), kj::mv(question));
      });
  git_->attach(*replicator_);
  front_ = gitlayer::GitFront::create(*git_);
  view_.git = git_.get();
  view_.replicator = replicator_.get();
  view_.front = front_.get();
}

Co<void> Node::openScrubber() {
  replicator::ScrubOptions options;
  options.bytesPerSecond = config_.replication.scrubBytesPerSecond;
  options.intervalMs = config_.replication.scrubIntervalMs;
  auto opening = replicator::Scrubber::open(
      replicator::ScrubParts{env_->env(), *journal_, *extents_, *replicator_}, options);
  scrubber_ = co_await kj::mv(opening);
  view_.scrubber = scrubber_.get();
  background("the scrubber", scrubber_->run());
}

Co<void> Node::listenToPeers() {
  peerListener_ = co_await transport_->listen(config_.peers.listen, *replicator_);
  view_.rpcAddress = withPort(config_.peersAdvertised(), peerListener_->port());
}

// Only in a cluster: what stands alone has its coordinator at hand.
bool Node::remembersVolumes() {
  return transport_ != nullptr && !coordinator_->remembered().empty();
}

// A coordinator that is not there is waited for: what this node does not remember opens then.
Co<void> Node::registerNode() {
  replicator::NodeRegistration self;
  self.node = config_.node.id;
  self.journal = journal_->uuid();
  self.rpcAddress = view_.rpcAddress;
  self.httpAddress = view_.httpAddress;
  self.version = PACKMOOR_VERSION;
  int64_t sinceLogMs = kCoordinatorLogMs;
  for (;;) {
    auto problem = co_await attempt(coordinator_->registerNode(self));
    if (problem == nullptr) break;
    KJ_IF_MAYBE(e, problem) {
      const bool serves = remembersVolumes();
      std::string sentence =
          std::string(serves ? "The coordinator does not answer. This node follows in the volumes "
                               "that it remembers, and leads none until it does. "
                             : "The coordinator does not answer; this node waits for it. ") +
          rpc::sentenceOf(*e);
      const std::string doubt = coordinator_->doubt();
      if (doubt.empty()) {
        setHealth("NO_COORDINATOR", "error", sentence);
      } else {
        view_.health.erase("NO_COORDINATOR");  // told as COORDINATOR_CHANGED
        sentence = doubt;
      }
      if (!serves) {
        http_->setHealth(sentence);
        gate_.close("This node waits for its coordinator. Try another node.");
      }
      if (sinceLogMs >= kCoordinatorLogMs) {
        logWarning("node", sentence);
        sinceLogMs = 0;
      }
    }
    sinceLogMs += kRetryMs;
    co_await env_->env().timer.afterDelay(kRetryMs * kj::MILLISECONDS);
  }
  if (view_.health.erase("NO_COORDINATOR") > 0) logInfo("node", "The coordinator answers.");
}

// Keeps the peers' addresses as the coordinator has them.
Co<void> Node::followNodes() {
  for (;;) {
    auto changed = coordinator_->changed();  // before the list, so that nothing is missed
    std::vector<replicator::NodeRegistration> nodes;
    auto problem = co_await attempt(coordinator_->listNodes().then(
        [&nodes](std::vector<replicator::NodeRegistration> listed) { nodes = kj::mv(listed); }));
    if (problem != nullptr) {
      co_await env_->env().timer.afterDelay(kRetryMs * kj::MILLISECONDS);
      continue;
    }
    rememberAddresses(nodes);
    co_await kj::mv(changed);
  }
}

Co<void> Node::followHealth() {
  for (;;) {
    co_await env_->env().timer.afterDelay(kHealthMs * kj::MILLISECONDS);
    noteCertificates();
    healthLog_.note(control_->health());
  }
}

// A node that is not listed keeps its address: a restored coordinator may not know it yet.
void Node::rememberAddresses(const std::vector<replicator::NodeRegistration>& nodes) {
  auto addresses = addresses_;
  for (const auto& node : nodes) addresses[node.node] = node.rpcAddress;
  if (addresses == addresses_) return;
  addresses_ = kj::mv(addresses);
  if (transport_ != nullptr) transport_->addressesChanged();
}

// A node that stands alone makes its volume by itself.
Co<void> Node::makeFirstVolume() {
  auto volumes = co_await coordinator_->listVolumes();
  if (volumes.empty()) {
    std::vector<replicator::NodeId> members(1, config_.node.id);
    co_await replicator_->createVolume(kFirstVolume.cStr(), kj::mv(members), 1);
    logInfo("node", "Made volume main on this node alone. Its data is on one disk only.");
  }
  std::string name = volumes.empty() ? kFirstVolume.cStr() : "";
  for (const auto& volume : volumes) {
    if (name.empty() && !volume.traits.deleted) name = volume.name;
  }
  co_await followVolumes(name);
}

// Until all volumes of this node are open, `needed` among them: what it waits for is the answer of
// /health and a line of the status.
Co<void> Node::followVolumes(std::string needed) {
  for (int64_t waitMs = 0;; waitMs = kRetryMs) {
    auto opening = needed.empty() ? replicator_->whenReady(waitMs)
                                  : replicator_->whenOpen(needed, waitMs);
    auto problem = co_await attempt(kj::mv(opening));
    if (stopping_) co_return;
    if (problem == nullptr) break;
    KJ_IF_MAYBE(e, problem) {
      std::string sentence = "This node is starting. " + rpc::sentenceOf(*e);
      setHealth("STARTING", "warning", sentence);
      http_->setHealth(sentence);
    }
  }
  view_.health.erase("STARTING");
  http_->setHealth("");
}

Co<void> Node::shutDown() {
  auto& timer = env_->env().timer;
  view_.phase = rpc::NodePhase::kStopping;
  notifyServiceManager("STOPPING=1");
  logInfo("node", "Stopping.");
  gate_.close("This node is stopping. Try another one.");
  auto drained = kj::heapArrayBuilder<kj::Promise<void>>(2);
  if (http_.get() != nullptr) {
    http_->setHealth("This node is stopping.");
    drained.add(http_->drain());
  }
  if (gitSocket_.get() != nullptr) drained.add(gitSocket_->drain());
  auto all = kj::joinPromises(drained.finish());
  co_await all.exclusiveJoin(timer.afterDelay(kDrainMs * kj::MILLISECONDS));
  if (replicator_.get() != nullptr) {
    auto problem = co_await attempt(timer.timeoutAfter(kStopMs * kj::MILLISECONDS,
                                                       replicator_->stop()));
    KJ_IF_MAYBE(e, problem) {
      logWarning("node", "No clean checkpoint was made; the next start replays the journal. " +
                             rpc::sentenceOf(*e));
    }
  }
  view_.replicator = nullptr;
  view_.scrubber = nullptr;
  view_.git = nullptr;
  view_.front = nullptr;
  tasks_ = nullptr;
  peerListener_ = nullptr;   // a standby appends what others send it
  if (journal_.get() != nullptr) co_await journal_->close();
  logInfo("node", "Stopped.");
}

void Node::background(const char* what, kj::Promise<void> task) {
  tasks_->add(task.catch_([what](kj::Exception&& e) -> kj::Promise<void> {
    return kj::Exception(e.getType(), e.getFile(), e.getLine(),
                         kj::str("This node cannot go on: ", what, " failed. ",
                                 rpc::sentenceOf(e).c_str()));
  }));
}

void Node::taskFailed(kj::Exception&& e) { failed_->reject(kj::mv(e)); }

void Node::setHealth(const char* code, const char* severity, const std::string& sentence) {
  view_.health[code] = {severity, sentence};
}

// As time goes on: a node may run for longer than its certificates hold.
void Node::noteCertificates() {
  const int64_t now = env_->env().clock.nowMs();
  auto note = [&](const rpc::TlsMaterial* tls, const char* code) {
    const std::string warning = tls == nullptr ? std::string() : tls->warning(now);
    if (!warning.empty()) setHealth(code, "warning", warning);
  };
  note(tls_.get(), "CERTIFICATE_ENDS");
  note(etcdTls_.get(), "ETCD_CERTIFICATE_ENDS");
}

rpc::NoticeSink Node::notices(const char* component) {
  return [component](rpc::NoticeLevel level, kj::StringPtr sentence) {
    log(level == rpc::NoticeLevel::kInfo ? LogLevel::kInfo : LogLevel::kWarning, component,
        sentence.cStr());
  };
}

}  // namespace packmoor::daemon
