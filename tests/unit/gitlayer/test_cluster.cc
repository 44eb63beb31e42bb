#include "test_cluster.h"

#include "test_log.h"

#include <kj/debug.h>

namespace packmoor::gitlayer::test {

namespace {

class RealGround final : public Ground {
 public:
  kj::WaitScope& scope() override { return io_.waitScope; }
  size_t add() override {
    auto place = kj::heap<Place>();
    kernelio::RealEnvOptions options;
    options.dataFolder = place->folder.path().c_str();
    options.workerThreads = 2;
    place->env = kernelio::makeRealEnv(io_, options);
    places_.push_back(kj::mv(place));
    return places_.size() - 1;
  }
  kernelio::Env& env(size_t member) override { return places_[member]->env->env(); }
  void crash(size_t) override {}

 private:
  struct Place {
    packmoor::testing::TempDir folder;
    kj::Own<kernelio::RealEnv> env;
  };
  kj::AsyncIoContext io_ = kj::setupAsyncIo();
  std::vector<kj::Own<Place>> places_;
};

class SimGround final : public Ground {
 public:
  explicit SimGround(uint64_t seed) : seed_(seed) {}
  kj::WaitScope& scope() override { return loop_.waitScope(); }
  size_t add() override {
    auto place = kj::heap<Place>(++seed_);
    place->env = kj::heap<kernelio::SimEnv>(loop_, place->storage, ++seed_);
    places_.push_back(kj::mv(place));
    return places_.size() - 1;
  }
  kernelio::Env& env(size_t member) override { return places_[member]->env->env(); }
  void setCapacity(size_t member, uint64_t bytes) override {
    places_[member]->storage.setCapacity(bytes);
  }
  void crash(size_t member) override {
    Place& place = *places_[member];
    place.env = nullptr;
    place.storage.cutPower();
    place.storage.crash();
    place.env = kj::heap<kernelio::SimEnv>(loop_, place.storage, ++seed_);
  }

 private:
  struct Place {
    explicit Place(uint64_t seed) : storage(seed) {}
    kernelio::SimStorage storage;
    kj::Own<kernelio::SimEnv> env;
  };
  kernelio::VirtualLoop loop_;
  uint64_t seed_;
  std::vector<kj::Own<Place>> places_;
};

}  // namespace

kj::Own<Ground> realGround() { return kj::heap<RealGround>(); }
kj::Own<Ground> simGround(uint64_t seed) { return kj::heap<SimGround>(seed); }

class TestCluster::FakeVolume final : public replicator::Volume {
 public:
  FakeVolume(TestCluster& cluster, size_t member, kj::Own<replicator::StateMachine> machine)
      : machine(kj::mv(machine)), cluster_(cluster), member_(member), id_(repositoryId(99)) {}

  const replicator::VolumeId& id() override { return id_; }
  const std::string& name() override { return name_; }
  replicator::StateMachine& stateMachine() override { return *machine; }
  kj::Promise<replicator::ProposeOutcome> propose(replicator::Proposal proposal) override {
    return cluster_.propose(kj::mv(proposal));
  }
  kj::Promise<replicator::RecordIndex> readBarrier() override { return machine->applied().index; }
  kj::Promise<void> whenApplied(replicator::RecordIndex) override { return kj::READY_NOW; }
  kj::Promise<void> takeOver() override { KJ_UNIMPLEMENTED("takeOver"); }
  kj::Promise<void> switchOver(replicator::NodeId) override { KJ_UNIMPLEMENTED("switchOver"); }
  kj::Promise<void> changeConfiguration(replicator::ConfigurationChange) override {
    KJ_UNIMPLEMENTED("changeConfiguration");
  }
  kj::Promise<bool> whenCounted(replicator::NodeId, int64_t) override { return true; }
  kj::Promise<void> deleteForGood() override { KJ_UNIMPLEMENTED("deleteForGood"); }
  kj::Promise<void> checkpointNow() override { return machine->flush().ignoreResult(); }
  replicator::VolumeStatus status() override {
    replicator::VolumeStatus status;
    status.role = member_ == 0 ? replicator::VolumeRole::kPrimary
                               : replicator::VolumeRole::kStandby;
    for (size_t i = 0; i < cluster_.members_.size(); ++i) {
      replicator::MemberStatus member;
      member.node = "node" + std::to_string(i);
      status.members.push_back(member);
    }
    return status;
  }

