#include "replicator/lead_balance.h"

#include <algorithm>
#include <map>

namespace packmoor::replicator {

namespace {

bool contains(const std::vector<NodeId>& nodes, const NodeId& node) {
  return std::find(nodes.begin(), nodes.end(), node) != nodes.end();
}

bool isLed(const VolumeRecord& record) {
  return !record.traits.deleted && record.phase == VolumePhase::kActive;
}

// Everything that a move, or a reason against one, would change.
std::string digestOf(const std::vector<VolumeRecord>& records) {
  std::string digest;
  for (const VolumeRecord& record : records) {
    if (record.traits.deleted) continue;
    digest += record.name + ' ' + std::to_string(record.current.epoch.value) +
              (record.phase == VolumePhase::kActive ? " active" : " recovering");
    for (const MemberIdentity& member : record.current.members) digest += ' ' + member.node;
    for (const NodeId& node : record.traits.drained) digest += " -" + node;
    digest += '\n';
  }
  return digest;
}

}  // namespace

std::optional<LeadMove> nextLeadMove(const std::vector<VolumeRecord>& records,
                                     const std::function<bool(const NodeId&)>& mayLead) {
  std::map<NodeId, size_t> leads;
  std::map<std::string, const VolumeRecord*> byName;
  for (const VolumeRecord& record : records) {
    if (!isLed(record)) continue;
    byName[record.name] = &record;
    ++leads[record.current.primary.node];
  }
  for (const auto& [name, record] : byName) {
    const NodeId& from = record->current.primary.node;
    const auto& drained = record->traits.drained;
    const MemberIdentity* to = nullptr;
    for (const MemberIdentity& member : record->current.members) {
      if (member.node == from || contains(drained, member.node) || !mayLead(member.node)) continue;
      if (to == nullptr || leads[member.node] < leads[to->node]) to = &member;
    }
    if (to == nullptr) continue;
    if (contains(drained, from) || leads[from] >= leads[to->node] + 2) {
      return LeadMove{name, from, to->node};
    }
  }
  return std::nullopt;
}

std::optional<LeadMove> LeadBalancer::sample(int64_t nowMs, const std::vector<VolumeRecord>& records,
                                             const NodeId& self, bool well) {
  std::string now = digestOf(records);
  for (const VolumeRecord& record : records) well = well && (record.traits.deleted || isLed(record));
  if (!well || now != seen_) {
    seen_ = std::move(now);
    quietSinceMs_ = well ? nowMs : -1;
    return std::nullopt;
  }
  if (quietSinceMs_ < 0) quietSinceMs_ = nowMs;
  if (nowMs - quietSinceMs_ < quietMs_) return std::nullopt;
  // All members are there: so every node finds the same move.
  auto move = nextLeadMove(records, [](const NodeId&) { return true; });
  if (!move.has_value() || move->from != self) return std::nullopt;
  quietSinceMs_ = nowMs;  // if it fails, not again at once
  return move;
}

}  // namespace packmoor::replicator
