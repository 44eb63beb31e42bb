// The state behind SimStorage. Private to kernelio.
#pragma once

#include "kernelio/sim_disk.h"
#include "sim_inode.h"

#include <list>
#include <string>
#include <vector>

namespace packmoor::kernelio::sim {

// A write that was issued and has not taken effect yet.
struct PendingWrite {
  InodeRef inode;
  uint64_t offset = 0;
  IoBuffer data;
};

enum class OpKind : uint8_t { kRead, kWrite, kSync, kNames };

// What faults do to one operation.
struct Verdict {
  kj::Duration delay = 0 * kj::NANOSECONDS;
  bool stuck = false;
  bool lost = false;
  bool misdirected = false;
  bool failed = false;
  bool rots = false;
};

class Storage {
 public:
  explicit Storage(uint64_t seed) : random(seed), root(std::make_shared<Inode>()) {
    root->folder = true;
  }

  // ---- Names: all throw a sentence when the path is not what the operation needs --------------
  InodeRef find(kj::StringPtr path) const;  // null when absent; "" is the root
  InodeRef folder(kj::StringPtr path) const;
  InodeRef file(kj::StringPtr path) const;
  InodeRef durableFile(kj::StringPtr path) const;  // null when absent

  // ---- Power ----------------------------------------------------------------------------------
  // Counts a write boundary about to take effect. True: power goes now, before it does.
  bool cutsDuring();
  // True: the boundary that was just counted has taken effect, and power goes.
  bool cutsAfter();
  void cutPower();
  void crash();
  // A process went away: what it had in flight completes.
  void completePending();

  // ---- Faults ---------------------------------------------------------------------------------
  Verdict judge(OpKind kind, kj::StringPtr path);
  void requireSpace(Inode& inode, uint64_t offset, uint64_t bytes, kj::StringPtr path) const;
  uint64_t usedBytes() const;

  SeededRandom random;
  InodeRef root;
  NameJournal names;
  std::list<PendingWrite> pendingWrites;

  SimTiming timing;
  uint64_t capacityBytes = UINT64_MAX;
  bool powered = true;
  uint64_t boundaries = 0;
  uint64_t cutAt = 0;  // 0: none planned
  PowerCut cutWhen = PowerCut::kAfter;
  kj::Vector<kj::Own<kj::PromiseFulfiller<void>>> powerWatchers;
  size_t attached = 0;  // SimDisks

  struct Planned {
    SimFaultKind kind;
    std::string pathPrefix;
    uint64_t skip, count;
    kj::Duration delay;
  };
  std::vector<Planned> planned;
  SimFaultRates rates;
  uint64_t struck = 0;

 private:
  kj::Duration duration(OpKind kind);
  bool strikes(Planned& fault, OpKind kind, kj::StringPtr path);
};

}  // namespace packmoor::kernelio::sim
