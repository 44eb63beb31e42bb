#include "standby_stream.h"

#include "planted_fault.h"
#include "quorum.h"

#include <kj/debug.h>

#include <algorithm>

namespace packmoor::replicator {

StandbyStream::StandbyStream(StreamHost& host, Peer& peer, MemberIdentity member, size_t slot,
                             bool counted, LogPosition previous)
    : host_(host), peer_(peer), member_(std::move(member)), slot_(slot), counted_(counted),
      previous_(previous) {
  lastHeardMs_ = nowMs();
}

void StandbyStream::kick() { pump(); }

bool StandbyStream::maySend() const {
  if (stopped_ || reading_ || host_.silent()) return false;
  switch (mode_) {
    case Mode::kProbing: return inFlight_.empty();
    case Mode::kStreaming:
      return inFlight_.size() < kRequestsInFlightMax &&
             inFlightRecords_ < kInFlightRecordsMax && inFlightBytes_ < kInFlightBytesMax;
    case Mode::kLocating:
    case Mode::kResting: return false;
  }
  return false;
}

void StandbyStream::pump() {
  while (maySend()) {
    MemberLog& log = host_.log();
    const RecordIndex limit = counted_ ? log.last().index : host_.announceable();
    if (previous_.index >= limit) return;
    // A guess at where the standby's log agrees may be older than it needs to be (locate() compares
    // few positions). What is below the base cannot be sent; the standby's answer to a probe there
    // tells whether it needs that.
    if (previous_.index < log.base().index) goBackTo(log.base(), Mode::kProbing);
    if (previous_.index >= limit) return;  // there is nothing above the base to send
    std::vector<RecordRef> records;
    // While one request probes, little is lost if the standby refuses it.
    if (!log.recent(previous_.index.next(), limit, kAppendBytesMax, kInFlightRecordsMax, records)) {
      readThenSend();
      return;
    }
    send(kj::mv(records));
  }
}

void StandbyStream::readThenSend() {
  reading_ = true;
  const uint64_t generation = generation_;
  tasks_.add(host_.log().read(previous_.index.next(), kAppendBytesMax)
      .then([this, generation](kj::Array<RecordRef>&& read) {
        reading_ = false;
        if (stopped_) return;
        if (generation != generation_ || mode_ == Mode::kLocating || mode_ == Mode::kResting) {
          pump();
          return;
        }
        std::vector<RecordRef> records(read.begin(), read.end());
        if (!counted_) {
          const RecordIndex limit = host_.announceable();
          while (!records.empty() && records.back()->index > limit) records.pop_back();
        }
        if (!records.empty()) send(kj::mv(records));
        pump();
      }, [this](kj::Exception&& exception) {
        reading_ = false;
        problem_ = kj::str("cannot be sent records from the journal: ",
                           exception.getDescription()).cStr();
        rest(kRestMsMax);
      }));
}

void StandbyStream::send(std::vector<RecordRef> records) {
  AppendRequest request = host_.requestHeader();
  request.member = member_.journal;
  request.behind = behind_;
  request.previous = previous_;
  size_t bytes = 0;
  for (const RecordRef& record : records) bytes += record->bytes();
  const Record& last = *records.back();
  const uint64_t id = ++nextId_, generation = generation_;
  inFlight_.push_back(InFlight{id, last.index, records.size(), bytes, nowMs()});
  inFlightRecords_ += records.size();
  inFlightBytes_ += bytes;
  previous_ = LogPosition{last.index, last.epoch, last.hash};
  announced_ = std::max(announced_, request.committed);
  lastSentMs_ = nowMs();
  request.records = kj::mv(records);
  tasks_.add(peer_.append(kj::mv(request)).then(
      [this, generation, id](AppendReply&& reply) { replied(generation, id, kj::mv(reply)); },
      [this, generation](kj::Exception&& e) { failed(generation, kj::mv(e)); }));
}

void StandbyStream::sendEmpty() {
  AppendRequest request = host_.requestHeader();
  request.member = member_.journal;
  request.behind = behind_;
  // While records are on the way, only what is acknowledged is certain to be there already.
  request.previous = inFlight_.empty()                          ? previous_
                     : acknowledged_.index >= repaired_.index ? acknowledged_
                                                              : repaired_;
  // What is agreed on below the base of the log is no place to go on from.
  const LogPosition base = host_.log().base();
  if (request.previous.index < base.index) request.previous = base;
  announced_ = std::max(announced_, request.committed);
  lastSentMs_ = emptySentMs_ = nowMs();
  emptyInFlight_ = true;
  // Nothing of its log is known, and records that will tell are on the way.
  const uint64_t generation = request.previous.index < host_.log().base().index && !inFlight_.empty()
                                  ? 0 : generation_;
  tasks_.add(peer_.append(kj::mv(request)).then(
      [this, generation](AppendReply&& reply) { repliedEmpty(generation, kj::mv(reply)); },
      [this, generation](kj::Exception&& e) {
        emptyInFlight_ = false;
        failed(generation, kj::mv(e));
      }));
}

void StandbyStream::announce() {
  if (stopped_ || emptyInFlight_ || mode_ != Mode::kStreaming || host_.silent()) return;
  if (announced_ >= host_.announceable()) return;
  sendEmpty();
}

void StandbyStream::tick() {
  if (stopped_) return;
  const int64_t now = nowMs();
  if (emptyInFlight_ && now - emptySentMs_ >= kHeartbeatTimeoutMs) {
    emptyInFlight_ = false;
    problem_ = "does not answer";
    restAfterFailure();
  } else if (!inFlight_.empty() && now - inFlight_.front().sentMs >= kAppendTimeoutMs) {
    restAfterFailure();
  }
  if (mode_ == Mode::kResting) {
    if (now < restUntilMs_) return;
    mode_ = Mode::kProbing;
  }
  pump();
  // A standby that rests because it cannot be reached is tried again when the rest is over.
  if (mode_ == Mode::kLocating || (mode_ == Mode::kResting && unreachable_)) return;
  if (!emptyInFlight_ && !host_.silent() && now - lastSentMs_ >= host_.heartbeatMs()) {
    sendEmpty();
  }
}

void StandbyStream::connectivityChanged() {
  if (stopped_ || !unreachable_ || mode_ != Mode::kResting || !peer_.connected()) return;
  restUntilMs_ = 0;
  restMs_ = kRestMsMin;
  tick();
}

// True: the standby follows this primary and its log holds what the request followed.
bool StandbyStream::judge(uint64_t generation, const AppendReply& reply) {
  lastHeardMs_ = nowMs();
  unreachable_ = false;
  if (reply.outcome == AppendReply::Outcome::kRefused) {
    host_.refused(reply.promised);
    return false;
  }
  if (reply.epoch != host_.epoch()) return false;
  const bool current = generation == generation_;
  switch (reply.outcome) {
    case AppendReply::Outcome::kDurable:
      acknowledge(reply.position);
      return current && !stopped_;
    case AppendReply::Outcome::kMismatch:
      if (current && mode_ != Mode::kLocating) mismatched(reply.position);
      return false;
    case AppendReply::Outcome::kBehind: {
      // Its log begins with a checkpoint above what was asked, which is committed: go on there.
      if (!current) return false;
      auto own = host_.log().position(reply.position.index);
      KJ_IF_MAYBE(position, own) {
        if (position->hash == reply.position.hash) {
          goBackTo(*position, Mode::kProbing);
          pump();
          return false;
        }
      }
      if (reply.position.index < host_.log().base().index) {
        // What was asked is gone here as well; whether the standby holds what is left, it will say.
        goBackTo(host_.log().base(), Mode::kProbing);
        pump();
        return false;
      }
      problem_ = "its checkpoint is not in the log of the primary";
      rest(kRestMsMax);
      return false;
    }
    case AppendReply::Outcome::kRepairing:
      problem_ = "is being repaired and may not acknowledge";
      if (!current || stopped_) return false;
      if (reply.position.index.value == 0) {  // it takes no records yet
        rest(kRestMsMin);
        return false;
      }
      repaired_ = reply.position;
      return true;  // rule 17: it gets records as others do
    case AppendReply::Outcome::kNotMember:
      problem_ = "does not serve this volume with the journal that the configuration names";
      if (current) rest(kRestMsMax);
      return false;
    case AppendReply::Outcome::kRefused: return false;
  }
  return false;
}

void StandbyStream::acknowledge(const LogPosition& position) {
  if (stopped_ || position.index <= acknowledged_.index) return;
  if (planted(PlantedFault::kAckUnverified) || planted(PlantedFault::kAcksOfAnyEpoch)) {
    host_.acknowledged(slot_, std::min(position.index, host_.log().last().index));
    return;
  }
  // Invariant 2. The other place is MemberCore::acknowledgement. A peer that says otherwise is
  // not believed.
  MemberLog& log = host_.log();
  KJ_REQUIRE(position.index <= log.last().index, "a standby acknowledged what was never sent",
             member_.node, position.index);
  auto own = log.position(position.index);
  KJ_IF_MAYBE(known, own) {
    KJ_REQUIRE(known->hash == position.hash, "a standby acknowledged another log", member_.node,
               position.index);
  }
  acknowledged_ = position;
  host_.acknowledged(slot_, position.index);
}

void StandbyStream::replied(uint64_t generation, uint64_t id, AppendReply&& reply) {
  if (stopped_) return;
  if (!judge(generation, reply)) return;
  matched(id, reply);
  pump();
}

void StandbyStream::matched(uint64_t id, const AppendReply& reply) {
  RecordIndex upTo;
  while (!inFlight_.empty() && inFlight_.front().id <= id) {
    inFlightRecords_ -= inFlight_.front().records;
    inFlightBytes_ -= inFlight_.front().bytes;
    upTo = inFlight_.front().last;
    inFlight_.pop_front();
  }
  restMs_ = kRestMsMin;
  if (reply.outcome == AppendReply::Outcome::kDurable) problem_.clear();
  behind_.reset();
  if (reply.position.index < upTo) {
    // It took what comes before a record whose extent it still lacks. Ask again shortly.
    auto own = host_.log().position(std::max(reply.position.index, acknowledged_.index));
    KJ_IF_MAYBE(position, own) { goBackTo(*position, Mode::kResting); }
    rest(kPartialRestMs);
    return;
  }
  if (mode_ == Mode::kProbing) mode_ = Mode::kStreaming;
}

void StandbyStream::repliedEmpty(uint64_t generation, AppendReply&& reply) {
  emptyInFlight_ = false;
  if (stopped_) return;
  if (!judge(generation, reply)) return;
  restMs_ = kRestMsMin;
  if (reply.outcome == AppendReply::Outcome::kDurable) problem_.clear();
  behind_.reset();
  if (mode_ == Mode::kProbing && inFlight_.empty()) mode_ = Mode::kStreaming;
  pump();
}

void StandbyStream::mismatched(const LogPosition& hint) {
  // `hint` is where the standby's log ends, or what it holds instead of what was asked.
  hint_ = hint;
  if (hint.index < host_.log().base().index) {
    needsCheckpoint();
    return;
  }
  auto own = host_.log().position(hint.index);
  KJ_IF_MAYBE(position, own) {
    if (position->hash == hint.hash) {
      goBackTo(*position, Mode::kProbing);
      pump();
      return;
    }
  }
  locate();
}

void StandbyStream::locate() {
  goBackTo(previous_, Mode::kLocating);
  MemberLog& log = host_.log();
  CommonPrefixRequest request;
  request.volume = host_.requestHeader().volume;
  for (RecordIndex index : indexesToCompare(log.base().index, log.last().index)) {
    auto position = log.position(index);
    KJ_IF_MAYBE(known, position) { request.positions.push_back(*known); }
  }
  const uint64_t generation = generation_;
  tasks_.add(peer_.commonPrefix(kj::mv(request)).then(
      [this, generation](LogPosition&& common) {
        if (stopped_ || generation != generation_) return;
        // Positions are known for some time below the base, but what follows them is gone.
        auto own = common.index < host_.log().base().index ? kj::Maybe<LogPosition>(nullptr)
                                                           : host_.log().position(common.index);
        KJ_IF_MAYBE(position, own) {
          if (position->hash == common.hash) {
            goBackTo(*position, Mode::kProbing);
            pump();
            return;
          }
        }
        needsCheckpoint();
      },
      [this, generation](kj::Exception&& e) { failed(generation, kj::mv(e)); }));
  lastSentMs_ = nowMs();
}

// What it needs next is gone here. It is told so, and fetches a checkpoint.
void StandbyStream::needsCheckpoint() {
  problem_ = "needs records that the journal of the primary does not hold any more: it is to fetch a "
             "checkpoint";
  behind_ = hint_;
  goBackTo(host_.log().base(), Mode::kResting);
  rest(kRestMsMax);
}

void StandbyStream::failed(uint64_t generation, kj::Exception&& exception) {
  if (stopped_ || generation != generation_) return;
  problem_ = kj::str("cannot be reached: ", exception.getDescription()).cStr();
  restAfterFailure();
}

void StandbyStream::goBackTo(LogPosition position, Mode mode) {
  ++generation_;
  inFlight_.clear();
  inFlightRecords_ = inFlightBytes_ = 0;
  previous_ = position;
  mode_ = mode;
}

void StandbyStream::rest(int64_t milliseconds) {
  mode_ = Mode::kResting;
  restUntilMs_ = nowMs() + milliseconds;
}

void StandbyStream::restAfterFailure() {
  // Where nothing was acknowledged in this epoch, the answer to the next probe tells where to go on.
  const bool held = acknowledged_.index.value > 0 && acknowledged_.index >= host_.log().base().index;
  goBackTo(held ? acknowledged_ : previous_, Mode::kResting);
  unreachable_ = true;
  rest(restMs_);
  restMs_ = std::min(restMs_ * 2, kRestMsMax);
}

}  // namespace packmoor::replicator
