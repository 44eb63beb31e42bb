// ReplicatorImpl: opens a node's volumes, drives their clock, and routes what other nodes ask.
// See replicator/replicator.h. Sources: replicator_impl.cc, replicator_removal.cc (data that is to go),
// lead_spread.cc, replicator_service.cc and extent_repair.cc.
#pragma once

#include "extent_exchange.h"
#include "removal.h"
#include "replicator/lead_balance.h"
#include "replicator/replicator.h"
#include "volume_impl.h"

#include <map>
#include <set>
#include <memory>

namespace packmoor::replicator {

class ReplicatorImpl final : public Replicator {
 public:
  static constexpr int64_t kCoordinatorPollMs = 5000;
  static constexpr int64_t kCoordinatorRetryMsMin = 50, kCoordinatorRetryMsMax = 2000;
  static constexpr int64_t kExtentTickMs = 1000;
  static constexpr int64_t kLateMs = 1000;           // a loop that is so late is told of
  static constexpr int64_t kConnectionPauseMs = 5;   // changes of this time are handled together

  ReplicatorImpl(NodeParts parts, ReplicatorOptions options, StateMachineFactory makeStateMachine,
                 NodeQuery nodeQuery);
  ~ReplicatorImpl() noexcept(false);
  KJ_DISALLOW_COPY(ReplicatorImpl);

  kj::Promise<void> run() override;
  kj::Maybe<Volume&> findVolume(kj::StringPtr name) override;
  std::vector<Volume*> volumes() override;
  kj::Promise<void> whenReady(int64_t timeoutMs) override;
  kj::Promise<void> whenOpen(std::string name, int64_t timeoutMs) override;
  kj::Promise<kj::Own<ReplicatedExtentWriter>> beginExtent(Volume& volume) override;
  kj::Promise<VolumeRecord> createVolume(std::string name, std::vector<NodeId> members,
                                         uint32_t writeQuorum, VolumeTraits traits) override;
  Peers& peers() override { return parts_.peers; }
  std::vector<RemovalStatus> removals() override;
  RoomStatus room() override { return room_.status(); }
  kj::Promise<void> stop() override;

  // PeerService
  kj::Promise<AppendReply> append(const NodeId& from, AppendRequest request) override;
  kj::Promise<FenceReply> fence(const NodeId& from, FenceRequest request) override;
  kj::Promise<FetchReply> fetch(const NodeId& from, FetchRequest request) override;
  kj::Promise<LogPosition> commonPrefix(const NodeId& from, CommonPrefixRequest request) override;
  kj::Promise<ProposeReply> propose(const NodeId& from, ProposeRequest request) override;
  kj::Promise<ReadIndexReply> readIndex(const NodeId& from,
                                        ReadIndexRequest request) override;
  kj::Promise<ConfirmReply> confirm(const NodeId& from, ConfirmRequest request) override;
  kj::Promise<ConsentReply> consent(const NodeId& from, ConsentRequest request) override;
  kj::Promise<void> takeOver(const NodeId& from, VolumeId volume) override;
  kj::Promise<void> writeExtentBlock(const NodeId& from, ExtentId id, uint64_t block,
                                     kernelio::IoBuffer data, Hash128 checksum) override;
  kj::Promise<void> sealExtent(const NodeId& from, ExtentId id, uint64_t bytes,
                               Hash128 root) override;
  kj::Promise<void> abandonExtent(const NodeId& from, ExtentId id) override;
  kj::Promise<ExtentBlockReply> readExtentBlock(const NodeId& from, ExtentId id,
                                                uint64_t block) override;
  kj::Promise<std::pair<uint64_t, Hash128>> extentInfo(const NodeId& from, ExtentId id) override;
  kj::Promise<OpenCheckpointReply> openCheckpoint(const NodeId& from,
                                                  OpenCheckpointRequest request) override;
  kj::Promise<ExtentBlockReply> readCheckpointBlock(const NodeId& from,
                                                    CheckpointBlockRequest request) override;
  kj::Promise<void> closeCheckpoint(const NodeId& from, CloseCheckpointRequest request) override;
  kj::Promise<kj::Array<kj::byte>> query(const NodeId& from, VolumeId volume, std::string name,
                                         kj::Array<const kj::byte> question) override;

 private:
  Co<void> followCoordinator();
  void openRemembered();
  Co<void> tickForever();
  Co<void> followConnections();
  void note(const VolumeRecord& record);
  Co<void> openVolume(VolumeRecord record);
  bool ready() const { return known_ && opening_.empty(); }
  Co<void> waitReady(int64_t timeoutMs);
  Co<void> waitOpen(std::string name, int64_t timeoutMs);
  [[noreturn]] void failNotOpen(const std::string& name);
  Co<VolumeRecord> create(std::string name, std::vector<NodeId> members, uint32_t writeQuorum,
                          VolumeTraits traits);
  Co<void> stopAll();
  // replicator_removal.cc
  Co<void> loadRemovals();
  void noteStanding(const VolumeRecord& record);
  bool hasRecords(const VolumeId& id);
  void beginRemoval(const VolumeRecord& record, const VolumeId& id, bool deleted);
  Co<void> writeNote(VolumeId id, RemovalNote note);
  Co<void> forgetNote(VolumeId id);
  int64_t removalLeftMs(const RemovalNote& note);
  void discardIfDue(const VolumeRecord& record, const VolumeId& id);
  void startDiscarding(const VolumeId& id);
  Co<void> discardUntilDone(VolumeId id);
  Co<void> discard(VolumeId id);
  bool mustGo(const VolumeId& id);
  VolumeImpl& close(VolumeImpl& volume, std::string why);
  void beginDiscardedAnew();
  Co<void> beginAnew(VolumeImpl& volume);
  // lead_spread.cc
  void spreadLeads(const std::vector<VolumeRecord>& records);
  bool everythingIsWell(const std::vector<VolumeRecord>& records);
  Co<void> moveLead(LeadMove move);
  // extent_repair.cc
  Co<kernelio::IoBuffer> fetchBlock(ExtentId id, uint64_t block);
  void fetchMissing();
  Co<void> fetchMissingExtent(ExtentId id);
  std::vector<NodeId> others() const;
  VolumeImpl& route(const NodeId& from, VolumeId id);

  NodeParts parts_;
  const ReplicatorOptions options_;
  StateMachineFactory makeStateMachine_;
  NodeQuery nodeQuery_;
  const MemberIdentity self_;
  std::map<VolumeId, RecoveredVolume> recovered_;
  const bool mayMissVolumes_;
  ExtentExchange exchange_;
  DiskRoom room_;
  Signal coordinatorWanted_;
  Signal opened_;

  std::map<std::string, std::unique_ptr<VolumeImpl>> volumes_;   // open ones, by name
  std::map<VolumeId, VolumeImpl*> byId_;
  // Closed for good. Whoever had begun something with one finds it there, and is told so.
  std::vector<std::unique_ptr<VolumeImpl>> gone_;
  std::map<VolumeId, RemovalNote> removals_;
  std::map<VolumeId, VolumeImpl*> leaving_;      // of gone_: their data is not removed yet
  LeadBalancer balancer_;
  bool movingLead_ = false;
  std::map<std::string, std::string> opening_;   // name: why it is not open yet
  bool known_ = false;    // which volumes are this node's: from the coordinator, or remembered
  std::set<ExtentId> fetchingMissing_, toldMissing_;
  bool listed_ = false, expiring_ = false, stopped_ = false;

  Tasks tasks_{"replicator"};
  kj::Canceler canceler_;
};

}  // namespace packmoor::replicator
