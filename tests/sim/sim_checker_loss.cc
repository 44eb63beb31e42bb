// What must hold of a volume of which an operator has accepted a loss (rule 19).
#include "sim_checker.h"

#include <kj/debug.h>

#include <algorithm>

namespace packmoor::replicator {

void SimChecker::lossAccepted(const AcceptedLoss& loss) {
  // Who holds the adopted log tells where it parts from what was applied.
  adopted_.clear();
  uint64_t left = 0;
  for (const MemberIdentity& member : loss.kept) {
    SimNode& node = nodeOf(member.node);
    if (!node.up()) continue;
    Journal& journal = node.journal();
    auto end = journal.position(record_.id, loss.adopted.index);
    KJ_IF_MAYBE(known, end) {
      if (known->hash != loss.adopted.hash) continue;
    } else {
      continue;
    }
    left = journal.base(record_.id).index.value;
    for (uint64_t index = left + 1; index <= loss.adopted.index.value; ++index) {
      const Hash128 hash = KJ_ASSERT_NONNULL(journal.position(record_.id, RecordIndex(index))).hash;
      if (index == left + 1 && index <= log_.size() && log_[index - 1].hash == hash) {
        left = index;
      } else {
        adopted_[index] = hash;
      }
    }
    break;
  }
  if (left > log_.size()) left = log_.size();
  leftAfterLoss_ = RecordIndex(left);
  if (left < log_.size()) extents_.resize(log_[left].extentsBefore);
  log_.erase(log_.begin() + static_cast<ptrdiff_t>(left), log_.end());
  auto isLost = [left](const auto& entry) { return entry.second.value > left; };
  std::erase_if(byTxn_, isLost);
  std::erase_if(results_, [left](const auto& entry) { return entry.second.index.value > left; });
  for (auto& [key, indexes] : writes_) {
    std::erase_if(indexes, [left](RecordIndex index) { return index.value > left; });
  }
  acknowledged_ = std::min(acknowledged_, leftAfterLoss_);
  seen_ = std::min(seen_, leftAfterLoss_);
  for (auto& [node, kept] : kept_) {
    kept.durable = std::min(kept.durable, leftAfterLoss_);
    kept.tail.clear();
  }
  for (const MemberIdentity& member : loss.ignored) {
    SimNode& node = nodeOf(member.node);
    if (node.journalId() != member.journal) continue;
    Kept& kept = kept_[member.node];
    const LogPosition held = node.up() ? durableEnd(node) : kept.last;
    auto adopted = adopted_.find(held.index.value);
    const bool isHistory = held.index <= leftAfterLoss_ ||
                           (adopted != adopted_.end() && adopted->second == held.hash);
    if (!isHistory) kept.leftOut = held;
  }
}

// Rule 19: what an accepted loss left out may be the only copy.
void SimChecker::requireLeftOut(SimNode& node) {
  const LogPosition& had = kept_[node.id()].leftOut;
  if (had.index.value == 0) return;
  auto position = node.journal().position(record_.id, had.index);
  KJ_IF_MAYBE(known, position) {
    if (known->hash == had.hash) return;
  }
  finding(node.id() + " was left out by an accepted loss, and has given up what it held without an "
          "order: " + std::to_string(had.index.value) + " of epoch " + std::to_string(had.epoch.value));
}

bool SimChecker::givenUp(SimNode& node, const Record& record) {
  if (record_.losses.empty() || record.index <= leftAfterLoss_) return false;
  const AcceptedLoss& loss = record_.losses.back();
  if (record.epoch >= loss.epoch) return false;
  auto adopted = adopted_.find(record.index.value);
  if (adopted != adopted_.end() && adopted->second == record.hash) return false;
  // Who was left out may go on without knowing of it.
  if (node.hasVolume(volume_.c_str()) &&
      node.volume(volume_.c_str()).status().promised >= loss.epoch) {
    finding("a record that was given up as lost is back: " + node.id() + " applies " +
            std::to_string(record.index.value) + " of epoch " + std::to_string(record.epoch.value));
  }
  return true;
}

void SimChecker::discarded(SimNode& node) {
  Kept& kept = kept_[node.id()];
  kept.durable = RecordIndex();
  kept.tail.clear();
  kept.acknowledgedIn = Epoch();
  kept.acknowledged = kept.leftOut = LogPosition();
}

}  // namespace packmoor::replicator
