// A model of what a journal must remember, and a random workload that keeps model and journal in
// step. After a crash the journal must be in the state after some prefix of the calls, one prefix
// for all volumes, that holds at least all that was acknowledged.
#pragma once

#include "journal_fixture.h"
#include "kernelio/co.h"
#include "kernelio/seeded_random.h"

#include <map>
#include <memory>

namespace packmoor::replicator {

struct ModelVolume {
  FencePromise promise;
  LogPosition checkpoint;
  LogPosition base;                // of `records`; never released here
  std::vector<RecordRef> records;
  LogPosition last() const { return records.empty() ? base : positionOf(*records.back()); }
};
using ModelState = std::map<VolumeId, ModelVolume>;

class JournalModel {
 public:
  // Calls so far change the state; states_[n] is the state after n calls since the last recovery.
  JournalModel() { states_.emplace_back(); }

  const ModelState& now() const { return states_.back(); }
  ModelState& next() {
    states_.push_back(states_.back());
    return states_.back();
  }
  void acknowledged() { ++acknowledged_; }
  size_t issued() const { return states_.size() - 1; }
  size_t acknowledgedCount() const { return acknowledged_; }

  // Finds the prefix that the recovered journal is in, and goes on from there.
  void recovered(JournalNode& node) {
    std::string why;
    for (size_t n = states_.size(); n-- > acknowledged_;) {
      why = mismatch(node, states_[n]);
      if (!why.empty()) continue;
      ModelState state = states_[n];
      states_.clear();
      states_.push_back(std::move(state));
      acknowledged_ = 0;
      return;
    }
    ADD_FAILURE() << "no prefix between " << acknowledged_ << " and " << issued()
                  << " calls fits; with all acknowledged: " << why << "\n"
                  << sentences(node.report());
    throw std::runtime_error("the journal is wrong");
  }

  // Empty when the journal's volumes are as in `state`.
  static std::string mismatch(JournalNode& node, const ModelState& state) {
    auto& volumes = node.report().volumes;
    if (volumes.size() != state.size()) return "another number of volumes";
    for (auto& [id, wanted] : state) {
      auto found = volumes.find(id);
      if (found == volumes.end()) return "a volume is missing";
      auto& got = found->second;
      if (got.suspect) return "a volume is suspect";
      if (got.last != wanted.last()) return "another last position";
      if (got.checkpoint != wanted.checkpoint) return "another checkpoint";
      if (got.promise.epoch != wanted.promise.epoch || got.promise.nonce != wanted.promise.nonce) {
        return "another promise";
      }
      if (got.base.index > wanted.checkpoint.index) return "records above the checkpoint are gone";
      std::string records = recordMismatch(node, id, got.base, wanted);
      if (!records.empty()) return records;
    }
    return "";
  }

 private:
  static std::string recordMismatch(JournalNode& node, const VolumeId& id, LogPosition base,
                                    const ModelVolume& wanted) {
    auto records = node.readAll(id, 20000);
    if (base.index.value + records.size() != wanted.last().index.value) return "records are missing";
    for (auto& record : records) {
      if (record->index <= wanted.base.index) continue;
      auto& expected = wanted.records[record->index.value - wanted.base.index.value - 1];
      if (record->hash != expected->hash) return "another record";
      if (record->payload.asPtr() != expected->payload.asPtr()) return "another payload";
    }
    return "";
  }

  std::vector<ModelState> states_;
  size_t acknowledged_ = 0;
};

// Issues random calls; each is applied to the model when it is made.
class JournalWorkload {
 public:
  JournalWorkload(JournalNode& node, JournalModel& model, uint64_t seed)
      : node_(node), model_(model), random_(seed) {}

  Co<void> run(size_t calls) {
    for (size_t i = 0; i < calls; ++i) {
      step();
      const uint64_t pause = random_.below(10);
      if (pause < 3) co_await node_.sim().env().timer.afterDelay(pause * 7 * kj::MILLISECONDS);
      if (pause == 9 || pending_.size() > 20) co_await join();
    }
    co_await join();
  }

 private:
  kj::Promise<void> join() {
    auto pending = kj::joinPromises(pending_.releaseAsArray());
    pending_ = kj::Vector<kj::Promise<void>>();
    return pending;
  }

  void issue(kj::Promise<void> promise) {
    pending_.add(promise.then([this]() { model_.acknowledged(); }));
  }

  void step() {
    const VolumeId id = volumeId(static_cast<uint8_t>(1 + random_.below(3)));
    const uint64_t kind = random_.below(100);
    if (kind < 70) return append(id, random_.below(20) == 0 ? 6000 : random_.below(900));
    if (kind < 78) return promise(id);
    if (kind < 90) return checkpoint(id);
    if (kind < 95) return truncate(id);
    if (kind < 98) return replace(id);
    model_.next().erase(id);
    issue(node_.journal().drop(id));
  }

  void append(const VolumeId& id, size_t bytes) {
    ModelVolume& volume = model_.next()[id];
    auto record = nextRecord(volume.last(), Epoch(1 + random_.below(3)), bytes, random_.next());
    volume.records.push_back(record);
    issue(node_.journal().append(id, record));
  }

  void promise(const VolumeId& id) {
    ModelVolume& volume = model_.next()[id];
    volume.promise.epoch = volume.promise.epoch.next();
    volume.promise.nonce = volumeId(static_cast<uint8_t>(random_.next()));
    issue(node_.journal().promise(id, volume.promise));
  }

  void checkpoint(const VolumeId& id) {
    ModelVolume& volume = model_.next()[id];
    // Between the last checkpoint, or what a restart has kept, and the end.
    const uint64_t from = std::max(volume.checkpoint.index, node_.journal().base(id).index).value;
    const uint64_t to = volume.last().index.value;
    const RecordIndex index(from + (to > from ? random_.below(to - from + 1) : 0));
    auto position = KJ_ASSERT_NONNULL(node_.journal().position(id, index));
    volume.checkpoint = position;
    issue(node_.journal().checkpoint(id, position, false));
    node_.journal().release(id, index);
  }

  void truncate(const VolumeId& id) {
    ModelVolume& volume = model_.next()[id];
    const uint64_t from = std::max(volume.checkpoint.index, node_.journal().base(id).index).value;
    const uint64_t to = volume.last().index.value;
    const RecordIndex index(to > from ? to - random_.below(std::min<uint64_t>(to - from, 5) + 1) : to);
    auto position = KJ_ASSERT_NONNULL(node_.journal().position(id, index));
    while (volume.last().index > index) volume.records.pop_back();
    issue(node_.journal().truncate(id, position));
  }

  void replace(const VolumeId& id) {
    ModelVolume& volume = model_.next()[id];
    volume.records.clear();
    volume.base = LogPosition{RecordIndex(volume.last().index.value + random_.below(50)), Epoch(3),
                              Hash128{random_.next(), random_.next()}};
    volume.checkpoint = volume.base;
    issue(node_.journal().checkpoint(id, volume.base, true));
  }

  JournalNode& node_;
  JournalModel& model_;
  kernelio::SeededRandom random_;
  kj::Vector<kj::Promise<void>> pending_;
};

}  // namespace packmoor::replicator