  kj::Own<replicator::StateMachine> machine;

 private:
  TestCluster& cluster_;
  size_t member_;
  replicator::VolumeId id_;
  std::string name_ = "main";
};

class TestCluster::FakePeer final : public replicator::Peer {
 public:
  FakePeer(TestCluster& cluster, replicator::NodeId node)
      : cluster_(cluster), node_(std::move(node)) {}
  const replicator::NodeId& node() override { return node_; }
  bool connected() override { return true; }
  bool refused() override { return false; }
  kj::Promise<kj::Array<kj::byte>> query(replicator::VolumeId, std::string name,
                                         kj::Array<const kj::byte> question) override {
    const size_t member = std::stoul(node_.substr(4));
    KJ_REQUIRE(cluster_.members_[member].get() != nullptr, "the node is down");
    return cluster_.machine(member).query(std::move(name), kj::mv(question));
  }

  using Hash = replicator::Hash128;
  kj::Promise<replicator::AppendReply> append(replicator::AppendRequest) override { no(); }
  kj::Promise<replicator::FenceReply> fence(replicator::FenceRequest) override { no(); }
  kj::Promise<replicator::FetchReply> fetch(replicator::FetchRequest) override { no(); }
  kj::Promise<replicator::LogPosition> commonPrefix(replicator::CommonPrefixRequest) override {
    no();
  }
  kj::Promise<replicator::ProposeReply> propose(replicator::ProposeRequest) override { no(); }
  kj::Promise<replicator::ReadIndexReply> readIndex(replicator::ReadIndexRequest) override { no(); }
  kj::Promise<replicator::ConfirmReply> confirm(replicator::ConfirmRequest) override { no(); }
  kj::Promise<replicator::ConsentReply> consent(replicator::ConsentRequest) override { no(); }
  kj::Promise<void> takeOver(replicator::VolumeId) override { no(); }
  kj::Promise<void> writeExtentBlock(replicator::ExtentId, uint64_t, kernelio::IoBuffer,
                                     Hash) override {
    no();
  }
  kj::Promise<void> sealExtent(replicator::ExtentId, uint64_t, Hash) override { no(); }
  kj::Promise<void> abandonExtent(replicator::ExtentId) override { no(); }
  kj::Promise<replicator::ExtentBlockReply> readExtentBlock(replicator::ExtentId,
                                                            uint64_t) override {
    no();
  }
  kj::Promise<std::pair<uint64_t, Hash>> extentInfo(replicator::ExtentId) override { no(); }

 private:
  [[noreturn]] static void no() { KJ_FAIL_REQUIRE("there is no network here"); }
  TestCluster& cluster_;
  replicator::NodeId node_;
};

// An extent on every member that is up.
class TestCluster::FakeExtent final : public replicator::ReplicatedExtentWriter {
 public:
  FakeExtent(TestCluster& cluster, replicator::ExtentId id) : cluster_(cluster), id_(id) {}
  ~FakeExtent() noexcept(false) {
    if (sealed_.info.id.isNull()) return;
    for (size_t i = 0; i < cluster_.members_.size(); ++i) {
      if (cluster_.members_[i].get() != nullptr) cluster_.extents(i).unpin(id_);
    }
  }

