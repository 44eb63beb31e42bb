#include "replicator_impl.h"

#include "replicator/outcome.h"
#include "replicated_extent_writer.h"

#include <kj/debug.h>

#include <algorithm>

namespace packmoor::replicator {

namespace {
constexpr size_t kFormerMax = 1000;  // volumes of one name that were deleted
}  // namespace

kj::Own<Replicator> Replicator::create(NodeParts parts, ReplicatorOptions options,
                                       StateMachineFactory makeStateMachine, NodeQuery nodeQuery) {
  return kj::heap<ReplicatorImpl>(parts, options, kj::mv(makeStateMachine), kj::mv(nodeQuery));
}

ReplicatorImpl::ReplicatorImpl(NodeParts parts, ReplicatorOptions options,
                               StateMachineFactory makeStateMachine, NodeQuery nodeQuery)
    : parts_(parts), options_(options), makeStateMachine_(kj::mv(makeStateMachine)),
      nodeQuery_(kj::mv(nodeQuery)), self_{parts.self, parts.journal.uuid()},
      recovered_(parts.recovered.volumes), mayMissVolumes_(parts.recovered.mayMissVolumes),
      exchange_(parts.env, parts.extents, parts.peers, options.proposeTimeoutMs),
      room_(parts.env, options.diskReserveBytes),
      balancer_(options.autoBalanceQuietMs) {
  parts_.extents.setBlockSource(ExtentStore::BlockSource([this](ExtentId id, uint64_t block) {
    return canceler_.wrap(fetchBlock(id, block).promise());
  }));
}

ReplicatorImpl::~ReplicatorImpl() noexcept(false) { parts_.extents.setBlockSource(nullptr); }

kj::Promise<void> ReplicatorImpl::run() {
  return canceler_.wrap(followCoordinator().promise().exclusiveJoin(tickForever())
                            .exclusiveJoin(followConnections()));
}

Co<void> ReplicatorImpl::followCoordinator() {
  int64_t retryMs = kCoordinatorRetryMsMin;
  auto loading = loadRemovals().promise().eagerlyEvaluate(nullptr).fork();
  for (;;) {
    auto changed = parts_.coordinator.changed();  // before the list, so that nothing is missed
    auto listed = co_await outcomeOf(parts_.coordinator.listVolumes());
    auto loaded = loading.addBranch();
    co_await kj::mv(loaded);
    if (listed.ok()) {
      for (const VolumeRecord& record : *listed.value) {
        noteStanding(record);
        note(record);
      }
      spreadLeads(*listed.value);
      listed_ = known_ = true;
      opened_.notify();
      retryMs = kCoordinatorRetryMsMin;
      auto woken = outcomeOf(kj::mv(changed)).ignoreResult()
                       .exclusiveJoin(coordinatorWanted_.wait())
                       .exclusiveJoin(parts_.env.timer.afterDelay(
                           kCoordinatorPollMs * kj::MILLISECONDS));
      co_await kj::mv(woken);
    } else {
      if (!known_) openRemembered();
      co_await parts_.env.timer.afterDelay(kCoordinatorRetryMsMin * kj::MILLISECONDS);
      co_await coordinatorWanted_.waitFor(parts_.env.timer, retryMs);
      retryMs = std::min(retryMs * 2, kCoordinatorRetryMsMax);
    }
  }
}

// A coordinator that is away, or that has another past (rule 18), does not keep a node from following:
// its volumes open as they were known, and the primary's records tell the rest. Leading needs the
// coordinator itself.
void ReplicatorImpl::openRemembered() {
  auto records = parts_.coordinator.remembered();
  if (records.empty()) return;
  for (const VolumeRecord& record : records) note(record);
  known_ = true;
  opened_.notify();
}

void ReplicatorImpl::note(const VolumeRecord& record) {
  auto open = volumes_.find(record.name);
  if (open != volumes_.end()) {
    if (open->second->id() == record.id && !record.traits.deleted) open->second->noteRecord(record);
    return;
  }
  if (record.traits.deleted || mustGo(record.id)) return;
  // A member of the last active configuration is fenced and asked for its log still (rule 5).
  const bool concerned = namesNode(record.current, self_.node) ||
                         namesNode(configurationToFence(record), self_.node) ||
                         removals_.count(record.id) > 0;  // kept for a while, as it is
  if (!concerned || stopped_ || opening_.count(record.name) > 0) return;
  opening_[record.name] = "it is being opened";
  tasks_.add(openVolume(record));
}

// Its data is on the way out, or is due: it may be opened, from nothing, when that is done, or as it is
// when the coordinator says that this node is a member again.
bool ReplicatorImpl::mustGo(const VolumeId& id) {
  auto noted = removals_.find(id);
  return noted != removals_.end() && removalLeftMs(noted->second) == 0;
}

Co<void> ReplicatorImpl::openVolume(VolumeRecord record) {
  int64_t retryMs = kCoordinatorRetryMsMin;
  for (;;) {
    if (mustGo(record.id)) {
      opening_.erase(record.name);
      opened_.notify();
      co_return;
    }
    RecoveredVolume found;
    auto recovered = recovered_.find(record.id);
    if (recovered != recovered_.end()) {
      found = recovered->second;
    } else if (mayMissVolumes_ && record.current.epoch.value > 0) {
      found.suspect = true;  // all that was known of it here may be lost
    }
    auto volume = std::make_unique<VolumeImpl>(
        VolumeParts{parts_.env, options_, self_, parts_.journal, parts_.extents, exchange_,
                    parts_.coordinator, parts_.peers, room_, coordinatorWanted_},
        record, found, makeStateMachine_(record));
    auto failure = co_await outcomeOf(volume->open().promise());
    KJ_IF_MAYBE(exception, failure) {
      const kj::StringPtr why = exception->getDescription();
      KJ_LOG(ERROR, "a volume cannot be opened", record.name.c_str(), why);
      opening_[record.name] = why.cStr();
      volume = nullptr;
      co_await parts_.env.timer.afterDelay(retryMs * kj::MILLISECONDS);
      retryMs = std::min(retryMs * 2, kCoordinatorRetryMsMax);
      continue;
    }
    byId_[record.id] = volume.get();
    volumes_[record.name] = std::move(volume);
    opening_.erase(record.name);
    recovered_.erase(record.id);
    opened_.notify();
    coordinatorWanted_.notify();  // what has changed since the record was read
    volumes_[record.name]->tick();
    co_return;
  }
}

Co<void> ReplicatorImpl::tickForever() {
  int64_t extentTickMs = 0, tickMs = monotonicMs(parts_.env.timer);
  for (;;) {
    co_await parts_.env.timer.afterDelay(options_.heartbeatMs * kj::MILLISECONDS);
    room_.tick();
    for (auto& [name, volume] : volumes_) volume->tick();
    beginDiscardedAnew();
    const int64_t now = monotonicMs(parts_.env.timer);
    const int64_t lateMs = now - tickMs - options_.heartbeatMs;
    tickMs = now;
    if (lateMs >= kLateMs) {
      KJ_LOG(WARNING, "this node did not run for a while: it was stopped, or its processor or its "
                      "loop was held up", lateMs);
    }
    if (now - extentTickMs < kExtentTickMs) continue;
    extentTickMs = now;
    exchange_.tick();
    fetchMissing();
    // What no open volume names may go, once every volume has said what it names.
    const bool known = std::all_of(volumes_.begin(), volumes_.end(),
                                   [](auto& entry) { return entry.second->stateKnown(); });
    if (!expiring_ && listed_ && ready() && known) {
      expiring_ = true;
      parts_.extents.startExpiry();
    }
  }
}

Co<void> ReplicatorImpl::followConnections() {
  for (;;) {
    co_await parts_.peers.connectivityChanged();
    for (auto& [name, volume] : volumes_) volume->connectivityChanged();
    co_await parts_.env.timer.afterDelay(kConnectionPauseMs * kj::MILLISECONDS);
  }
}

kj::Maybe<Volume&> ReplicatorImpl::findVolume(kj::StringPtr name) {
  auto it = volumes_.find(name.cStr());
  if (it == volumes_.end()) return nullptr;
  return *it->second;
}

std::vector<Volume*> ReplicatorImpl::volumes() {
  std::vector<Volume*> all;
  for (auto& [name, volume] : volumes_) all.push_back(volume.get());
  return all;
}

kj::Promise<void> ReplicatorImpl::whenReady(int64_t timeoutMs) {
  if (ready()) return kj::READY_NOW;
  return canceler_.wrap(waitReady(timeoutMs).promise());
}

Co<void> ReplicatorImpl::waitReady(int64_t timeoutMs) {
  const int64_t deadlineMs = monotonicMs(parts_.env.timer) + timeoutMs;
  while (!ready()) {
    const int64_t leftMs = deadlineMs - monotonicMs(parts_.env.timer);
    if (leftMs <= 0) failNotOpen(opening_.empty() ? "" : opening_.begin()->first);
    co_await opened_.waitFor(parts_.env.timer, leftMs);
  }
}

// `name` is empty where not even that is known.
void ReplicatorImpl::failNotOpen(const std::string& name) {
  const auto why = opening_.find(name);
  kj::String sentence =
      !known_ ? kj::str("the coordinator has not yet told this node its volumes")
      : why != opening_.end()
          ? kj::str("volume ", name.c_str(), " is not open here yet: ", why->second.c_str())
          : kj::str("volume ", name.c_str(), " is not open here: this node is not a member of it");
  kj::throwFatalException(
      kj::Exception(kj::Exception::Type::FAILED, __FILE__, __LINE__, kj::mv(sentence)));
}

kj::Promise<void> ReplicatorImpl::whenOpen(std::string name, int64_t timeoutMs) {
  return canceler_.wrap(waitOpen(kj::mv(name), timeoutMs).promise());
}

Co<void> ReplicatorImpl::waitOpen(std::string name, int64_t timeoutMs) {
  const int64_t deadlineMs = monotonicMs(parts_.env.timer) + timeoutMs;
  while (volumes_.count(name) == 0) {
    const int64_t leftMs = deadlineMs - monotonicMs(parts_.env.timer);
    if (leftMs <= 0) failNotOpen(name);
    co_await opened_.waitFor(parts_.env.timer, leftMs);
  }
}

kj::Promise<kj::Own<ReplicatedExtentWriter>> ReplicatorImpl::beginExtent(Volume& volume) {
  auto it = byId_.find(volume.id());
  KJ_REQUIRE(it != byId_.end(), "the volume is not open on this node");
  const VolumeConfiguration& configuration = it->second->configuration();
  std::vector<NodeId> members;
  for (const MemberIdentity& member : configuration.members) members.push_back(member.node);
  return beginReplicatedExtent(
      ExtentWriterParts{parts_.env, parts_.extents, exchange_, parts_.peers, tasks_},
      kj::mv(members), configuration.writeQuorum);
}

kj::Promise<VolumeRecord> ReplicatorImpl::createVolume(std::string name,
                                                       std::vector<NodeId> members,
                                                       uint32_t writeQuorum,
                                                       VolumeTraits traits) {
  return canceler_.wrap(create(kj::mv(name), kj::mv(members), writeQuorum, traits).promise());
}

Co<VolumeRecord> ReplicatorImpl::create(std::string name, std::vector<NodeId> members,
                                        uint32_t writeQuorum, VolumeTraits traits) {
  KJ_REQUIRE(isValidNodeId(name.c_str()),
             "a volume's name is 1 to 63 of a-z, 0-9 and '-', and does not begin with '-'", name);
  KJ_REQUIRE(!members.empty(), "a volume needs at least one member", name);
  KJ_REQUIRE(writeQuorum >= 1 && writeQuorum <= members.size(),
             "the write quorum must be between 1 and the number of members", writeQuorum,
             members.size());
  KJ_REQUIRE(!traits.pair || (members.size() == 2 && writeQuorum == 2),
             "a pair has two members, and both acknowledge: the write quorum is 2", members.size(),
             writeQuorum);
  auto nodes = co_await parts_.coordinator.listNodes();
  VolumeRecord record;
  parts_.env.random.fill(kj::arrayPtr(record.id.bytes.data(), record.id.bytes.size()));
  record.name = name;
  record.traits = traits;
  record.current.writeQuorum = writeQuorum;
  for (const NodeId& member : members) {
    auto node = std::find_if(nodes.begin(), nodes.end(),
                             [&](const NodeRegistration& n) { return n.node == member; });
    KJ_REQUIRE(node != nodes.end(), "no such node has registered with the coordinator", member);
    KJ_REQUIRE(!record.current.hasMember(member), "a member is named twice", member);
    record.current.members.push_back(MemberIdentity{member, node->journal});
  }
  auto stored = co_await outcomeOf(parts_.coordinator.compareAndSwap(record));
  auto found = co_await parts_.coordinator.readVolume(name);
  if (found.has_value() && found->traits.deleted) {
    // The name was used before: the new record says after which volumes it comes.
    record.revision = found->revision;
    record.traits.former = found->traits.former;
    record.traits.former.push_back(found->id);
    KJ_REQUIRE(record.traits.former.size() <= kFormerMax,
               "the name was used for too many volumes that were deleted; use another", name);
    stored = co_await outcomeOf(parts_.coordinator.compareAndSwap(record));
    found = co_await parts_.coordinator.readVolume(name);
  }
  KJ_REQUIRE(found.has_value() && found->id == record.id,
             "a volume of this name exists, or the coordinator refused it", name);
  coordinatorWanted_.notify();
  co_return kj::mv(*found);
}

kj::Promise<void> ReplicatorImpl::stop() { return canceler_.wrap(stopAll().promise()); }

Co<void> ReplicatorImpl::stopAll() {
  stopped_ = true;
  for (auto& [name, volume] : volumes_) {
    auto failure = co_await outcomeOf(volume->stop().promise());
    KJ_IF_MAYBE(exception, failure) {
      KJ_LOG(WARNING, "the last checkpoint of a volume failed", name.c_str(),
             exception->getDescription());
    }
  }
}

}  // namespace packmoor::replicator
