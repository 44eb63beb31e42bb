// SimStorm: everything that goes wrong in a run, by chance from its seed.
//
// Why: faults that are all equally likely all the time hide each other. Each run draws what its
// weather is like: which kinds of faults happen, how often, how lossy links, how slow disks and how
// bad the coordinator are. Some faults wait for a moment: power is cut as a member acknowledges,
// reports to a fence, or as the coordinator stores an epoch.
//
// Loop: the cluster's. Cluster and checker outlive it; it sits between them and the network's tap.
#pragma once

#include "sim_checker.h"

namespace packmoor::replicator {

class SimStorm final : public SimTap {
 public:
  SimStorm(SimCluster& cluster, SimChecker& checker);
  ~SimStorm();
  KJ_DISALLOW_COPY(SimStorm);

  // Sets links, disks and the coordinator for the run.
  void begin();
  // One fault.
  void act();
  kj::Duration untilNext();
  // Everything is well for these nodes from here on; the others stay away.
  void healCore(const std::vector<size_t>& core);
  void healAll();
  std::string weather() const { return weather_; }

  void appendSent(const NodeId& primary, const NodeId& member, const AppendRequest& request) override;
  void appendAnswered(const NodeId& primary, const NodeId& member, const AppendReply& reply) override;
  void fenceAnswered(const NodeId& primary, const NodeId& member, const FenceReply& reply) override;

 private:
  enum class Trap : uint8_t { kNone, kAppendSent, kAcknowledged, kFenceReport, kStored };

  void calm();
  void sprung(Trap trap, const NodeId& node);
  void cutPower(size_t node);
  void restartSoon(size_t node, int64_t msMax);
  void cutSome();
  void duel();
  void duelTurns(const NodeId& winner);
  void rackLosesPower();
  void disturbDisk(size_t node);
  void unhang(size_t node);
  void disturbCoordinator(size_t node);
  void takeOver(size_t node);
  void tell(const std::string& what);
  size_t any() { return random_.below(cluster_.size()); }
  const std::string& name(size_t node) { return cluster_.node(node).id(); }

  SimCluster& cluster_;
  SimChecker& checker_;
  kernelio::SeededRandom random_;
  std::vector<uint32_t> weights_;
  int64_t pauseMsMax_ = 100;
  Trap trap_ = Trap::kNone;
  SimNode* duelOf_ = nullptr;    // who is cut off
  uint64_t trapSkips_ = 0;
  std::function<void(const VolumeRecord&)> stored_;
  std::string weather_;
  std::set<size_t> hanging_;     // nodes with a write that will never end
  bool over_ = false;
};

}  // namespace packmoor::replicator
