// LeadBalancer: when a lead is moved by itself, so that the nodes lead evenly.
//
// Why: after a failure the nodes that stayed lead more than their part. The primary of a volume gives
// its lead away, by the coordinator's records alone, so that all nodes come to the same decision and
// none of them has to ask another:
//   - nextLeadMove() names one move for given records, the same on every node; who leads that volume
//     makes it.
//   - It is made only when nothing in the records has changed, and everything was well, for `quietMs`.
//     A move changes an epoch and so begins the time anew on every node: there is at most one move in
//     `quietMs` in the whole cluster, without any clock being shared.
//   - A move is made only where it makes the two nodes more equal, by two leads at least. The greatest
//     difference never grows by it, so it ends, and nothing goes back and forth.
//
// Pure: no clock, no coordinator. Loop: that of its owner.
#pragma once

#include "replicator/coordinator.h"

#include <functional>
#include <optional>
#include <string>

namespace packmoor::replicator {

struct LeadMove {
  std::string volume;
  NodeId from, to;
  bool operator==(const LeadMove&) const = default;
};

// The first volume by name whose lead had better move, and to whom. `mayLead`: a counted member that
// is there. Drained members are given no lead, and give away what they have.
std::optional<LeadMove> nextLeadMove(const std::vector<VolumeRecord>& records,
                                     const std::function<bool(const NodeId&)>& mayLead);

class LeadBalancer final {
 public:
  explicit LeadBalancer(int64_t quietMs) : quietMs_(quietMs) {}

  // With every list of the coordinator's records, just read. `well`: as far as this node sees,
  // everything is. The move that `self` is to make now, if any.
  std::optional<LeadMove> sample(int64_t nowMs, const std::vector<VolumeRecord>& records,
                                 const NodeId& self, bool well);

 private:
  const int64_t quietMs_;
  std::string seen_;           // what of the records must not change
  int64_t quietSinceMs_ = -1;  // -1: not quiet
};

}  // namespace packmoor::replicator
