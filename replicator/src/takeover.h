// Takeover: one attempt of this node to become a volume's primary (DESIGN section 6, rules 1-8).
//
// Why: this is where acknowledged data is lost if a step is left out or done early. The steps are
// in one file, in order: take an epoch at the coordinator, fence the last active configuration,
// adopt the newest of the fenced logs, append EpochStart, have it on W members, make the epoch
// active. Operators, a restart of the primary and (later) suspicion start the same attempt.
//
// An attempt that has taken its epoch goes on asking for fences until it succeeds or finds that a
// higher epoch exists; it is then superseded and rejects. Nothing of it outlives it but the promise,
// the records it fetched, and what the coordinator says.
//
// Loop: the node's. The host outlives it.
#pragma once

#include "kernelio/co.h"
#include "kernelio/env.h"
#include "member_core.h"
#include "quorum.h"
#include "replicator/volume.h"

namespace packmoor::replicator {

class TakeoverHost {
 public:
  virtual kernelio::Env& env() = 0;
  virtual Coordinator& coordinator() = 0;
  virtual Peers& peers() = 0;
  virtual MemberLog& log() = 0;
  virtual MemberCore& member() = 0;
  virtual const std::string& volumeName() = 0;
  virtual VolumeId volumeId() = 0;
  virtual const MemberIdentity& selfIdentity() = 0;

  // Rule 3, for this node's own claim: false when it has promised otherwise.
  virtual bool claim(Epoch epoch, const Uuid& nonce, const NodeId& primary) = 0;
  virtual kj::Promise<FenceReply> fenceSelf(FenceRequest request) = 0;
  virtual kj::Promise<void> obtainExtents(std::vector<ExtentId> extents,
                                          std::vector<NodeId> holders) = 0;
  // Rule 7: appends EpochStart behind the adopted log and begins to lead, not yet active.
  virtual void lead(const VolumeConfiguration& configuration) = 0;
  // Resolves when W members have EpochStart.
  virtual kj::Promise<void> whenStarted() = 0;
  virtual bool leads() = 0;  // since lead(); false again when another epoch ended it
  // Rule 8: the epoch is known to be active.
  virtual void activate(const VolumeRecord& record) = 0;
  // The highest epoch that the coordinator is known to have stored.
  virtual Epoch knownEpoch() = 0;
  // The own journal does not get on: the candidate is not to be waited for.
  virtual bool journalStuck() = 0;
  // By an operator's order, the volume goes on without what only others held.
  virtual void lossAccepted(const AcceptedLoss& loss) = 0;
  // For status: what the attempt waits for; empty when it goes on.
  virtual void takeoverProblem(std::string problem) = 0;

 protected:
  ~TakeoverHost() = default;
};

// What started an attempt.
struct TakeoverCause {
  // Set for one that this node began by itself: only if that is the volume's epoch still.
  kj::Maybe<Epoch> expected;
  // By order: the present primary is asked to commit first what it has ordered.
  bool planned = false;
  // A change by the active primary, or of a pair (rules 9 and 19): members, async and W of the new
  // epoch. Not set: those of the last active configuration. What is not active after
  // kChangeTimeoutMs is given up, so that a change that stalls does not block the volume.
  kj::Maybe<VolumeConfiguration> target = nullptr;
  // By an operator's order: those kept are fenced, all of them, and no others (rule 19).
  kj::Maybe<LossOrder> loss = nullptr;
};

class Takeover final {
 public:
  static constexpr int64_t kHandOverWaitMs = 300;  // for the primary that is to hand over
  static constexpr int64_t kAttemptTimeoutMs = 3000;  // of one request to one member
  static constexpr int64_t kPauseMsMin = 20, kPauseMsMax = 250;
  static constexpr int64_t kTellMs = 100;  // a fence is repeated, so that the candidate is heard
  static constexpr size_t kFetchRecords = 1024;
  static constexpr int64_t kChangeTimeoutMs = 4000;
  static constexpr int64_t kKeptTimeoutMs = 4000;  // for those that an accepted loss keeps

  explicit Takeover(TakeoverHost& host) : host_(host) {}
  KJ_DISALLOW_COPY(Takeover);

  // Resolves when this node is the active primary. Rejects when superseded, when this node cannot
  // lead, or when the coordinator cannot be asked before an epoch is taken.
  Co<void> run(TakeoverCause cause);
  bool tookEpoch() const { return epoch_.value > 0; }
  void connectivityChanged() { reachable_.notify(); }  // members are asked again at once
  // Ends while it waits for fences; the epoch stays taken.
  void abandon() {
    abandoned_ = true;
    reported_.notify();
  }

 private:
#ifdef PACKMOOR_PLANTED_FAULTS
  Co<bool> resume();
#endif
  Co<void> takeEpoch(const TakeoverCause& cause);
  Co<void> drainFormer();
  Co<void> establish();
  kj::Promise<void> inTime(kj::Promise<void> work, int64_t timeoutMs, kj::StringPtr otherwise);
  void takeOnly(const LossOrder& order, const VolumeRecord& record);
  Co<void> storeLoss(LossOrder order);
  Co<void> store(VolumeRecord next, bool (*stored)(const VolumeRecord& found, Epoch epoch));
  Co<void> fence();
  Co<void> fenceMember(MemberIdentity member, bool reported);
  Co<bool> adopt();
  Co<void> adoptFrom(const FenceReply& report);
  Co<void> merge(const FenceReply& report, std::vector<RecordRef> records);
  Co<bool> isDropped(ExtentId extent, NodeId holder);
  Co<void> makeActive();

  FenceRequest fenceRequest() const { return FenceRequest{record_, choosesWhomToFence_}; }
  bool isSelf(const MemberIdentity& who) { return who == host_.selfIdentity(); }
  void requireNotSuperseded();
  template <typename T>
  kj::Promise<T> bounded(kj::Promise<T> work);
  kj::Promise<void> pause(int64_t& milliseconds);

  TakeoverHost& host_;
  VolumeRecord record_;                    // as stored by the attempt's compare-and-swap
  VolumeConfiguration fenced_;             // whose members are fenced (rule 5)
  bool choosesWhomToFence_ = false;        // a loss is to be accepted and is not yet
  bool abandoned_ = false;
  bool unobtainable_ = false;              // the newest log, since what it names was dropped
  MemberIdentity former_;                  // the primary that is to hand over, if any
  Epoch epoch_;
  Epoch refusedFor_;                       // a higher one that a member has promised
  std::vector<FenceReply> reports_;        // complete ones, at most one for each member
  Signal reported_, reachable_;
  std::unique_ptr<Tasks> asking_;          // the members, until this node leads
};

}  // namespace packmoor::replicator
