#include "sim_checker.h"

#include <kj/debug.h>

#include <algorithm>

namespace packmoor::replicator {

namespace {

std::string text(RecordIndex index) { return std::to_string(index.value); }
// Of an answer: "ok KEY VALUE", "lost KEY VALUE".
std::string keyOf(const std::string& answer) {
  const size_t from = answer.find(' ') + 1;
  return answer.substr(from, answer.find(' ', from) - from);
}

std::string text(Epoch epoch) { return std::to_string(epoch.value); }

}  // namespace

SimChecker::SimChecker(SimCluster& cluster, std::string volume, SimChecker* before)
    : cluster_(cluster), volume_(std::move(volume)), watcherBefore_(cluster.watcher),
      tapBefore_(cluster.network().tap), storedBefore_(cluster.coordinator().onStored),
      findings_(before != nullptr ? before->findings_
                                  : std::make_shared<std::vector<std::string>>()) {
  cluster_.watcher = this;
  cluster_.network().tap = this;
  cluster_.coordinator().onStored = [this](const VolumeRecord& record) {
    if (storedBefore_) storedBefore_(record);
    if (record.name == volume_) stored(record);
  };
  cluster_.onFailure = [findings = findings_](const std::string& what) {
    findings->push_back(what);
  };
}

SimChecker::~SimChecker() {
  cluster_.watcher = watcherBefore_;
  cluster_.network().tap = tapBefore_;
  cluster_.coordinator().onStored = storedBefore_;
  if (watcherBefore_ == nullptr) cluster_.onFailure = nullptr;
}

void SimChecker::finding(std::string what) { cluster_.failed(std::move(what)); }

SimNode& SimChecker::nodeOf(const NodeId& id) {
  return cluster_.node(static_cast<size_t>(id[0] - 'a'));
}

// ---- What is applied --------------------------------------------------------------------------

void SimChecker::applied(SimNode& node, const std::string& volume, const Record& record,
                         const std::string& answer) {
  if (watcherBefore_ != nullptr) watcherBefore_->applied(node, volume, record, answer);
  if (volume != volume_) return;
  const KvState& state = node.kv(volume_).state();
  const uint64_t index = record.index.value;
  const TxnId txn = record.kind == kKvKind ? TxnId::fromBytes(record.payload.slice(0, 16)) : TxnId();
  if (givenUp(node, record)) return;
  if (index <= log_.size()) {
    const Committed& known = log_[index - 1];
    if (known.hash != record.hash || known.history != state.history || known.answer != answer) {
      finding("members differ: " + node.id() + " applies another record at " + text(record.index));
    }
  } else if (index > log_.size() + 1) {
    finding(node.id() + " applies " + text(record.index) + " before anybody applied what is below");
    return;
  } else {
    log_.push_back(
        Committed{record.epoch, record.hash, state.history, txn, answer, extents_.size()});
    for (const ExtentId& extent : record.extents) extents_.push_back(extent);
    if (!txn.isNull()) writes_[keyOf(answer)].push_back(record.index);
    if (!txn.isNull() && !byTxn_.emplace(txn, record.index).second) {
      finding("a transaction is in the log twice, at " + text(byTxn_[txn]) + " and " +
              text(record.index));
    }
    if (!txn.isNull() && rejected_.count(txn) > 0) {
      finding("a transaction that was rejected is in the log, at " + text(record.index));
    }
    // Invariant 11.
    if (active_.empty() || active_.rbegin()->first < record.epoch) {
      finding(node.id() + " applies " + text(record.index) + " of epoch " + text(record.epoch) +
              ", which is not active");
    }
  }
  // Invariant 10.
  auto repository = state.repositories.find(txn.isNull() ? std::string() : keyOf(answer));
  if (repository != state.repositories.end()) {
    const std::string broken = repository->second.brokenRef();
    if (!broken.empty()) {
      finding("a ref names an object that the state of " + node.id() + " cannot read: at " +
              text(record.index) + ", " + broken);
    }
  }
  if (node.journal().durable(record_.id).index < record.index) {
    finding(node.id() + " applies " + text(record.index) + ", which is not durable there");
  }
  for (const ExtentId& extent : record.extents) {
    if (!node.extents().isSealed(extent)) {
      finding(node.id() + " applies " + text(record.index) + " without its extent");
    }
  }
}

// ---- What clients are told ----------------------------------------------------------------------

void SimChecker::acknowledged(const TxnId& txn, RecordIndex index, const std::string& result) {
  cluster_.network().trace(0xac, index.value);
  auto [known, isNew] = results_.emplace(txn, Result{index, result});
  if (!isNew) {
    if (known->second.index != index || known->second.text != result) {
      finding("a transaction has two results, at " + text(known->second.index) + " and " +
              text(index));
    }
    return;
  }
  if (index.value == 0 || index.value > log_.size()) {
    finding("a transaction is acknowledged at " + text(index) + ", which nobody has applied");
    return;
  }
  const Committed& record = log_[index.value - 1];
  if (record.txn != txn || record.answer != result) {
    finding("a transaction is acknowledged at " + text(index) + ", where another one is");
  }
  acknowledged_ = std::max(acknowledged_, index);
  if (!onQuorum(index)) {
    finding("a transaction is acknowledged at " + text(index) + " with too few durable copies");
  }
}

// On the write quorum of the epoch of the record, or of a later one that had it in its log.
bool SimChecker::onQuorum(RecordIndex index) {
  for (auto it = active_.lower_bound(log_[index.value - 1].epoch); it != active_.end(); ++it) {
    uint32_t copies = 0;
    for (const MemberIdentity& member : it->second.members) {
      SimNode& node = nodeOf(member.node);
      copies += holdsDurably(node, index) || kept_[member.node].rotten;
    }
    if (copies >= it->second.writeQuorum) return true;
  }
  return false;
}

void SimChecker::rejected(const TxnId& txn, Began began, RecordIndex restsOn,
                          const std::string& result) {
  if (result.rfind("expired", 0) == 0) return;
  // Rule 20: no write to its key was known when it began that it does not rest on.
  const auto& writes = writes_[keyOf(result)];
  auto after = std::upper_bound(writes.begin(), writes.end(), leastOf(began));
  if (after != writes.begin() && *std::prev(after) > restsOn) {
    finding("a stale rejection: it rests on " + text(restsOn) + ", and " +
            text(*std::prev(after)) + " was known before: " + result);
  }
  rejected_.insert(txn);
  auto landed = byTxn_.find(txn);
  if (landed != byTxn_.end()) {
    finding("a transaction that is in the log at " + text(landed->second) + " was rejected: " +
            result);
  }
}

void SimChecker::readEnds(SimNode& node, Began began, RecordIndex barrier) {
  ++reads_;
  const RecordIndex sees = node.kv(volume_).state().applied.index;
  if (sees < barrier) finding("a read at " + node.id() + " does not see its own barrier");
  const RecordIndex least = leastOf(began);
  if (sees < least) {
    finding("a stale read at " + node.id() + ": it sees " + text(sees) + ", and " + text(least) +
            " was known before it began");
  }
  seen_ = std::max(seen_, sees);
}

// ---- What nodes tell each other -------------------------------------------------------------------

void SimChecker::leads(Epoch epoch, const NodeId& node) {
  const uint64_t life = nodeOf(node).lives();
  auto [known, isNew] = leaders_.emplace(epoch, Leader{node, life});
  if (!isNew && (known->second.node != node || known->second.life != life)) {
    finding("epoch " + text(epoch) + " is led by " + known->second.node + " in its life " +
            std::to_string(known->second.life) + " and by " + node + " in its life " +
            std::to_string(life));
  }
}

void SimChecker::appendSent(const NodeId& primary, const NodeId& member,
                            const AppendRequest& request) {
  if (tapBefore_ != nullptr) tapBefore_->appendSent(primary, member, request);
  if (request.volume != record_.id) return;
  leads(request.epoch, primary);
  if (request.committed.value > 0 && active_.count(request.epoch) == 0) {
    finding(primary + " announces " + text(request.committed) + " in epoch " +
            text(request.epoch) + ", which is not active");
  }
}

void SimChecker::requireDurable(const NodeId& id, const LogPosition& position, const char* what) {
  SimNode& node = nodeOf(id);
  if (!node.up() || position.index.value == 0) return;
  auto held = node.journal().position(record_.id, position.index);
  KJ_IF_MAYBE(known, held) {
    // A truncation in the same turn would be another record.
    if (known->hash == position.hash &&
        node.journal().durable(record_.id).index < position.index) {
      finding(id + what + text(position.index) + ", which is not durable there");
    }
  }
}

// Invariant 2: an acknowledgement speaks of the log of the primary that it is for.
void SimChecker::requireOfSender(const NodeId& primary, const NodeId& member,
                                 const AppendReply& reply) {
  SimNode& node = nodeOf(primary);
  // After a restart the primary may have lost what its standbys have (rule 2), and leads no more.
  auto leader = leaders_.find(reply.epoch);
  if (reply.position.index.value == 0 || !node.hasVolume(volume_.c_str()) ||
      leader == leaders_.end() || leader->second.life != node.lives() ||
      node.volume(volume_.c_str()).status().promised != reply.epoch) {
    return;
  }
  Journal& journal = node.journal();
  if (reply.position.index > journal.last(record_.id).index) {
    finding(member + " acknowledges " + text(reply.position.index) + ", which " + primary +
            " does not have");
  }
  auto position = journal.position(record_.id, reply.position.index);
  KJ_IF_MAYBE(known, position) {
    if (known->hash != reply.position.hash) {
      finding(member + " acknowledges to " + primary + " another record at " +
              text(reply.position.index));
    }
  }
}

// Rules 13, 14 and 17.
void SimChecker::requireKept(const NodeId& member, const AppendReply& reply) {
  Kept& kept = kept_[member];
  const LogPosition& had = kept.acknowledged;
  SimNode& node = nodeOf(member);
  if (reply.epoch == kept.acknowledgedIn && had.index.value > 0 && node.up()) {
    Journal& journal = node.journal();
    bool holds = journal.durable(record_.id).index >= had.index;
    auto position = journal.position(record_.id, had.index);
    KJ_IF_MAYBE(known, position) { holds = holds && known->hash == had.hash; }
    if (!holds) {
      finding(member + " acknowledges " + text(reply.position.index) + " in epoch " +
              text(reply.epoch) + ", and has lost " + text(had.index) +
              ", which it has acknowledged in it");
    }
  }
  const bool newer = reply.epoch == kept.acknowledgedIn ? reply.position.index > had.index
                                                        : reply.epoch > kept.acknowledgedIn;
  if (!newer) return;
  kept.acknowledgedIn = reply.epoch;
  kept.acknowledged = reply.position;
}

void SimChecker::appendAnswered(const NodeId& primary, const NodeId& member,
                                const VolumeId& volume, const AppendReply& reply) {
  if (tapBefore_ != nullptr) tapBefore_->appendAnswered(primary, member, volume, reply);
  if (volume != record_.id) return;
  if (reply.outcome != AppendReply::Outcome::kDurable) return;
  requireDurable(member, reply.position, " acknowledges ");
  requireOfSender(primary, member, reply);
  requireKept(member, reply);
  if (reply.position.epoch == reply.epoch) started_[reply.epoch].insert(member);
  Kept& kept = kept_[member];
  if (reply.position.index.value == 0) return;
  // Rules 3 and 14. A promise is told when it is durable, well after the last acknowledgement before it.
  if (reply.epoch < kept.promised) {
    finding(member + " acknowledges in epoch " + text(reply.epoch) + " after it has promised " +
            text(kept.promised));
  }
  kept.promised = std::max(kept.promised, reply.epoch);
}

void SimChecker::fenceAnswered(const NodeId& primary, const NodeId& member,
                               const VolumeId& volume, const FenceReply& reply) {
  if (tapBefore_ != nullptr) tapBefore_->fenceAnswered(primary, member, volume, reply);
  if (volume != record_.id || !reply.promised) return;
  if (!reply.repairing) requireDurable(member, reply.last, " reports ");
  Kept& kept = kept_[member];
  kept.promised = std::max(kept.promised, reply.highest);
}

void SimChecker::stored(const VolumeRecord& record) {
  const bool losesMore = record.losses.size() > record_.losses.size();
  record_ = record;
  if (losesMore) lossAccepted(record.losses.back());
  cluster_.network().trace(0xca5, record.current.epoch.value);
  if (record.phase != VolumePhase::kActive) return;
  const Epoch epoch = record.current.epoch;
  active_[epoch] = record.current;
  // Rule 8.
  std::set<NodeId> members;
  for (const NodeId& member : started_[epoch]) {
    if (record.current.hasMember(member)) members.insert(member);
  }
  SimNode& primary = nodeOf(record.current.primary.node);
  if (primary.up() && primary.journal().durable(record.id).epoch == epoch) {
    members.insert(primary.id());
  }
  if (members.size() < record.current.writeQuorum) {
    finding("epoch " + text(epoch) + " is made active when " + std::to_string(members.size()) +
            " members have its EpochStart");
  }
}

// ---- What nodes keep --------------------------------------------------------------------------------

bool SimChecker::holdsDurably(SimNode& node, RecordIndex index) {
  if (!node.up()) {
    const Kept& kept = kept_[node.id()];
    if (kept.durable >= index) return true;
    auto tail = kept.tail.find(index.value);
    return tail != kept.tail.end() && tail->second == log_[index.value - 1].hash;
  }
  Journal& journal = node.journal();
  if (journal.durable(record_.id).index < index) return false;
  if (index <= journal.base(record_.id).index) return true;
  auto position = journal.position(record_.id, index);
  KJ_IF_MAYBE(known, position) { return known->hash == log_[index.value - 1].hash; }
  return false;
}

LogPosition SimChecker::durableEnd(SimNode& node) {
  Journal& journal = node.journal();
  auto end = journal.position(record_.id, journal.durable(record_.id).index);
  KJ_IF_MAYBE(known, end) { return *known; }
  return LogPosition();
}

// How much of the common log is durable there.
RecordIndex SimChecker::commonDurable(SimNode& node) {
  RecordIndex index = std::min(node.journal().durable(record_.id).index, RecordIndex(log_.size()));
  while (index.value > 0 && !holdsDurably(node, index)) index = RecordIndex(index.value - 1);
  return index;
}

void SimChecker::stopping(SimNode& node) {
  if (watcherBefore_ != nullptr) watcherBefore_->stopping(node);
  if (!node.up()) return;
  Kept& kept = kept_[node.id()];
  kept.last = durableEnd(node);
  // What a diverged member has released is no common log, either.
  if (kept.leftOut.index.value == 0) kept.durable = std::max(kept.durable, commonDurable(node));
  if (kept.rotten) return;  // what it has now is not all that it had
  kept.tail.clear();
  const RecordIndex last = node.journal().durable(record_.id).index;
  for (uint64_t index = log_.size() + 1; index <= last.value; ++index) {
    auto position = node.journal().position(record_.id, RecordIndex(index));
    KJ_IF_MAYBE(known, position) { kept.tail[index] = known->hash; }
  }
}

// After a restart; where the journal has rotted, when it is whole again (rule 17).
void SimChecker::startedAnew(SimNode& node, Kept& kept, const VolumeStatus& status) {
  const char* when = kept.rotten ? " when it was repaired" : " in a restart";
  kept.rotten = false;
  for (auto& [index, hash] : kept.tail) {
    if (index <= log_.size() && log_[index - 1].hash == hash) {
      kept.durable = std::max(kept.durable, RecordIndex(index));
    }
  }
  if (kept.durable.value > 0 && !holdsDurably(node, kept.durable)) {
    finding(node.id() + " has lost records" + when + ": " + text(kept.durable) +
            " was durable, now it ends at " + text(status.last));
  }
  if (status.promised < kept.promised) {
    finding(node.id() + " has lost its promise of epoch " + text(kept.promised) + when);
  }
}

void SimChecker::looked(SimNode& node, const VolumeStatus& status) {
  Kept& kept = kept_[node.id()];
  const bool newLife = kept.lives != node.lives();
  if (newLife) {
    kept.lives = node.lives();
    kept.applied = RecordIndex();
  }
  if (kept.rotten ? !status.repairing : newLife) startedAnew(node, kept, status);
  if (status.applied < kept.applied) finding(node.id() + " has applied less than before");
  kept.applied = status.applied;
  if (status.applied > status.committed) finding(node.id() + " applies what is not committed");
  // In repair the state may be ahead of what is left of the log.
  if (status.applied > status.durable && !status.repairing) {
    finding(node.id() + " applies what is not durable");
  }
  if (status.role == VolumeRole::kPrimary) leads(status.epoch, node.id());
  requireLeftOut(node);
}

void SimChecker::poll() {
  for (size_t i = 0; i < cluster_.size() && !found(); ++i) {
    SimNode& node = cluster_.node(i);
    if (node.hasVolume(volume_.c_str())) looked(node, node.volume(volume_.c_str()).status());
  }
}

void SimChecker::finish() {
  poll();
  for (const auto& [txn, result] : results_) {
    auto place = byTxn_.find(txn);
    if (place == byTxn_.end() || place->second != result.index) {
      finding("an acknowledged transaction is lost: " + result.text);
    }
  }
  for (size_t i = 0; i < cluster_.size(); ++i) {
    SimNode& node = cluster_.node(i);
    if (!cluster_.isMember(node, volume_)) continue;
    const RecordIndex applied = node.kv(volume_).state().applied.index;
    if (applied.value != log_.size()) {
      finding(node.id() + " has applied " + text(applied) + " of " + std::to_string(log_.size()));
    }
    for (const ExtentId& extent : extents_) {
      if (!node.extents().isSealed(extent)) finding(node.id() + " lacks an extent of the log");
    }
  }
}

}  // namespace packmoor::replicator
