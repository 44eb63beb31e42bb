#include "sim_cluster.h"

#include "quorum.h"

#include <kj/debug.h>

#include <algorithm>
#include <cstdio>

namespace packmoor::replicator {

// ---- One node --------------------------------------------------------------------------------

SimNode::Life::Life(SimCluster& cluster, SimNode& node, uint64_t seed)
    : sim(cluster.loop(), *node.storage_, seed) {}

SimNode::SimNode(SimCluster& cluster, NodeId id, uint64_t seed)
    : cluster_(cluster), id_(std::move(id)), seed_(seed),
      storage_(std::make_unique<kernelio::SimStorage>(seed)) {
  slowDisk(0 * kj::SECONDS);
}

void SimNode::slowDisk(kj::Duration write) {
  kernelio::SimTiming timing;
  timing.readMin = 20 * kj::MICROSECONDS;
  timing.readMax = 100 * kj::MICROSECONDS;
  timing.writeMin = 100 * kj::MICROSECONDS;
  timing.writeMax = 600 * kj::MICROSECONDS;
  timing.syncMin = 100 * kj::MICROSECONDS;
  timing.syncMax = 1000 * kj::MICROSECONDS;
  if (write > 0 * kj::SECONDS) timing.writeMin = timing.writeMax = write;
  storage_->setTiming(timing);
}

SimNode::~SimNode() noexcept(false) { stop(); }

void SimNode::die() {
  if (dying_) return;
  dying_ = true;
  cluster_.tasks().add(kj::evalLater([this, life = lives_]() {
    if (lives_ == life) stop();
  }));
}

void SimNode::boot() {
  if (life_ != nullptr) return;
  starting_ = start().promise().eagerlyEvaluate([this](kj::Exception&& exception) {
    if (!dying_ && !cluster_.startsMayFail) {
      cluster_.failed("node " + id_ + " cannot start: " + kj::str(exception).cStr());
    }
    die();
  });
}

kj::Own<StateMachine> SimNode::makeStateMachine(const std::string& volume) {
  KvOptions options = cluster_.kvOptions;
  if (volume != "main") options.folder += "-" + volume;
  KvDisk& kept = volume == "main" ? disk : otherDisks[volume];
  auto kv = kj::heap<KvStateMachine>(life_->sim.env(), *life_->extents, kept, options);
  life_->kv[volume] = kv.get();
  if (cluster_.watcher != nullptr) {
    kv->onApplied = [this, volume](const Record& record, const std::string& answer) {
      cluster_.watcher->applied(*this, volume, record, answer);
    };
  }
  return kv;
}

Co<void> SimNode::start() {
  KJ_REQUIRE(life_ == nullptr, "already running", id_);
  life_ = std::make_unique<Life>(cluster_, *this, seed_ * 1000 + ++lives_);
  Life& life = *life_;
  auto opened = co_await Journal::open(life.sim.env(), cluster_.journal, [this](kj::StringPtr why) {
    die();
    KJ_FAIL_REQUIRE("fatal", why);
  });
  life.journal = kj::mv(opened.journal);
  life.report = kj::mv(opened.report);
  journalId_ = life.journal->uuid();
  // These disks lose only what was never durable; a journal that finds damage is wrong.
  for (auto& sentence : life.report.damage) {
    if (!cluster_.damageExpected) cluster_.failed("node " + id_ + " finds damage: " + sentence.cStr());
  }
  life.extents = co_await ExtentStore::open(life.sim.env(), cluster_.extentOptions);
  life.coordinator = cluster_.coordinator_.makeView(id_);
  life.peers = cluster_.network_.makePeers(id_);
  life.replicator = Replicator::create(
      NodeParts{life.sim.env(), id_, *life.journal, life.report, *life.extents, *life.coordinator,
                *life.peers},
      cluster_.options_,
      [this](const VolumeRecord& record) { return makeStateMachine(record.name); },
      [](std::string, kj::Array<const kj::byte>) -> kj::Promise<kj::Array<kj::byte>> {
        return kj::heapArray<kj::byte>(0);
      });
  NodeRegistration& registration = cluster_.coordinator_.nodes[id_];
  registration.node = id_;
  registration.journal = journalId_;
  cluster_.network_.attach(id_, *life.replicator);
  life.running = life.replicator->run().eagerlyEvaluate([this](kj::Exception&& e) {
    cluster_.failed("node " + id_ + " cannot go on: " + kj::str(e).cStr());
  });
  life.started = true;
}

void SimNode::taskFailed(kj::Exception&& exception) { KJ_LOG(ERROR, exception); }

void SimNode::stop() {
  if (life_ == nullptr) return;
  if (cluster_.watcher != nullptr) cluster_.watcher->stopping(*this);
  starting_ = nullptr;
  life_->fronts.cancel("the node went down");
  cluster_.network_.detach(id_);
  life_->running = nullptr;
  life_->replicator = nullptr;
  life_ = nullptr;
  dying_ = false;
}

void SimNode::losePower() {
  storage_->cutPower();
  stop();
  storage_->crash();
}

void SimNode::replaceDisk() {
  KJ_REQUIRE(life_ == nullptr, "it runs", id_);
  storage_ = std::make_unique<kernelio::SimStorage>(seed_ + ++lives_);
  slowDisk(0 * kj::SECONDS);
  disk = KvDisk();
  otherDisks.clear();
}

bool SimNode::hasVolume(kj::StringPtr name) {
  return up() && life_->replicator->findVolume(name) != nullptr;
}

Volume& SimNode::volume(kj::StringPtr name) {
  return KJ_ASSERT_NONNULL(life_->replicator->findVolume(name));
}

// ---- The cluster -----------------------------------------------------------------------------

ReplicatorOptions SimCluster::testOptions() {
  ReplicatorOptions options;
  options.checkpointBytes = 64u << 10;
  options.checkpointIntervalMs = 2000;
  options.logRetainBytes = 1u << 20;
  options.logRepairBytes = 0;
  return options;
}

JournalOptions SimCluster::journalOptions() {
  JournalOptions options;
  options.segmentBytes = 256u << 10;
  options.batchBytesMax = 64u << 10;
  return options;
}

SimCluster::SimCluster(uint64_t seed, size_t nodes, ReplicatorOptions options)
    : seed_(seed), options_(options), random_(seed), network_(loop_.timer(), seed + 1),
      coordinator_(loop_.timer(), seed + 2), tasks_(kj::heap<kj::TaskSet>(static_cast<kj::TaskSet::ErrorHandler&>(*this))) {
  for (size_t i = 0; i < nodes; ++i) {
    const NodeId id(1, static_cast<char>('a' + i));
    nodes_.push_back(std::make_unique<SimNode>(*this, id, seed * 31 + i));
  }
}

SimCluster::~SimCluster() noexcept(false) {
  tasks_ = nullptr;
  for (auto& node : nodes_) node->stop();
}

void SimCluster::taskFailed(kj::Exception&& exception) {
  failed(std::string("a task of the run failed: ") + kj::str(exception).cStr());
}

void SimCluster::tell(const std::string& what) {
  network_.trace(std::hash<std::string>()(what));
  if (!story) return;
  char when[32];
  std::snprintf(when, sizeof when, "%10.3f ms  ", (loop_.elapsed() / kj::MICROSECONDS) / 1000.0);
  story(when + what);
}

void SimCluster::failed(std::string finding) {
  finding += " (seed " + std::to_string(seed_) + ", " + std::to_string(nowMs()) + " ms)";
  if (onFailure) {
    onFailure(finding);
  } else {
    simFailed(finding);
  }
}

std::vector<NodeId> SimCluster::nodeIds() const {
  std::vector<NodeId> ids;
  for (auto& node : nodes_) ids.push_back(node->id());
  return ids;
}

void SimCluster::startAll() {
  auto starts = kj::Vector<kj::Promise<void>>();
  for (auto& node : nodes_) {
    if (!node->up()) starts.add(node->start());
  }
  loop_.wait(kj::joinPromises(starts.releaseAsArray()));
  for (auto& node : nodes_) awaitOpen(*node);
}

void SimCluster::awaitOpen(SimNode& node) {
  if (!isMember(node)) return;
  loop_.wait(node.replicator().whenOpen("main", 10'000));
}

void SimCluster::begin(uint32_t writeQuorum, size_t members, VolumeTraits traits) {
  startAll();
  std::vector<NodeId> nodes = nodeIds();
  if (members > 0) nodes.resize(members);
  loop_.wait(nodes_[0]->replicator().createVolume("main", nodes, writeQuorum, traits));
  for (auto& node : nodes_) awaitOpen(*node);
  awaitPrimary();
}

void SimCluster::restart(size_t node) {
  nodes_[node]->stop();
  loop_.wait(nodes_[node]->start().promise());
  awaitOpen(*nodes_[node]);
}

SimNode* SimCluster::primary(const std::string& volume) {
  SimNode* found = nullptr;
  Epoch highest;
  for (auto& node : nodes_) {
    if (!node->hasVolume(volume.c_str())) continue;
    const VolumeStatus status = node->volume(volume.c_str()).status();
    if (status.role != VolumeRole::kPrimary) continue;
    if (found == nullptr || highest < status.epoch) {
      found = node.get();
      highest = status.epoch;
    }
  }
  return found;
}

SimNode& SimCluster::awaitPrimary(int64_t timeoutMs) {
  until([this]() { return primary() != nullptr; }, timeoutMs, "a primary");
  return *primary();
}

size_t SimCluster::indexOf(const SimNode& node) const {
  for (size_t i = 0; i < nodes_.size(); ++i) {
    if (nodes_[i].get() == &node) return i;
  }
  KJ_UNREACHABLE;
}

bool SimCluster::isMember(const SimNode& node, const std::string& name) const {
  auto volume = coordinator_.volumes.find(name);
  if (volume == coordinator_.volumes.end()) return false;
  const VolumeConfiguration& current = volume->second.current;
  return current.hasMember(node.id()) ||
         std::any_of(current.async.begin(), current.async.end(),
                     [&](const MemberIdentity& member) { return member.node == node.id(); });
}

TxnId SimCluster::newTxn() {
  TxnId txn;
  random_.fill(kj::arrayPtr(txn.bytes.data(), txn.bytes.size()));
  return txn;
}

void SimCluster::remember(TxnId txn, RecordIndex index, std::string operation) {
  acknowledged_.push_back(Acknowledged{txn, index, std::move(operation)});
  network_.trace(0xac, index.value);
}

LossOrder SimCluster::lossOrder(const std::vector<size_t>& kept) {
  const VolumeRecord& record = coordinator_.volumes.at("main");
  LossOrder order;
  order.revision = record.revision;
  for (size_t node : kept) order.kept.push_back({nodes_[node]->id(), nodes_[node]->journalId()});
  for (const MemberIdentity& member : configurationToFence(record).members) {
    const bool isKept = std::find(order.kept.begin(), order.kept.end(), member) != order.kept.end();
    if (!isKept) order.ignored.push_back(member);
  }
  order.by = "user id 0";
  order.what = "what they held";
  return order;
}

void SimCluster::giveUp(RecordIndex index) {
  std::erase_if(acknowledged_, [&](const Acknowledged& done) { return done.index > index; });
}

Co<ProposeOutcome> SimCluster::propose(size_t node, std::string operation) {
  const TxnId txn = newTxn();
  return propose(node, txn, std::move(operation));
}

Co<ProposeOutcome> SimCluster::propose(size_t node, TxnId txn, std::string operation) {
  auto outcome = co_await nodes_[node]->volume().propose(kvProposal(txn, operation));
  if (textOf(outcome.result).rfind("ok ", 0) == 0) remember(txn, outcome.index, operation);
  co_return kj::mv(outcome);
}

Co<std::string> SimCluster::read(size_t node, std::string key) {
  co_await nodes_[node]->volume().readBarrier();
  const auto& values = nodes_[node]->kv().state().values;
  auto it = values.find(key);
  co_return it == values.end() ? std::string("-") : it->second;
}

void SimCluster::settle(int64_t timeoutMs) {
  RecordIndex highest;
  for (const auto& done : acknowledged_) highest = std::max(highest, done.index);
  until([this, highest]() {
    RecordIndex committed = highest;
    for (auto& node : nodes_) {
      if (node->hasVolume()) committed = std::max(committed, node->volume().status().committed);
    }
    for (auto& node : nodes_) {
      if (!isMember(*node)) continue;
      if (node->up() && (!node->hasVolume() || node->volume().status().applied < committed)) {
        return false;
      }
    }
    return true;
  }, timeoutMs, "every running node has applied what was acknowledged");
}

void SimCluster::verify() {
  std::map<uint64_t, std::pair<Hash128, NodeId>> histories;  // by applied index
  std::map<uint64_t, Hash128> records;                       // committed ones, by index
  for (auto& node : nodes_) {
    if (node->hasVolume()) verifyNode(*node, histories, records);
  }
}

void SimCluster::verifyNode(SimNode& node, Histories& histories,
                            std::map<uint64_t, Hash128>& records) {
  const VolumeStatus status = node.volume().status();
  const KvState& state = node.kv().state();
  auto on = [&]() { return " on " + node.id(); };
  if (status.applied > status.committed) failed("applied beyond what is committed" + on());
  if (status.applied > status.durable) failed("applied beyond what is durable" + on());
  auto [history, first] = histories.emplace(state.applied.index.value,
                                            std::make_pair(state.history, node.id()));
  if (history->second.first != state.history) {
    failed("states differ at " + std::to_string(state.applied.index.value) + on() + " and on " +
           history->second.second);
  }
  for (RecordIndex index = status.base; index <= status.committed; index = index.next()) {
    auto position = node.journal().position(status.id, index);
    KJ_IF_MAYBE(known, position) {
      auto place = records.emplace(index.value, known->hash).first;
      if (place->second != known->hash) {
        failed("logs differ at " + std::to_string(index.value) + on());
      }
    }
  }
  for (const auto& [txn, result] : state.results) {
    if (result.times != 1) failed("applied " + std::to_string(result.times) + " times" + on());
  }
  for (const auto& done : acknowledged_) {
    if (done.index > state.applied.index) continue;
    auto result = state.results.find(done.txn);
    if (result == state.results.end()) {
      failed("lost" + on() + ": " + done.operation + " at " + std::to_string(done.index.value));
    } else if (result->second.index != done.index) {
      failed("moved" + on() + ": " + done.operation);
    }
  }
}

namespace {

std::string describeVolume(const VolumeStatus& s) {
  std::string text = s.name == "main" ? "" : "\n    " + s.name + ": ";
  text += kj::str(roleName(s.role), " primary=", s.primary.c_str(), " epoch=", s.epoch, " base=",
                  s.base, " last=", s.last, " durable=", s.durable, " committed=", s.committed,
                  " applied=", s.applied, " checkpoint=", s.checkpoint, " ", s.problem.c_str())
              .cStr();
  if (s.transfer.running) {
    text += kj::str(" transfer: ", s.transfer.phase.c_str(), " ", s.transfer.fileBytesDone, " of ",
                    s.transfer.fileBytes, " ", s.transfer.problem.c_str()).cStr();
  }
  for (const auto& member : s.members) {
    text += kj::str(member.counted ? " [" : " (", member.node.c_str(), " ", member.acknowledged, " ",
                    member.problem.c_str(), member.counted ? "]" : ")").cStr();
  }
  return text;
}

}  // namespace

std::string SimCluster::describe() {
  std::string text;
  for (auto& node : nodes_) {
    text += "\n  " + node->id() + ": ";
    if (!node->up()) {
      text += "down";
      continue;
    }
    auto volumes = node->replicator().volumes();
    if (volumes.empty()) text += "not open";
    for (Volume* volume : volumes) text += describeVolume(volume->status());
  }
  return text;
}

}  // namespace packmoor::replicator
