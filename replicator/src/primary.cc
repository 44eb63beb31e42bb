#include "primary.h"

#include "kernelio/check.h"
#include "planted_fault.h"

#include <kj/debug.h>

#include <algorithm>

namespace packmoor::replicator {

namespace {

bool isMemberOf(const std::vector<MemberIdentity>& members, const MemberIdentity& who) {
  return std::find(members.begin(), members.end(), who) != members.end();
}

size_t slotOf(const VolumeConfiguration& configuration, const MemberIdentity& who) {
  for (size_t slot = 0; slot < configuration.members.size(); ++slot) {
    if (configuration.members[slot] == who) return slot;
  }
  PACKMOOR_CHECK(false, "a primary that is not a counted member", who.node.c_str());
  return 0;
}

}  // namespace

Primary::Primary(PrimaryHost& host, VolumeConfiguration configuration, LogPosition adopted,
                 RecordIndex start)
    : host_(host), configuration_(std::move(configuration)), start_(start),
      ownSlot_(slotOf(configuration_, configuration_.primary)),
      counter_(configuration_.epoch, start, configuration_.members.size(),
               configuration_.writeQuorum),
      proposals_(*this, host.options().proposeTimeoutMs),
      rounds_(*this, configuration_.members.size(), ownSlot_, configuration_.writeQuorum,
              host.options().readTimeoutMs),
      brake_(host.options().lagBytesMax),
      times_(start, monotonicMs(host.env().timer)) {
  // Invariant 3: EpochStart is the first record of its epoch. The other place is CommitCounter.
  PACKMOOR_CHECK(start == adopted.index.next(), "EpochStart is not behind the adopted log", start);
  PACKMOOR_CHECK(adopted.epoch < configuration_.epoch || planted(PlantedFault::kResumeRole),
                 "the epoch has records already");
  for (size_t slot = 0; slot < configuration_.members.size(); ++slot) {
    if (slot == ownSlot_) continue;
    const MemberIdentity& member = configuration_.members[slot];
    streams_.push_back(kj::heap<StandbyStream>(static_cast<StreamHost&>(*this),
                                               host.peers().peer(member.node), member, slot, true,
                                               adopted));
  }
  for (const MemberIdentity& member : configuration_.async) {
    streams_.push_back(kj::heap<StandbyStream>(static_cast<StreamHost&>(*this),
                                               host.peers().peer(member.node), member,
                                               configuration_.members.size(), false, adopted));
  }
  for (auto& stream : streams_) stream->kick();
  ownLogDurable();
}

Primary::~Primary() noexcept(false) {}

AppendRequest Primary::requestHeader() {
  AppendRequest request;
  request.volume = host_.volumeId();
  request.epoch = configuration_.epoch;
  request.nonce = configuration_.nonce;
  request.primary = configuration_.primary;
  request.committed = committed_;
  request.everywhere = everywhere();
  request.lossEpoch = host_.lossEpoch();
  return request;
}

void Primary::ownLogDurable() {
  // Rule 15: the own copy counts only when durable. The log is this epoch's by definition.
  acknowledged(ownSlot_, host_.log().durable());
}

void Primary::acknowledged(size_t slot, RecordIndex index) {
  if (deposed_ || slot >= configuration_.members.size()) return;
  counter_.acknowledge(slot, configuration_.epoch, index);
  counted();
}

void Primary::counted() {
  const RecordIndex index = counter_.onQuorum();
  if (index.value == 0 && !planted(PlantedFault::kStartOneShort)) return;
  const bool early = planted(PlantedFault::kDropInactiveEarly) ||
                     (planted(PlantedFault::kCountOlderEpochs) && index < start_);
  if (!active_ && !early) {  // rule 8
    changed_.notify();
    return;
  }
  if (index <= committed_) return;
  PACKMOOR_CHECK((index >= start_ || early) && index <= host_.log().last().index,
                 "committing outside the epoch's records", index, start_);
  committed_ = index;
  host_.committed(configuration_.epoch, index);
  changed_.notify();
  announceSoon();
  for (auto& stream : streams_) {
    if (!stream->counted()) stream->kick();
  }
}

void Primary::announceSoon() {
  if (announcing_ || streams_.empty()) return;
  announcing_ = true;
  tasks_.add(timer().afterDelay(kAnnounceMs * kj::MILLISECONDS).then([this]() {
    announcing_ = false;
    if (deposed_) return;
    for (auto& stream : streams_) stream->announce();
  }));
}

kj::Promise<void> Primary::whenStarted() {
  if (deposed_) return KJ_EXCEPTION(DISCONNECTED, "the takeover was superseded by a higher epoch");
  if (counter_.onQuorum() >= start_) return kj::READY_NOW;
  if (planted(PlantedFault::kStartOneShort) && counter_.onOneShort() >= start_) return kj::READY_NOW;
  return changed_.wait().then([this]() { return whenStarted(); });
}

void Primary::activate() {
  // Invariant 11. The other place is MemberCore::announced, which hears of nothing before this.
  PACKMOOR_CHECK(!active_ && !deposed_, "activating twice, or after the end");
  PACKMOOR_CHECK(counter_.onQuorum() >= start_ || planted(PlantedFault::kStartOneShort) ||
                     planted(PlantedFault::kResumeRole),
                 "activating before W members have EpochStart");
  active_ = true;
  counted();
}

void Primary::depose(const NodeId& primary) {
  if (deposed_) return;
  deposed_ = true;
  for (auto& stream : streams_) stream->stop();
  proposals_.end(primary);
  rounds_.end();
  host_.stateMachine().endSpeculation();
  changed_.notify();
}

void Primary::refused(Epoch promised) {
  if (deposed_ || promised <= configuration_.epoch) return;
  host_.refusedBy(configuration_.epoch, promised);
}

kj::Promise<ProposeReply> Primary::propose(ProposeRequest request) {
  return proposals_.propose(kj::mv(request));
}

kj::Promise<RecordIndex> Primary::confirmRead() {
  PACKMOOR_CHECK(active_, "a read before the epoch is active");  // rule 8
  return rounds_.confirm();
}

kj::Promise<RecordIndex> Primary::confirmRead(const MemberIdentity& follower) {
  PACKMOOR_CHECK(active_, "a read before the epoch is active");  // rule 8
  const auto& members = configuration_.members;
  const auto slot = std::find(members.begin(), members.end(), follower) - members.begin();
  if (size_t(slot) == members.size() || size_t(slot) == ownSlot_) return rounds_.confirm();
  return rounds_.confirm(slot);
}

void Primary::appended() {
  times_.appended(host_.log().last().index, monotonicMs(timer()));
  for (auto& stream : streams_) stream->kick();
}

kj::Promise<void> Primary::whenConfirmed(RecordIndex index) {
  if (deposed_) return KJ_EXCEPTION(DISCONNECTED, "the lead of the volume moved to another node");
  if (committed_ >= index) return rounds_.confirm().ignoreResult();
  return changed_.wait().then([this, index]() { return whenConfirmed(index); });
}

kj::Promise<void> Primary::obtainExtents(std::vector<ExtentId> extents,
                                         std::vector<NodeId> holders) {
  return host_.obtainExtents(kj::mv(extents), kj::mv(holders));
}

bool Primary::heldByQuorum(const std::vector<NodeId>& holders) {
  size_t count = 0;
  for (const MemberIdentity& member : configuration_.members) {
    count += std::find(holders.begin(), holders.end(), member.node) != holders.end();
  }
  return count >= configuration_.writeQuorum;
}

void Primary::recordsApplied(RecordIndex first, std::vector<kj::Array<const kj::byte>>& results) {
  if (deposed_) return;
  proposals_.applied(first, results);
  changed_.notify();
  // Rule 20: proposals are taken from when everything through EpochStart is applied.
  if (active_ && host_.appliedIndex() >= start_) proposals_.open();
}

RecordIndex Primary::everywhere() const {
  RecordIndex index = counter_.everywhere();
  for (auto& stream : streams_) {
    if (!stream->counted()) index = std::min(index, stream->acknowledgedIndex());
  }
  return index;
}

kj::Maybe<StandbyStream&> Primary::streamTo(const MemberIdentity& member) {
  for (auto& stream : streams_) {
    if (stream->member() == member) return *stream;
  }
  return nullptr;
}

bool Primary::hasAcknowledged(const MemberIdentity& member) {
  auto found = streamTo(member);
  KJ_IF_MAYBE(stream, found) { return stream->acknowledgedIndex() >= start_; }
  return false;
}

bool Primary::hasCaughtUp(const MemberIdentity& standby, bool all) {
  auto found = streamTo(standby);
  KJ_IF_MAYBE(stream, found) {
    const RecordIndex last = host_.log().last().index;
    // Under load it is never level with what one member commits alone; it gets level when nothing new is
    // ordered for a moment.
    const uint64_t near = committed_.value > kJoinLagRecords ? committed_.value - kJoinLagRecords : 1;
    const RecordIndex wanted = all ? last : RecordIndex(near);
    return stream->connected() && stream->problem().empty() && committed_.value > 0 &&
           stream->acknowledgedIndex() >= wanted;
  }
  return false;
}

void Primary::connectivityChanged() {
  for (auto& stream : streams_) stream->connectivityChanged();
}

void Primary::yield(bool on) {
  if (deposed_ || yields_ == on) return;
  if (on && configuration_.members.size() == 1) return;  // there is nobody to give way to
  if (on) {
    KJ_LOG(WARNING, "a journal write hangs: this primary gives way to a standby");
  } else {
    KJ_LOG(WARNING, "the journal write that hung has ended: this primary goes on");
  }
  yields_ = on;
  holdProposals();
  if (on) return;
  for (auto& stream : streams_) stream->kick();
}

kj::Promise<void> Primary::drain() {
  if (!draining_ && !deposed_) {
    draining_ = true;
    holdProposals();
    tasks_.add(timer().afterDelay(kHandOverMs * kj::MILLISECONDS).then([this]() {
      endDrain();   // nobody took it
    }));
  }
  return whenDrained();
}

void Primary::endDrain() {
  draining_ = false;
  if (!deposed_) holdProposals();
}

void Primary::close(bool on) {
  if (deposed_ || closed_ == on) return;
  closed_ = on;
  holdProposals();
}

kj::Promise<void> Primary::whenDrained() {
  if (deposed_) return KJ_EXCEPTION(DISCONNECTED, "the lead of the volume moved to another node");
  if (proposals_.inFlight() == 0) return kj::READY_NOW;
  return changed_.wait().then([this]() { return whenDrained(); });
}

void Primary::tick() {
  if (deposed_) return;
  for (auto& stream : streams_) stream->tick();
  sampleLag();
  proposals_.tick();
  rounds_.tick();
}

void Primary::sampleLag() {
  MemberLog& log = host_.log();
  std::vector<LagBrake::Follower> followers;
  for (auto& stream : streams_) {
    if (!stream->connected()) continue;
    RecordIndex has = stream->acknowledgedIndex(), position;
    uint64_t given = 0;
    // While it fetches a checkpoint, it has what that holds.
    if (host_.transferTo(stream->member().node, given, position)) has = std::max(has, position);
    LagBrake::Follower follower;
    follower.node = stream->member().node;
    follower.counted = stream->counted();
    follower.lagBytes = has >= log.last().index ? 0 : log.bytesAfter(has);
    follower.takenBytes = given + log.bytesWritten() - log.bytesAfter(has);
    follower.progress = given + stream->acknowledgedIndex().value;
    followers.push_back(std::move(follower));
  }
  const bool was = brake_.status().on;
  const bool changed = brake_.sample(monotonicMs(timer()), followers);
  const BrakeStatus& status = brake_.status();
  proposals_.pace(status.on ? status.bytesPerSecond : 0);
  if (!changed) return;
  if (status.on) {
    KJ_LOG(WARNING, "a member lags: what is proposed is slowed down until it is nearer",
           status.member.c_str(), status.lagBytes, status.bytesPerSecond);
  } else if (was) {
    KJ_LOG(INFO, "no member lags too far any more: proposals go on at full speed");
  }
}

RecordIndex Primary::neededByFollowers() {
  RecordIndex lowest(UINT64_MAX);
  const int64_t now = monotonicMs(timer());
  for (auto& stream : streams_) {
    const RecordIndex has = stream->acknowledgedIndex();
    if (!stream->connected() || has.value == 0) continue;
    if (brake_.getsOn(stream->member().node, now)) lowest = std::min(lowest, has);
  }
  return lowest;
}

void Primary::askToConfirm(size_t slot, uint64_t round) {
  ConfirmRequest request;
  request.volume = host_.volumeId();
  request.member = configuration_.members[slot].journal;
  request.epoch = configuration_.epoch;
  request.round = round;
  tasks_.add(host_.peers().peer(configuration_.members[slot].node).confirm(request).then(
      [this, slot](ConfirmReply&& reply) {
        if (deposed_) return;
        if (reply.follows) {
          rounds_.echoed(slot, reply.round);
        } else {
          refused(reply.promised);
        }
      },
      [](kj::Exception&&) {}));  // asked again after a while
}

std::vector<size_t> Primary::slotsByPromptness() {
  std::vector<std::pair<int64_t, size_t>> order;
  for (auto& stream : streams_) {
    if (!stream->counted()) continue;
    order.emplace_back(stream->connected() ? -stream->lastHeardMs() : INT64_MAX, stream->slot());
  }
  std::sort(order.begin(), order.end());
  std::vector<size_t> slots;
  for (auto& [age, slot] : order) slots.push_back(slot);
  return slots;
}

std::vector<MemberStatus> Primary::memberStatus() {
  std::vector<MemberStatus> members;
  MemberLog& log = host_.log();
  auto add = [&](const NodeId& node, RecordIndex acknowledged, bool counted) -> MemberStatus& {
    MemberStatus status;
    status.node = node;
    status.counted = counted;
    status.acknowledged = acknowledged;
    status.lagRecords = log.last().index.value - std::min(acknowledged, log.last().index).value;
    status.lagBytes = status.lagRecords == 0 ? 0 : log.bytesAfter(acknowledged);
    status.lagMs = times_.lagMs(acknowledged, monotonicMs(timer()));
    members.push_back(status);
    return members.back();
  };
  MemberStatus& own = add(configuration_.primary.node, log.durable(), true);
  own.isSelf = own.connected = true;
  for (auto& stream : streams_) {
    MemberStatus& status = add(stream->member().node, stream->acknowledgedIndex(),
                               stream->counted());
    status.connected = stream->connected();
    status.silentMs = monotonicMs(timer()) - stream->lastHeardMs();
    status.joining = isMemberOf(configuration_.joining, stream->member());
    status.problem = stream->problem();
  }
  return members;
}

int64_t Primary::quorumSilentMs() {
  std::vector<int64_t> silent(1, 0);
  for (auto& stream : streams_) {
    if (stream->counted()) silent.push_back(monotonicMs(timer()) - stream->lastHeardMs());
  }
  std::sort(silent.begin(), silent.end());
  return silent[configuration_.writeQuorum - 1];
}

void Primary::addTo(VolumeStatus& status) {
  status.members = memberStatus();
  status.brake = brake_.status();
  status.proposals += proposals_.accepted();
  status.rejections += proposals_.rejected();
  status.confirmRounds += rounds_.rounds();
}

}  // namespace packmoor::replicator