  Co<void> begin() {
    for (size_t i = 0; i < cluster_.members_.size(); ++i) {
      if (cluster_.members_[i].get() == nullptr) continue;
      auto beginning = cluster_.extents(i).begin(id_);
      auto writer = co_await kj::mv(beginning);
      writers_.add(kj::mv(writer));
      sealed_.sealedOn.push_back("node" + std::to_string(i));
    }
  }
  replicator::ExtentId id() override { return id_; }
  kj::Promise<void> writeBlock(uint64_t block, kernelio::IoBuffer data) override {
    return writeAll(block, kj::mv(data));
  }
  kj::Promise<Sealed> seal(uint64_t bytes) override { return sealAll(bytes); }

 private:
  Co<void> writeAll(uint64_t block, kernelio::IoBuffer data) {
    const auto checksum = replicator::hashBytes(data.bytes());
    for (auto& writer : writers_) {
      auto writing = writer->writeBlock(block, data, checksum);
      co_await kj::mv(writing);
    }
  }
  Co<Sealed> sealAll(uint64_t bytes) {
    for (auto& writer : writers_) {
      auto sealing = writer->seal(bytes, nullptr);
      auto info = co_await kj::mv(sealing);
      sealed_.info = info;
    }
    co_return sealed_;
  }

  TestCluster& cluster_;
  replicator::ExtentId id_;
  kj::Vector<kj::Own<replicator::ExtentWriter>> writers_;
  Sealed sealed_;
};

class TestCluster::FakeReplicator final : public replicator::Replicator,
                                          private replicator::Peers {
 public:
  using Node = replicator::NodeId;
  using VolumeId = replicator::VolumeId;
  using ExtentId = replicator::ExtentId;
  using Hash = replicator::Hash128;

  FakeReplicator(TestCluster& cluster, size_t member)
      : cluster_(cluster), self_("node" + std::to_string(member)), member_(member) {}

  kj::Maybe<replicator::Volume&> findVolume(kj::StringPtr name) override {
    if (name != "main") return nullptr;
    return cluster_.volume(member_);
  }
  std::vector<replicator::Volume*> volumes() override { return {&cluster_.volume(member_)}; }
  replicator::Peers& peers() override { return *this; }
  kj::Promise<void> run() override { return kj::NEVER_DONE; }
  kj::Promise<void> whenReady(int64_t) override { return kj::READY_NOW; }
  kj::Promise<void> whenOpen(std::string, int64_t) override { return kj::READY_NOW; }
  kj::Promise<kj::Own<replicator::ReplicatedExtentWriter>> beginExtent(
      replicator::Volume&) override {
    return beginEverywhere();
  }
  kj::Promise<replicator::VolumeRecord> createVolume(std::string, std::vector<Node>, uint32_t,
                                                     replicator::VolumeTraits) override {
    no();
  }
  std::vector<replicator::RemovalStatus> removals() override { return {}; }
  replicator::RoomStatus room() override { return {}; }
  kj::Promise<void> stop() override { return kj::READY_NOW; }

  const Node& self() override { return self_; }
  replicator::Peer& peer(const Node& node) override {
    auto& peer = peers_[node];
    if (peer.get() == nullptr) peer = kj::heap<FakePeer>(cluster_, node);
    return *peer;
  }
  kj::Promise<void> connectivityChanged() override { return kj::NEVER_DONE; }

  kj::Promise<replicator::AppendReply> append(const Node&, replicator::AppendRequest) override {
    no();
  }
  kj::Promise<replicator::FenceReply> fence(const Node&, replicator::FenceRequest) override {
    no();
  }
  kj::Promise<replicator::FetchReply> fetch(const Node&, replicator::FetchRequest) override {
    no();
  }
  kj::Promise<replicator::LogPosition> commonPrefix(const Node&,
                                                    replicator::CommonPrefixRequest) override {
    no();
  }
  kj::Promise<replicator::ProposeReply> propose(const Node&,
                                                replicator::ProposeRequest) override {
    no();
  }
  kj::Promise<replicator::ReadIndexReply> readIndex(const Node&, replicator::ReadIndexRequest) override { no(); }
  kj::Promise<replicator::ConfirmReply> confirm(const Node&,
                                                replicator::ConfirmRequest) override {
    no();
  }
  kj::Promise<replicator::ConsentReply> consent(const Node&,
                                                replicator::ConsentRequest) override {
    no();
  }
  kj::Promise<void> takeOver(const Node&, VolumeId) override { no(); }
  kj::Promise<void> writeExtentBlock(const Node&, ExtentId, uint64_t, kernelio::IoBuffer,
                                     Hash) override {
    no();
  }
  kj::Promise<void> sealExtent(const Node&, ExtentId, uint64_t, Hash) override { no(); }
  kj::Promise<void> abandonExtent(const Node&, ExtentId) override { no(); }
  kj::Promise<replicator::ExtentBlockReply> readExtentBlock(const Node&, ExtentId,
                                                            uint64_t) override {
    no();
  }
  kj::Promise<std::pair<uint64_t, Hash>> extentInfo(const Node&, ExtentId) override { no(); }
  kj::Promise<kj::Array<kj::byte>> query(const Node&, VolumeId, std::string,
                                         kj::Array<const kj::byte>) override {
    no();
  }

 private:
  [[noreturn]] static void no() { KJ_FAIL_REQUIRE("there is no network here"); }
  Co<kj::Own<replicator::ReplicatedExtentWriter>> beginEverywhere() {
    auto extent = kj::heap<FakeExtent>(cluster_, cluster_.newExtent());
    auto beginning = extent->begin();
    co_await kj::mv(beginning);
    kj::Own<replicator::ReplicatedExtentWriter> writer = kj::mv(extent);
    co_return kj::mv(writer);
  }

  TestCluster& cluster_;
  Node self_;
  size_t member_;
  std::map<Node, kj::Own<FakePeer>> peers_;
};

TestCluster::TestCluster(kj::Own<Ground> place, size_t members, GitOptions gitOptions)
    : ground(kj::mv(place)), options(gitOptions) {
  for (size_t i = 0; i < members; ++i) {
    ground->add();
    members_.emplace_back();
    start(i);
  }
}

TestCluster::~TestCluster() noexcept(false) {
  for (size_t i = 0; i < members_.size(); ++i) stop(i);
}

GitNode& TestCluster::node(size_t member) { return *members_[member]->node; }
GitStateMachine& TestCluster::machine(size_t member) {
  return kj::downcast<GitStateMachine>(*members_[member]->volume->machine);
}
replicator::ExtentStore& TestCluster::extents(size_t member) { return *members_[member]->extents; }
replicator::Replicator& TestCluster::replicator(size_t member) {
  return *members_[member]->replicator;
}
replicator::Volume& TestCluster::volume(size_t member) { return *members_[member]->volume; }

void TestCluster::start(size_t index) {
  auto member = kj::heap<Member>();
  auto& env = ground->env(index);
  member->extents = replicator::ExtentStore::open(env, {}).wait(scope());
  member->node = GitNode::create(env, *member->extents, options);
  replicator::VolumeRecord record;
  record.id = repositoryId(99);
  record.name = "main";
  member->volume = kj::heap<FakeVolume>(*this, index, member->node->makeStateMachine(record));
  member->replicator = kj::heap<FakeReplicator>(*this, index);
  member->node->attach(*member->replicator);
  members_[index] = kj::mv(member);
  auto& machine = *members_[index]->volume->machine;
  const auto position = machine.open().wait(scope());
  KJ_ASSERT(position.index.value <= log.size());
  std::vector<replicator::RecordRef> missing(log.begin() + position.index.value, log.end());
  if (!missing.empty()) machine.apply(std::move(missing)).wait(scope());
}

void TestCluster::stop(size_t index) {
  if (members_[index].get() == nullptr) return;
  auto& member = *members_[index];
  member.replicator = nullptr;
  member.volume = nullptr;
  member.node = nullptr;
  member.extents = nullptr;
  members_[index] = nullptr;
}

void TestCluster::restart(size_t index) {
  stop(index);
  ground->crash(index);
  start(index);
}

RepositoryInfo TestCluster::create(const std::string& name) {
  auto changed = node().createRepository(name, "", "", "").wait(scope());
  KJ_ASSERT(changed.problem == RepositoryProblem::kNone, changed.message.c_str());
  return changed.info;
}

PushOutcome TestCluster::push(const RepositoryInfo& repository, PushTransaction transaction,
                              size_t member) {
  return node(member).push(repository.id, std::move(transaction)).wait(scope());
}

kj::Own<RepositoryView> TestCluster::view(const std::string& name, size_t member) {
  auto found = node(member).view(name, true).wait(scope());
  return kj::mv(KJ_ASSERT_NONNULL(found, "no such repository", name.c_str()));
}

replicator::ExtentId TestCluster::newExtent() {
  replicator::ExtentId id;
  id.bytes[0] = 0xee;
  for (size_t i = 0; i < 8; ++i) id.bytes[15 - i] = static_cast<uint8_t>(nextExtent_ >> (8 * i));
  ++nextExtent_;
  return id;
}

replicator::ExtentId TestCluster::seal(kj::ArrayPtr<const kj::byte> content) {
  const auto id = newExtent();
  for (size_t i = 0; i < members_.size(); ++i) {
    auto writer = extents(i).begin(id).wait(scope());
    for (uint64_t at = 0, block = 0; at < content.size(); ++block) {
      const size_t size = replicator::blockBytesAt(content.size(), block);
      auto part = content.slice(at, at + size);
      writer->writeBlock(block, kernelio::IoBuffer::copyOf(part), replicator::hashBytes(part))
          .wait(scope());
      at += size;
    }
    writer->seal(content.size(), nullptr).wait(scope());
  }
  return id;
}

std::string TestCluster::dump(size_t member) {
  std::string all;
  machine(member).snapshot()->scan("", "", [&](std::string_view key, std::string_view value) {
    all.append(key).append("=").append(value).append("\n");
    return true;
  });
  return all;
}

kj::Promise<replicator::ProposeOutcome> TestCluster::propose(replicator::Proposal proposal) {
  return order(kj::mv(proposal));
}

Co<replicator::ProposeOutcome> TestCluster::order(replicator::Proposal proposal) {
  auto turn = kj::newPromiseAndFulfiller<void>();
  auto before = kj::mv(last_);
  last_ = kj::mv(turn.promise);
  KJ_DEFER(turn.fulfiller->fulfill());
  co_await kj::mv(before);
  replicator::ProposeOutcome outcome;
  KJ_IF_MAYBE(known, machine(0).findResult(proposal.txn)) {
    outcome.index = known->index;
    outcome.result = kj::mv(known->result);
    co_return kj::mv(outcome);
  }
  const replicator::RecordIndex index(log.size() + 1);
  auto verdict = machine(0).validate(proposal, index);
  if (!verdict.accepted) {
    outcome.index = verdict.restsOn;
    outcome.result = kj::mv(verdict.result);
    co_return kj::mv(outcome);
  }
  log.push_back(replicator::makeRecord(
      index, replicator::Epoch(1), log.empty() ? replicator::Hash128() : log.back()->hash,
      proposal.kind, proposal.extents, kj::mv(proposal.payload)));
  for (size_t i = 0; i < members_.size(); ++i) {
    if (members_[i].get() == nullptr) continue;
    if (i > 0 && beforeOthers) beforeOthers(*log.back());
    std::vector<replicator::RecordRef> group(
        log.begin() + machine(i).applied().index.value, log.end());
    auto applying = machine(i).apply(std::move(group));
    auto results = co_await kj::mv(applying);
    if (i == 0) outcome.result = kj::mv(results.back());
  }
  outcome.index = index;
  co_return kj::mv(outcome);
}

}  // namespace packmoor::gitlayer::test
