// The second pass over a pack: objects that came as deltas.
//
// A delta tree has an object that is no delta at its root; its nodes are walked depth first, so
// that a base is in memory when its deltas are applied. DeltaPlan is what all lanes share; a
// DeltaLane is one walk, on one thread at a time.
#pragma once

#include "gitlayer/indexer.h"
#include "index_table.h"
#include "link_set.h"
#include "pack_bytes.h"
#include "pack_parser.h"

#include <atomic>
#include <mutex>

namespace packmoor::gitlayer {

struct DeltaPlan {
  explicit DeltaPlan(const PackLimits& limits) : limits(limits) {}

  struct ByName {
    ObjectId base;
    uint32_t child;
  };
  struct ByEntry {
    uint32_t base, child;
  };

  // True for the one lane that is to resolve it.
  bool claim(size_t named) { return !claimed[named].exchange(true); }
  bool refuse(std::string text);   // returns false
  // Names and checks an object; its entry is complete then. False: refused.
  bool complete(uint32_t number, ObjectType type, kj::ArrayPtr<const kj::byte> data,
                std::vector<ObjectLink>& scratch, LinkFilter& filter);
  // Sorts what the first pass found.
  void prepare();
  // Inflates what is stored at an entry: an object or a delta.
  // Throws when that is larger than limits.heldBytesMax.
  LargeBuffer inflate(uint32_t number, Inflater& inflater) const;
  // The entry that an entry's delta stands on; kNoEntry when it is no delta. After sortNames().
  uint32_t baseOf(uint32_t number) const;
  // False: the delta does not fit the base.
  bool apply(kj::ArrayPtr<const kj::byte> base, kj::ArrayPtr<const kj::byte> delta,
             LargeBuffer& result) const;
  // Whether deltas may go on to make objects, `bytes` more than before. False: refused.
  bool spend(uint64_t bytes);
  // Compares the blobs that were not held with what is stored. False: refused.
  bool checkNamedBlobs();

  const PackLimits limits;
  ObjectSource* stored = nullptr;    // what the repository has already; null: nothing
  IndexTable table;
  LinkSet links;
  std::vector<ByEntry> byEntry;      // by base
  std::vector<ByName> byName;        // by base
  std::unique_ptr<std::atomic<bool>[]> claimed;  // of byName
  std::vector<uint32_t> roots;
  std::atomic<uint32_t> nextRoot{0};
  uint32_t deltas = 0;
  std::atomic<uint32_t> resolved{0};
  std::atomic<uint64_t> spent{0};    // bytes of objects that were made of deltas, again and again
  uint64_t entriesEnd = 0;           // where the trailer is, or appended entries begin to go
  std::vector<uint32_t> namedBlobs;  // entries that were not held when they were named
  uint32_t received = 0;             // entries that came; more were appended
  const PackBytes* bytes = nullptr;

  std::atomic<bool> refused{false};
  mutable std::mutex mutex;
  std::string problem;               // guarded by mutex; the first one counts
};

class DeltaLane {
 public:
  explicit DeltaLane(DeltaPlan& plan) : plan_(plan), filter_(plan.links) {}

  // As Indexer::resolve.
  bool run(size_t bytes);
  // Resolves all that stands on an object which is not in the pack's bytes yet.
  bool runOn(uint32_t root, LargeBuffer data);

 private:
  struct Frame {
    uint32_t entry = kNoEntry;
    uint32_t nextByEntry = 0, endByEntry = 0, nextByName = 0, endByName = 0;
    bool loaded = false;
    bool pinned = false;    // cannot be read again: stays while the frame does
    LargeBuffer data;
    bool spent() const { return nextByEntry == endByEntry && nextByName == endByName; }
  };

  Frame frameOf(uint32_t entry) const;
  size_t step();
  uint32_t nextChild(Frame& frame);
  bool load(size_t level);
  bool make(uint32_t entry, kj::ArrayPtr<const kj::byte> base, LargeBuffer& result);
  void push(Frame frame);
  void unload(Frame& frame);
  void makeRoom();

  DeltaPlan& plan_;
  LinkFilter filter_;
  Inflater inflater_;
  std::vector<ObjectLink> scratch_;
  std::vector<Frame> stack_;
  size_t loadedBytes_ = 0;
};

}  // namespace packmoor::gitlayer
