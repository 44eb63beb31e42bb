// StandbyStream: the primary's side of one standby: what it has, what is on the way to it.
//
// Why: records go to each standby in order, many in one request, several requests in flight,
// with bounds on bytes and count; a standby that was away is brought up from the journal; one
// that holds a different suffix is asked where the logs agree. What a standby acknowledges is
// reported to the host, which counts.
//
// Modes: probing (one request in flight until the standby accepts one), streaming (several),
// locating (asking for the common prefix), resting (after a failure, with growing pauses).
// Requests carry a generation: when the stream goes back, answers to older requests count as
// acknowledgements but do not move it.
//
// An empty request (heartbeat, commit announcement) is sent when nothing else was for a while. A
// request that stays unanswered makes the stream begin again behind what is acknowledged.
//
// Loop: the node's. The host, the log and the peer outlive the stream. The stream must not be
// destroyed from within a call to the host; the host defers that.
#pragma once

#include "replicator/peer.h"
#include "member_log.h"
#include "tasks.h"

#include <deque>
#include <optional>
#include <string>

namespace packmoor::replicator {

// What the stream needs of its primary.
class StreamHost {
 public:
  virtual MemberLog& log() = 0;
  virtual kj::Timer& timer() = 0;
  virtual Epoch epoch() = 0;
  virtual RecordIndex announceable() = 0;  // committed and active, else 0
  // Everything but member, previous and records filled in.
  virtual AppendRequest requestHeader() = 0;
  virtual int64_t heartbeatMs() = 0;
  virtual bool silent() = 0;  // nothing is to be sent at present
  // The standby in `slot` has everything up to `index` verified and durable in this epoch.
  virtual void acknowledged(size_t slot, RecordIndex index) = 0;
  // Rule 10: it has promised a higher epoch.
  virtual void refused(Epoch promised) = 0;

 protected:
  ~StreamHost() = default;
};

class StandbyStream final {
 public:
  static constexpr size_t kRequestsInFlightMax = 4;
  static constexpr int64_t kRestMsMin = 20, kRestMsMax = 500;
  static constexpr int64_t kHeartbeatTimeoutMs = 2000;   // silence: begin again
  static constexpr int64_t kAppendTimeoutMs = 10'000;
  static constexpr int64_t kPartialRestMs = 20;          // the standby waits for an extent

  // Begins behind `previous`. `counted`: false for an async standby, which receives committed
  // records only.
  StandbyStream(StreamHost& host, Peer& peer, MemberIdentity member, size_t slot, bool counted,
                LogPosition previous);
  KJ_DISALLOW_COPY(StandbyStream);

  void kick();      // records were appended, or the commit moved for an uncounted one
  void announce();  // tells the committed index if it has not been told and nothing else will
  void tick();      // heartbeats, rests, timeouts; about every heartbeatMs
  void connectivityChanged();  // ends a rest that an unreachable standby caused
  void stop() { stopped_ = true; }

  const MemberIdentity& member() const { return member_; }
  bool counted() const { return counted_; }
  size_t slot() const { return slot_; }
  bool connected() { return peer_.connected(); }
  RecordIndex acknowledgedIndex() const { return acknowledged_.index; }
  int64_t lastHeardMs() const { return lastHeardMs_; }
  const std::string& problem() const { return problem_; }

 private:
  enum class Mode : uint8_t { kProbing, kStreaming, kLocating, kResting };
  struct InFlight {
    uint64_t id;
    RecordIndex last;
    size_t records, bytes;
    int64_t sentMs;
  };

  void pump();
  bool maySend() const;
  void send(std::vector<RecordRef> records);
  void sendEmpty();
  void readThenSend();
  void replied(uint64_t generation, uint64_t id, AppendReply&& reply);
  void repliedEmpty(uint64_t generation, AppendReply&& reply);
  void matched(uint64_t id, const AppendReply& reply);
  bool judge(uint64_t generation, const AppendReply& reply);
  void mismatched(const LogPosition& hint);
  void locate();
  void needsCheckpoint();
  void failed(uint64_t generation, kj::Exception&& exception);
  void acknowledge(const LogPosition& position);
  void goBackTo(LogPosition position, Mode mode);
  void rest(int64_t milliseconds);
  void restAfterFailure();
  int64_t nowMs() { return monotonicMs(host_.timer()); }

  StreamHost& host_;
  Peer& peer_;
  const MemberIdentity member_;
  const size_t slot_;
  const bool counted_;
  bool stopped_ = false, reading_ = false, emptyInFlight_ = false, unreachable_ = false;

  Mode mode_ = Mode::kProbing;
  uint64_t generation_ = 1, nextId_ = 0;
  LogPosition previous_;        // the next record to send follows this
  LogPosition acknowledged_;
  LogPosition repaired_;        // held by a standby in repair, which acknowledges nothing
  RecordIndex announced_;       // the highest committed index that was sent
  std::deque<InFlight> inFlight_;
  size_t inFlightRecords_ = 0, inFlightBytes_ = 0;
  int64_t lastSentMs_ = 0, lastHeardMs_ = 0, emptySentMs_ = 0, restUntilMs_ = 0;
  int64_t restMs_ = kRestMsMin;
  std::string problem_;
  LogPosition hint_;                     // what the standby last named
  std::optional<LogPosition> behind_;    // it needs a checkpoint to go on from there

  Tasks tasks_{"standby stream"};
};

}  // namespace packmoor::replicator
