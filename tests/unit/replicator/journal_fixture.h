// What the journal's tests share: a node's life on a simulated disk, and volumes whose records are
// made in order and remembered.
#pragma once

#include "kernelio/sim_env.h"
#include "replicator/journal.h"

#include <gtest/gtest.h>

#include <string>
#include <vector>

namespace packmoor::replicator {

inline VolumeId volumeId(uint8_t number) {
  VolumeId id;
  id.bytes.fill(number);
  return id;
}

inline kj::Array<const kj::byte> patternBytes(size_t count, uint64_t seed) {
  auto bytes = kj::heapArray<kj::byte>(count);
  for (size_t i = 0; i < count; ++i) {
    seed = seed * 6364136223846793005u + 1442695040888963407u;
    bytes[i] = static_cast<kj::byte>(seed >> 56);
  }
  return bytes;
}

inline RecordRef nextRecord(const LogPosition& last, Epoch epoch, size_t payloadBytes,
                            uint64_t seed, size_t extents = 0) {
  std::vector<ExtentId> ids;
  for (size_t i = 0; i < extents; ++i) ids.push_back(volumeId(static_cast<uint8_t>(seed + i)));
  return makeRecord(last.index.next(), epoch, last.hash, RecordKind(kStateMachineKindMin),
                    std::move(ids), patternBytes(payloadBytes, seed));
}

inline LogPosition positionOf(const Record& record) {
  return {record.index, record.epoch, record.hash};
}

// One life of a process with a journal.
class JournalNode {
 public:
  JournalNode(kernelio::VirtualLoop& loop, kernelio::SimStorage& storage, uint64_t seed = 1)
      : loop_(loop), storage_(storage), sim_(loop, storage, seed) {}

  static JournalOptions smallOptions() {
    JournalOptions options;
    options.segmentBytes = 64u << 10;
    options.batchBytesMax = 16u << 10;
    options.recentBytesMax = 8u << 10;
    return options;
  }

  kj::Promise<Journal::Opened> openAsync(JournalOptions options = smallOptions()) {
    return Journal::open(sim_.env(), options, [this](kj::StringPtr sentence) {
      fatals_.push_back(sentence.cStr());
    });
  }
  void take(Journal::Opened opened) {
    journal_ = kj::mv(opened.journal);
    report_ = kj::mv(opened.report);
  }
  void open(JournalOptions options = smallOptions()) { take(loop_.wait(openAsync(options))); }
  void close() {
    loop_.wait(journal_->close());
    journal_ = nullptr;
  }

  Journal& journal() { return *journal_; }
  RecoveryReport& report() { return report_; }
  kernelio::SimEnv& sim() { return sim_; }
  const std::vector<std::string>& fatals() const { return fatals_; }

  // Makes and appends the volume's next record.
  kj::Promise<void> append(VolumeId volume, size_t payloadBytes, uint64_t seed, Epoch epoch = Epoch(1)) {
    return journal_->append(volume, nextRecord(journal_->last(volume), epoch, payloadBytes, seed));
  }
  // Throws when the power goes meanwhile.
  std::vector<RecordRef> readAll(VolumeId volume, size_t bytesMax = 1u << 20) {
    std::vector<RecordRef> result;
    RecordIndex next = journal_->base(volume).index.next();
    while (next <= journal_->last(volume).index) {
      auto noPower = storage_.whenPowerLost().then([]() -> kj::Array<RecordRef> {
        KJ_FAIL_REQUIRE("no power");
      });
      auto part =
          loop_.wait(journal_->read(volume, next, bytesMax).exclusiveJoin(kj::mv(noPower)));
      if (part.size() == 0) break;
      for (auto& record : part) result.push_back(record);
      next = result.back()->index.next();
    }
    return result;
  }

 private:
  kernelio::VirtualLoop& loop_;
  kernelio::SimStorage& storage_;
  kernelio::SimEnv sim_;
  std::vector<std::string> fatals_;
  RecoveryReport report_;
  kj::Own<Journal> journal_;
};

inline std::string sentences(const RecoveryReport& report) {
  std::string all;
  for (auto& sentence : report.damage) {
    all += sentence.cStr();
    all += "\n";
  }
  return all;
}

}  // namespace packmoor::replicator
