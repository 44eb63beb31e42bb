// SimStorage and SimDisk: a disk in memory that fails as disks do.
//
// Why: what Packmoor promises about durability is tested against power cuts at every write, and
// against writes that are lost, misdirected, torn, rotten, refused or slow.
//
// SimStorage is the hardware: it outlives nodes. SimDisk is a node's view of it while the node
// runs; destroy it with the node and make a new one to "reboot".
//   - Process death: destroy the SimDisk. Writes in flight complete, nothing else changes.
//   - Power cut: cutPower() (or a cut at a chosen write, below), destroy the node and its SimDisk,
//     then crash(). From the cut on, no operation takes effect or resolves.
//
// What a crash keeps:
//   - What was made durable by a durable write or a sync().
//   - Of what was written and not synced, and of writes in flight: per sector of kIoAlignment,
//     by the seed, the new content, the old one, or a mix in units of 512 bytes.
//   - Names (created, renamed, linked, removed) after syncDirectory of their folder. Of the
//     others a prefix per folder, in the order they were made; a rename is never half done.
//     A folder whose own name is not durable is lost with all that is in it.
// A sync that fails drops the dirty state as Linux does: a later sync succeeds and makes none
// of it durable.
//
// Everything follows from the seed and the order of operations. Virtual time comes from the
// timer given to SimDisk. Loop: one; nothing here may be used from two threads.
#pragma once

#include "kernelio/disk.h"
#include "kernelio/seeded_random.h"

#include <kj/timer.h>

#include <memory>

namespace packmoor::kernelio {

namespace sim {
class Storage;
}

enum class SimFaultKind : uint8_t {
  kLostWrite,         // reported as done, even durably, but never happens
  kMisdirectedWrite,  // lands at another sector of the same file
  kWriteError,        // EIO, nothing written
  kSyncError,         // EIO from sync(); see above for what becomes of the dirty state
  kReadError,         // EIO; readSectors reports all that was asked for as bad
  kSlow,              // takes `delay` longer
  kStuck,             // never resolves; a write stays in flight for ever
};

struct SimFault {
  static constexpr uint64_t kForever = UINT64_MAX;

  SimFaultKind kind = SimFaultKind::kSlow;
  kj::StringPtr pathPrefix = "";  // the files it strikes, by the path they were opened with
  uint64_t skip = 0;              // matching operations that pass before it strikes
  uint64_t count = 1;             // operations that it strikes
  kj::Duration delay = 0 * kj::NANOSECONDS;  // kSlow only
};

// Faults that strike by chance, in units of one in a million operations.
struct SimFaultRates {
  uint32_t lostWrite = 0;
  uint32_t misdirectedWrite = 0;
  uint32_t writeError = 0;
  uint32_t readError = 0;
  uint32_t rotPerRead = 0;  // a random bit of what is read has flipped, for good
  uint32_t slow = 0;
  kj::Duration slowDelay = 100 * kj::MILLISECONDS;
};

// How long operations take: uniform between the bounds. All zero: one turn of the loop.
struct SimTiming {
  kj::Duration readMin = 0 * kj::NANOSECONDS, readMax = 0 * kj::NANOSECONDS;
  kj::Duration writeMin = 0 * kj::NANOSECONDS, writeMax = 0 * kj::NANOSECONDS;
  kj::Duration syncMin = 0 * kj::NANOSECONDS, syncMax = 0 * kj::NANOSECONDS;
};

enum class PowerCut : uint8_t {
  kDuring,  // the write is in flight: any part of it may be kept
  kAfter,   // the write has taken effect but nobody was told
};

class SimStorage {
 public:
  explicit SimStorage(uint64_t seed);
  ~SimStorage() noexcept;
  KJ_DISALLOW_COPY(SimStorage);

  void setTiming(const SimTiming& timing);
  void setCapacity(uint64_t bytes);  // beyond it writes fail with OVERLOADED

  // ---- Power --------------------------------------------------------------------------------

  // Operations that change anything (write, sync, allocate, truncate, names, syncDirectory) are
  // write boundaries, counted from 1 in the order in which they take effect.
  uint64_t writeBoundaries() const;
  // Cuts power at the given boundary of that count; one cut may be planned at a time.
  void cutPowerAt(uint64_t boundary, PowerCut when);
  void cutPower();  // now
  bool powered() const;
  // Resolves at the next power cut.
  kj::Promise<void> whenPowerLost();
  // Decides what has survived, and switches the power on again. All SimDisks of this storage
  // must be gone. Without a cut before it, it is a cut now.
  void crash();

  // ---- Faults -------------------------------------------------------------------------------

  void inject(const SimFault& fault);
  void setFaultRates(const SimFaultRates& rates);
  void clearFaults();  // planned ones and rates; damage done stays
  uint64_t faultsStruck() const;

  // Flips one random bit of every sector in the range, for good.
  void rot(kj::StringPtr path, uint64_t offset, uint64_t bytes);
  // The sectors that the range touches cannot be read until they are written again in full.
  void breakSectors(kj::StringPtr path, uint64_t offset, uint64_t bytes);

  // ---- For tests that look at the platters ---------------------------------------------------

  // What a read would give / what a crash that loses all it may would leave. nullptr when absent.
  kj::Maybe<kj::Array<kj::byte>> content(kj::StringPtr path) const;
  kj::Maybe<kj::Array<kj::byte>> durableContent(kj::StringPtr path) const;
  // Overwrites bytes in place, durably, past all rules; the file must be large enough.
  void poke(kj::StringPtr path, uint64_t offset, kj::ArrayPtr<const kj::byte> bytes);

 private:
  friend class SimDisk;
  std::unique_ptr<sim::Storage> storage_;
};

class SimDisk final : public Disk {
 public:
  // Both must outlive the SimDisk. Files must be dropped before it.
  SimDisk(SimStorage& storage, kj::Timer& timer);
  ~SimDisk() noexcept;
  KJ_DISALLOW_COPY(SimDisk);

  kj::Promise<kj::Own<File>> open(kj::StringPtr path, OpenOptions options) override;
  kj::Promise<bool> exists(kj::StringPtr path) override;
  kj::Promise<kj::Array<kj::String>> list(kj::StringPtr folder) override;
  kj::Promise<void> makeFolders(kj::StringPtr path) override;
  kj::Promise<void> remove(kj::StringPtr path) override;
  kj::Promise<void> removeTree(kj::StringPtr path) override;
  kj::Promise<void> rename(kj::StringPtr from, kj::StringPtr to) override;
  kj::Promise<void> link(kj::StringPtr from, kj::StringPtr to) override;
  kj::Promise<void> syncDirectory(kj::StringPtr folder) override;
  kj::Promise<DiskSpace> space() override;
  kj::StringPtr root() override { return ""; }
  kj::StringPtr backend() override { return "sim"; }

 private:
  class Runner;
  class SimFile;

  kj::Own<Runner> runner_;
};

}  // namespace packmoor::kernelio
