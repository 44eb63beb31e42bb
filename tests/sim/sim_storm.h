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

#include <memory>

namespace packmoor::replicator {

// An order of events that chance hardly ever gives (sim_storm_directed.cc).
enum class Directed : uint8_t {
  kNone,
  kRotOfAcknowledged,    // rule 17: rot of what a member has acknowledged and nobody has counted
  kRotOfPromise,         // rule 17: rot of a promise, and the old primary is back
  kCoordinatorGoesBack,  // rule 18: to a copy by which somebody leads without what was written since
  kAcceptedLoss,         // rule 19: and those that it leaves out come back
};

struct SimStormOptions {
  bool changes = false;          // of members and write quorums
  bool rot = false;              // of journals, one member at a time, and of extents
  bool coordinatorGoesBack = false;
  Directed directed = Directed::kNone;
};

using SimCheckers = std::vector<std::unique_ptr<SimChecker>>;  // one for each volume

class SimStorm final : public SimTap {
 public:
  SimStorm(SimCluster& cluster, SimCheckers& checkers, SimStormOptions options);
  ~SimStorm();
  KJ_DISALLOW_COPY(SimStorm);

  // Sets links, disks and the coordinator for the run.
  void begin();
  // One fault.
  void act();
  kj::Duration untilNext();
  // Begins the directed storm, if this run has one; while it is on, act() is not to be called.
  void direct();
  bool directs() const { return directing_; }
  // Everything is well from here on for as few nodes as the rules let be enough (rules 5 and 15), which
  // are returned; the others stay away.
  std::vector<size_t> healCore();
  void healAll();
  // Members have been ordered to change, and it is not over: who is a member may change yet.
  bool changesMembers() const { return changing_ > 0; }
  std::string weather() const { return weather_; }

  void appendSent(const NodeId& primary, const NodeId& member, const AppendRequest& request) override;
  void appendAnswered(const NodeId& primary, const NodeId& member, const VolumeId& volume,
                      const AppendReply& reply) override;
  void fenceAnswered(const NodeId& primary, const NodeId& member, const VolumeId& volume,
                     const FenceReply& reply) override;

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
  void fillDisk(size_t node);
  void unhang(size_t node);
  void disturbCoordinator(size_t node);
  void takeOver(size_t node);
  // In sim_storm_rot.cc
  void rot();
  bool mayRot();                 // so that what rots can be had from others
  bool isRotten(size_t node);
  bool rotJournal(size_t node);
  void rotExtent(size_t node);
  void undoExtentRot();
  void changeMembers();
  void coordinatorGoesBack();
  bool suffices(const std::vector<size_t>& core);
  // In sim_storm_directed.cc and sim_storm_loss.cc
  static constexpr int64_t kAloneMs = 6000;  // for one of a pair to go on alone, or a quorum to be set
  Co<void> rotAcknowledged();
  Co<void> rotPromise();
  Co<void> goBackBehindAnEpoch();
  Co<void> loseSome();
  Co<bool> loseWhatOthersLack();
  Co<bool> acceptTheLoss();
  Co<void> theyReturn();
  Co<bool> settles();
  Co<bool> rotAfter(size_t node, uint64_t batch);
  Co<bool> comes(bool (SimStorm::*what)(), int64_t withinMs);
  bool isSettled();
  bool isMarked();
  bool rotIsOpen();
  bool rotIsMended();
  bool hasTurned();
  bool hasShrunk();
  void starve(const NodeId& primary, const NodeId& member, const AppendRequest& request);
  void proposeSome(SimNode& node, uint64_t most);
  size_t another(size_t a, size_t b);
  kj::Promise<void> pass(uint64_t msMin, uint64_t msMax);
  const VolumeRecord& record();
  const std::string& anyVolume() { return checkers_[random_.below(checkers_.size())]->volume(); }
  void tell(const std::string& what);
  size_t any() { return random_.below(cluster_.size()); }
  const std::string& name(size_t node) { return cluster_.node(node).id(); }

  SimCluster& cluster_;
  SimCheckers& checkers_;
  const SimStormOptions options_;
  kernelio::SeededRandom random_;
  std::vector<uint32_t> weights_;
  int64_t pauseMsMax_ = 100;
  Trap trap_ = Trap::kNone;
  SimNode* duelOf_ = nullptr;    // who is cut off
  uint64_t trapSkips_ = 0;
  std::function<void(const VolumeRecord&)> stored_;
  std::string weather_;
  std::set<size_t> hanging_;     // nodes with a write that will never end
  std::optional<size_t> rotten_; // its journal has rotted, and it may not be whole yet
  struct RottenExtent {
    size_t node;
    std::string path;
    kj::Array<kj::byte> bytes;   // as they were
  };
  std::map<ExtentId, RottenExtent> rottenExtents_;
  size_t changing_ = 0;          // changes of members that were ordered and have not ended
  bool directing_ = false;
  size_t rotNode_ = 0;           // what the directed storm waits for
  uint64_t rotBatch_ = 0;
  NodeId turnsTo_;
  std::vector<size_t> lost_, kept_;  // by an accepted loss
  NodeId starved_;               // no records arrive there
  uint32_t quorum_ = 0;
  bool over_ = false;
};

}  // namespace packmoor::replicator
