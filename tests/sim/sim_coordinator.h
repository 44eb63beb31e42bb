// SimCoordinator: the coordinator's store in memory, and each node's view of it, which takes time,
// may be cut off, and may lose the answer of a compare-and-swap that was carried out.
#pragma once

#include "kernelio/seeded_random.h"
#include "replicator/coordinator.h"

#include <kj/async.h>
#include <kj/timer.h>

#include <functional>
#include <map>
#include <set>

namespace packmoor::replicator {

class SimCoordinator final {
 public:
  SimCoordinator(kj::Timer& timer, uint64_t seed) : timer_(timer), random_(seed) {}

  uint32_t unknownPerMillion = 0;   // of compare-and-swaps: carried out or not, nobody is told
  int64_t delayUsMin = 200, delayUsMax = 2000;

  void cutOff(const NodeId& node) { cutOff_.insert(node); }
  void heal() { cutOff_.clear(); }
  bool unnoticed = false;           // the fault coordinator-restored: nobody sees that it has gone back
  std::set<NodeId> doubting;        // nodes that take it for another one than they know (rule 18)
  // Goes back to a copy that was made of it. Nodes that have asked it before doubt it from then on, until
  // an operator has accepted it, by which it has what it had last.
  void keepCopy();
  bool goBack();                    // false: there is no copy, or it is of the present
  void accept();
  // What it has is not what it had last.
  bool isRestored() const { return lost_.has_value(); }
  // What a node has read and keeps through its restarts (Coordinator::remembered).
  std::map<NodeId, std::map<std::string, VolumeRecord>> remembered;
  kj::Own<Coordinator> makeView(const NodeId& node);

  // Called with what a compare-and-swap has stored, before anybody is told.
  std::function<void(const VolumeRecord&)> onStored;

  std::map<std::string, VolumeRecord> volumes;
  std::map<NodeId, NodeRegistration> nodes;
  uint64_t swaps = 0;

 private:
  class View;
  struct Copy {
    std::map<std::string, VolumeRecord> volumes;
    int64_t revision = 0;
  };
  kj::Promise<void> ask(const NodeId& node);
  void changed();

  kj::Timer& timer_;
  kernelio::SeededRandom random_;
  std::set<NodeId> cutOff_;
  int64_t revision_ = 0;
  std::optional<Copy> copy_, lost_;   // made at some time; the newest, while it has gone back
  std::vector<kj::Own<kj::PromiseFulfiller<void>>> watchers_;
};

}  // namespace packmoor::replicator
