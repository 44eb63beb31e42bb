#include "takeover.h"

#include "kernelio/check.h"
#include "replicator/outcome.h"
#include "planted_fault.h"

#include <kj/debug.h>

#include <algorithm>

namespace packmoor::replicator {

Co<void> Takeover::run(TakeoverCause cause) {
  bool asIs = false;
  KJ_IF_MAYBE(order, cause.loss) { asIs = order->asIs; }
  KJ_REQUIRE(!host_.member().repairing() || asIs,
             "this member of the volume is damaged and may not lead until it is repaired");
#ifdef PACKMOOR_PLANTED_FAULTS
  if (planted(PlantedFault::kResumeRole)) {
    auto resumed = co_await resume();
    if (resumed) co_return;
  }
#endif
  co_await takeEpoch(cause);
  if (!former_.node.empty()) co_await drainFormer();
  const bool claimed = host_.claim(epoch_, record_.current.nonce, host_.selfIdentity().node);
  KJ_REQUIRE(claimed, "this node has promised a higher epoch", epoch_);
  KJ_IF_MAYBE(order, cause.loss) {
    auto kept = inTime(fence().promise(), kKeptTimeoutMs,
                       "one of the members that would be kept did not answer; nothing was accepted");
    co_await kj::mv(kept);
    auto accepted = storeLoss(*order).promise();
    co_await kj::mv(accepted);
  }
  // What is a change is given up when it stalls. So is the attempt of one of a pair, whatever its
  // cause: the survivor goes on alone (rule 19), and cannot while it waits for the other.
  const bool pair = record_.traits.pair && record_.lastActive.has_value();
  if (cause.target == nullptr && !pair) {
    co_await establish();
  } else {
    auto established =
        inTime(establish().promise(), kChangeTimeoutMs,
               "too few of the members that the change names acknowledged it in time; it was given "
               "up");
    co_await kj::mv(established);
  }
  co_await makeActive();
}

kj::Promise<void> Takeover::inTime(kj::Promise<void> work, int64_t timeoutMs,
                                   kj::StringPtr otherwise) {
  auto late = host_.env().timer.afterDelay(timeoutMs * kj::MILLISECONDS)
                  .then([otherwise]() -> kj::Promise<void> {
                    return kj::Exception(kj::Exception::Type::OVERLOADED, __FILE__, __LINE__,
                                         kj::str(otherwise));
                  });
  return work.exclusiveJoin(kj::mv(late));
}

// Rules 3 to 8: until W members of the new configuration have EpochStart.
Co<void> Takeover::establish() {
  for (;;) {
    co_await fence();
    auto adopted = co_await adopt();
    if (adopted) break;
  }
  requireNotSuperseded();
  asking_ = nullptr;  // from here on the members hear the primary's records
  host_.lead(record_.current);
  co_await host_.whenStarted();
}

#ifdef PACKMOOR_PLANTED_FAULTS
// Goes on in the epoch that this node had before a restart.
Co<bool> Takeover::resume() {
  auto found = co_await host_.coordinator().readVolume(host_.volumeName());
  KJ_REQUIRE(found.has_value(), "the coordinator does not know the volume", host_.volumeName());
  if (found->phase != VolumePhase::kActive || found->current.primary != host_.selfIdentity() ||
      found->current.epoch != host_.member().promise().epoch) {
    co_return false;
  }
  host_.lead(found->current);
  host_.activate(*found);
  co_return true;
}
#endif

void Takeover::requireNotSuperseded() {
  const FencePromise& promise = host_.member().promise();
  KJ_REQUIRE(!abandoned_, "the takeover was given up for one that an operator ordered");
  KJ_REQUIRE(refusedFor_ <= epoch_, "the takeover was superseded: a member has promised a higher epoch",
             epoch_, refusedFor_);
  KJ_REQUIRE(host_.knownEpoch() <= epoch_, "the takeover was superseded: another node took a higher epoch",
             epoch_, host_.knownEpoch());
  if (promise.epoch == epoch_ && promise.nonce == record_.current.nonce) return;
  kj::throwFatalException(KJ_EXCEPTION(
      DISCONNECTED, "the takeover was superseded by a higher epoch", epoch_, promise.epoch));
}

template <typename T>
kj::Promise<T> Takeover::bounded(kj::Promise<T> work) {
  return host_.env().timer.timeoutAfter(kAttemptTimeoutMs * kj::MILLISECONDS, kj::mv(work));
}

kj::Promise<void> Takeover::pause(int64_t& milliseconds) {
  auto paused = host_.env().timer.afterDelay(milliseconds * kj::MILLISECONDS);
  milliseconds = std::min(milliseconds * 2, kPauseMsMax);
  return paused;
}

// ---- Rules 1 and 2: a new epoch -------------------------------------------------------------

Co<void> Takeover::takeEpoch(const TakeoverCause& cause) {
  const Epoch promised = host_.member().promise().epoch;
  auto found = co_await host_.coordinator().readVolume(host_.volumeName());
  KJ_REQUIRE(found.has_value(), "the coordinator does not know the volume", host_.volumeName());
  VolumeRecord record = *found;
  KJ_REQUIRE(record.id == host_.volumeId() && !record.traits.deleted, "the volume was deleted",
             host_.volumeName());
  KJ_IF_MAYBE(epoch, cause.expected) {
    KJ_REQUIRE(record.current.epoch == *epoch, "another node has taken an epoch since",
               record.current.epoch, *epoch);
  }
  fenced_ = configurationToFence(record);
  const VolumeConfiguration last = fenced_;
  KJ_IF_MAYBE(order, cause.loss) { takeOnly(*order, record); }
  KJ_REQUIRE(isMember(fenced_, host_.selfIdentity()),
             "this node is not a counted member of the volume, or its journal is not the one that "
             "the configuration names", host_.volumeName());
  KJ_REQUIRE(isProven(record, host_.selfIdentity(), host_.log().last()),
             "an accepted loss ignored this member, and it has not followed since");
  // Promises are given for epochs that the coordinator has stored. A lower one there now is
  // another past (rule 18).
  KJ_REQUIRE(record.current.epoch >= promised,
             "the coordinator has gone back behind an epoch that this node has promised",
             record.current.epoch, promised);
  KJ_REQUIRE(record.current.epoch >= host_.member().promise().epoch,
             "another node has taken an epoch since", record.current.epoch);

  if (cause.planned && record.phase == VolumePhase::kActive && !isSelf(record.current.primary)) {
    former_ = record.current.primary;
  }
  VolumeRecord next = record;
  VolumeConfiguration target = last;
  if (!record.losses.empty() && record.losses.back().epoch == last.epoch) {
    target.writeQuorum = record.losses.back().writeQuorum;  // not active since it was accepted
  }
  KJ_IF_MAYBE(changed, cause.target) {
    // What is changed is the last active configuration, and no other.
    KJ_REQUIRE(record.lastActive.has_value() && last.epoch == changed->epoch,
               "another node has taken an epoch since", last.epoch, changed->epoch);
    target = *changed;
  }
  KJ_IF_MAYBE(order, cause.loss) { target = keeping(order->kept, last); }
  PACKMOOR_CHECK(isMember(target, host_.selfIdentity()), "leading without being a member");
  next.current.members = target.members;
  next.current.async = target.async;
  next.current.joining = target.joining;
  next.current.writeQuorum = target.writeQuorum;
  next.current.epoch = record.current.epoch.next();
  next.current.primary = host_.selfIdentity();
  host_.env().random.fill(kj::arrayPtr(next.current.nonce.bytes.data(), 16));
  next.phase = VolumePhase::kRecovering;
  auto stored = co_await outcomeOf(host_.coordinator().compareAndSwap(next));
  KJ_REQUIRE(!stored.ok() || *stored.value, "another node changed the volume at the same time");

  // Rule 1: after an unknown result, and for the new revision, read again; the nonce tells.
  auto again = co_await host_.coordinator().readVolume(host_.volumeName());
  KJ_REQUIRE(again.has_value() && again->current.nonce == next.current.nonce,
             "another node took an epoch of the volume at the same time");
  record_ = *again;
  epoch_ = record_.current.epoch;
}

// The lead is moved by order: what the present primary has ordered is committed and answered before
// this node's own promise or a fence ends its role. It need not answer; the fence does without.
Co<void> Takeover::drainFormer() {
  ConsentRequest request;
  request.volume = host_.volumeId();
  request.candidate = host_.selfIdentity();
  request.epoch = epoch_;
  request.last = host_.log().last();
  request.handOver = true;
  auto drained = host_.env().timer.timeoutAfter(kHandOverWaitMs * kj::MILLISECONDS,
                                                host_.peers().peer(former_.node).consent(request));
  auto outcome = co_await outcomeOf(kj::mv(drained));
  (void)outcome;
}

// ---- Rules 3 to 5: fences --------------------------------------------------------------------

Co<void> Takeover::fence() {
  const VolumeConfiguration& configuration = fenced_;
  const size_t needed = fenceQuorum(configuration);
  asking_ = std::make_unique<Tasks>("fences");
  for (const MemberIdentity& member : configuration.members) {
    bool have = false;
    for (const FenceReply& report : reports_) have = have || report.member == member;
    asking_->add(fenceMember(member, have));
  }
  const int64_t sinceMs = monotonicMs(host_.env().timer);
  while (reports_.size() < needed) {
    co_await reported_.waitFor(host_.env().timer, 500);
    requireNotSuperseded();
    if (reports_.size() < needed && monotonicMs(host_.env().timer) - sinceMs >= 1000) {
      host_.takeoverProblem(kj::str("waiting for ", needed - reports_.size(), " more of the ",
                                    configuration.members.size(),
                                    " members of the volume to answer the takeover").cStr());
    }
  }
  host_.takeoverProblem("");
}

// Goes on asking a member that has reported: it shall hear that the candidate is there (rule 9).
Co<void> Takeover::fenceMember(MemberIdentity member, bool reported) {
  int64_t pauseMs = kPauseMsMin;
  for (;;) {
    // Who may not be waited for is silent (rule 12).
    while (reported && host_.journalStuck()) {
      co_await host_.env().timer.afterDelay(kTellMs * kj::MILLISECONDS);
    }
    auto asked = isSelf(member) ? host_.fenceSelf(fenceRequest())
                                : host_.peers().peer(member.node).fence(fenceRequest());
    auto outcome = co_await outcomeOf(bounded(kj::mv(asked)));
    if (outcome.ok()) {
      const FenceReply& reply = *outcome.value;
      if (countsAsFenced(fenced_, reply) && reply.member == member) {
        if (!reported) reports_.push_back(reply);
        reported = true;
        reported_.notify();
        if (isSelf(member)) co_return;
        co_await host_.env().timer.afterDelay(kTellMs * kj::MILLISECONDS);
        continue;
      }
      if (!reply.promised && reply.highest > epoch_) {
        refusedFor_ = reply.highest;
        reported_.notify();
      }
    }
    co_await pause(pauseMs).exclusiveJoin(reachable_.wait());
  }
}

// ---- Rule 6: adoption ------------------------------------------------------------------------

// False: the reporter was lost; fence again and choose anew.
Co<bool> Takeover::adopt() {
  // What is told of the own log must be durable, as in any report (rule 4).
  co_await host_.log().whenWritten();
  requireNotSuperseded();
  std::vector<const FenceReply*> reports;
  for (FenceReply& report : reports_) {
    if (isSelf(report.member)) report.last = host_.log().last();
    reports.push_back(&report);
  }
  const FenceReply chosen = *chooseAdopted(reports);
  if (planted(PlantedFault::kStartBeforeAdopted)) co_return true;
  if (!isSelf(chosen.member) && chosen.last != host_.log().last()) {
    // Asking again does not help: another member must lead, and this one fetch a checkpoint.
    KJ_REQUIRE(chosen.base <= host_.log().last().index &&
                   host_.log().base().index <= chosen.last.index,
               "the logs have nothing in common any more; another member must lead, which has the "
               "newest log", chosen.member.node.c_str(), chosen.base, host_.log().last().index);
    auto outcome = co_await outcomeOf(adoptFrom(chosen));
    requireNotSuperseded();
    KJ_REQUIRE(!unobtainable_, "the newest log names what was dropped everywhere; another member must "
               "lead, which has that log", chosen.member.node.c_str(), host_.log().last().index);
    KJ_IF_MAYBE(exception, outcome) {
      host_.takeoverProblem(kj::str("the newest log, of ", chosen.member.node.c_str(),
                                    ", could not be fetched: ",
                                    exception->getDescription()).cStr());
      std::erase_if(reports_, [&](const FenceReply& r) { return r.member == chosen.member; });
      co_await host_.env().timer.afterDelay(kPauseMsMin * kj::MILLISECONDS);
      co_return false;
    }
  }
  // Rule 7: the log equals the adopted one, to the hash.
  PACKMOOR_CHECK(isSelf(chosen.member) || host_.log().last() == chosen.last,
                 "adopting another log than chosen", chosen.last.index, host_.log().last().index);
  co_return true;
}

Co<void> Takeover::adoptFrom(const FenceReply& report) {
  MemberLog& log = host_.log();
  Peer& peer = host_.peers().peer(report.member.node);
  CommonPrefixRequest question;
  question.volume = host_.volumeId();
  const RecordIndex low = std::max(log.base().index, report.base);
  const RecordIndex high = std::min(log.last().index, report.last.index);
  KJ_REQUIRE(low <= high,
             "the logs have nothing in common any more; a checkpoint must be transferred",
             log.base().index, log.last().index, report.base, report.last.index);
  for (RecordIndex index : indexesToCompare(low, high)) {
    auto position = log.position(index);
    KJ_IF_MAYBE(known, position) { question.positions.push_back(*known); }
  }
  auto common = co_await bounded(peer.commonPrefix(kj::mv(question)));
  auto own = log.position(common.index);
  KJ_IF_MAYBE(position, own) {
    KJ_REQUIRE(position->hash == common.hash, "a member found a common record that is none");
  } else {
    KJ_FAIL_REQUIRE("a member found a common record that this node does not hold", common.index);
  }
  RecordIndex next = common.index.next();
  while (next <= report.last.index) {
    auto reply = co_await bounded(
        peer.fetch(FetchRequest{host_.volumeId(), epoch_, next, report.last.index}));
    requireNotSuperseded();
    KJ_REQUIRE(!reply.records.empty() && reply.records.front()->index == next &&
                   reply.records.back()->index <= report.last.index,
               "a member does not give the records that it has reported", next);
    next = reply.records.back()->index.next();
    co_await merge(report, kj::mv(reply.records));
  }
  requireNotSuperseded();
  if (log.last().index > report.last.index) {
    auto end = log.position(report.last.index);
    KJ_IF_MAYBE(position, end) {
      KJ_REQUIRE(*position == report.last, "the fetched log does not end as reported");
      log.truncate(*position);
    }
  }
  KJ_REQUIRE(log.last() == report.last, "the fetched log does not end as reported");
  co_await log.whenWritten();
}

// Records of the adopted log, from at or below the end of the own: cuts at the first difference.
Co<void> Takeover::merge(const FenceReply& report, std::vector<RecordRef> records) {
  MemberLog& log = host_.log();
  size_t have = 0;
  kj::Maybe<LogPosition> cut;
  for (const RecordRef& record : records) {
    auto own = log.position(record->index);
    KJ_IF_MAYBE(position, own) {
      if (position->hash == record->hash) {
        ++have;
        continue;
      }
      cut = KJ_ASSERT_NONNULL(log.position(RecordIndex(record->index.value - 1)));
    }
    break;
  }
  KJ_IF_MAYBE(position, cut) { log.truncate(*position); }
  if (have == records.size()) co_return;
  auto missing = kj::arrayPtr(records.data() + have, records.size() - have);
  std::vector<ExtentId> extents;
  for (const RecordRef& record : missing) {
    extents.insert(extents.end(), record->extents.begin(), record->extents.end());
  }
  if (!extents.empty()) {
    std::vector<NodeId> holders(1, report.member.node);
    auto obtained = co_await outcomeOf(host_.obtainExtents(kj::mv(extents), kj::mv(holders)));
    requireNotSuperseded();
    KJ_IF_MAYBE(failure, obtained) {
      auto lacking = log.firstUnsealed(missing);
      KJ_IF_MAYBE(place, lacking) {
        for (const ExtentId& extent : missing[*place]->extents) {
          auto dropped = co_await isDropped(extent, report.member.node);
          unobtainable_ = unobtainable_ || dropped;
        }
      }
      kj::throwFatalException(kj::mv(*failure));
    }
  }
  LogPosition at = log.last();
  for (const RecordRef& record : missing) {
    KJ_REQUIRE(record->index == at.index.next() && record->previousHash == at.hash &&
                   record->epoch >= at.epoch && record->epoch < epoch_,
               "a member gave records that do not follow one another", record->index);
    at = LogPosition{record->index, record->epoch, record->hash};
  }
  log.append(missing);
}

// Whether an extent is to be had from nobody: its holder has let go of it, since its state is beyond the
// record that names it, and no other member that answers has it.
Co<bool> Takeover::isDropped(ExtentId extent, NodeId holder) {
  for (const MemberIdentity& member : fenced_.members) {
    if (isSelf(member)) continue;
    auto asked = bounded(host_.peers().peer(member.node).extentInfo(extent));
    auto info = co_await outcomeOf(kj::mv(asked));
    if (info.ok() ? info.value->first != 0 : member.node == holder) co_return false;
  }
  co_return true;
}

// ---- Rule 8: the epoch becomes active --------------------------------------------------------

Co<void> Takeover::makeActive() {
  VolumeRecord next = record_;
  next.phase = VolumePhase::kActive;
  next.lastActive = next.current;
  auto stored = store(next, [](const VolumeRecord& found, Epoch) {
    return found.phase == VolumePhase::kActive;
  }).promise();
  co_await kj::mv(stored);
  // The epoch may be active and yet over: a member has promised a higher one meanwhile.
  KJ_REQUIRE(host_.leads(), "the takeover was superseded by a higher epoch", epoch_);
  host_.takeoverProblem("");
  host_.activate(record_);
}

// Until the coordinator is known to have stored it: record_ is then what it has.
Co<void> Takeover::store(VolumeRecord next,
                         bool (*stored)(const VolumeRecord& found, Epoch epoch)) {
  int64_t pauseMs = kPauseMsMin;
  for (;;) {
    requireNotSuperseded();
    auto swapped = co_await outcomeOf(host_.coordinator().compareAndSwap(next));
    requireNotSuperseded();
    if (swapped.ok() && *swapped.value) break;
    // False, or unknown: the record tells, by the nonce.
    auto found = co_await outcomeOf(host_.coordinator().readVolume(host_.volumeName()));
    requireNotSuperseded();
    if (found.ok() && found.value->has_value()) {
      const VolumeRecord& record = **found.value;
      KJ_REQUIRE(record.current.nonce == next.current.nonce,
                 "the takeover was superseded: another node took a higher epoch",
                 record.current.epoch);
      if (stored(record, epoch_)) break;
      next.revision = record.revision;
      next.traits = record.traits;
    }
    host_.takeoverProblem("the coordinator did not confirm what it is to store of the takeover");
    co_await pause(pauseMs);
  }
  record_ = kj::mv(next);
}

// ---- Rule 19: a loss is accepted ---------------------------------------------------------------

// The order is for the record that the operator was shown; all whom it keeps are fenced.
void Takeover::takeOnly(const LossOrder& order, const VolumeRecord& record) {
  KJ_REQUIRE(record.revision == order.revision,
             "the volume has changed since its losses were shown; look at them again");
  KJ_REQUIRE(record.losses.size() < kAcceptedLossesMax, "too many losses of the volume were accepted");
  fenced_ = keeping(order.kept, configurationToFence(record));
  fenced_.writeQuorum = 1;  // so that a fence quorum is all of them
  choosesWhomToFence_ = true;
}

// All that are kept have promised this epoch and told their logs. The coordinator makes them the last
// active configuration, of which all are fenced from here on, so that the newest of these logs is found
// by whoever takes over. Only then may EpochStart be written: until then others may return, and it would
// make a log without their records the newest (rule 6).
Co<void> Takeover::storeLoss(LossOrder order) {
  std::vector<const FenceReply*> reports;
  for (const FenceReply& report : reports_) reports.push_back(&report);
  AcceptedLoss loss;
  loss.epoch = epoch_;
  loss.adopted = chooseAdopted(reports)->last;
  loss.kept = record_.current.members;
  loss.ignored = order.ignored;
  loss.writeQuorum = record_.current.writeQuorum;
  loss.atMs = host_.env().clock.nowMs();
  loss.by = order.by;
  loss.what = order.what.substr(0, kLossTextBytesMax);
  if (planted(PlantedFault::kLossNotStored)) co_return;
  VolumeRecord next = record_;
  next.losses.push_back(loss);
  next.lastActive = next.current;
  next.lastActive->writeQuorum = 1;
  // The compare-and-swap changes the revision: it is read again for the one that follows.
  auto stored = store(next, [](const VolumeRecord& found, Epoch epoch) {
    return found.lastActive && found.lastActive->epoch == epoch;
  }).promise();
  co_await kj::mv(stored);
  auto found = co_await host_.coordinator().readVolume(host_.volumeName());
  requireNotSuperseded();
  KJ_REQUIRE(found.has_value() && found->current.nonce == record_.current.nonce,
             "the takeover was superseded: another node took a higher epoch");
  record_ = *found;
  fenced_ = configurationToFence(record_);
  choosesWhomToFence_ = false;
  host_.lossAccepted(loss);
}

}  // namespace packmoor::replicator
