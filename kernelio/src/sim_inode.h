// Files and folders of SimStorage: contents, names, and which of both would survive a power cut.
// Private to kernelio.
#pragma once

#include "kernelio/io_buffer.h"
#include "kernelio/seeded_random.h"

#include <algorithm>
#include <array>
#include <map>
#include <memory>
#include <set>
#include <string>
#include <vector>

namespace packmoor::kernelio::sim {

using Sector = std::array<kj::byte, kIoAlignment>;
using SectorRef = std::shared_ptr<const Sector>;  // null: all zeros

// The bytes of a file. Sectors that are absent are zeros.
struct Image {
  uint64_t size = 0;
  std::map<uint64_t, SectorRef> sectors;  // by sector number

  SectorRef get(uint64_t sector) const;
  void set(uint64_t sector, SectorRef content);
  void read(uint64_t offset, kj::ArrayPtr<kj::byte> into) const;
  // Sets the size; bytes beyond it become zeros. Calls back with every sector that changed.
  template <typename Changed>
  void resize(uint64_t bytes, Changed changed);
};

struct Inode;
using InodeRef = std::shared_ptr<Inode>;
using Entries = std::map<std::string, InodeRef>;

struct Inode {
  bool folder = false;

  Image current, durable;        // files
  std::set<uint64_t> dirty;      // sectors that a sync would make durable
  bool sizeDirty = false;        // likewise the size
  std::set<uint64_t> unreadable;
  uint64_t reservedBytes = 0;    // by allocate()

  Entries entries, durableEntries;  // folders

  // Writes into the current image and marks it dirty.
  void write(uint64_t offset, kj::ArrayPtr<const kj::byte> bytes);
  void resize(uint64_t bytes);
  // For good: in what is read now and in what a crash leaves.
  void flipBit(uint64_t offset, unsigned bit);
  // What a sync that begins now will make durable; give it to commit when the sync is done.
  struct DirtyState {
    std::map<uint64_t, SectorRef> sectors;
    bool sizeDirty = false;
    uint64_t size = 0;
  };
  DirtyState dirtyState() const;
  void commit(const DirtyState& state);
  void forget(const DirtyState& state);  // a failed sync: clean, but never durable
  // Makes the sectors of a range and the size durable.
  void commitRange(uint64_t offset, uint64_t bytes);

  // A write in flight when the power went: any sector of it may be on the platter.
  void crashWrite(uint64_t offset, kj::ArrayPtr<const kj::byte> bytes, SeededRandom& random);
  // Settles what has survived.
  void crash(SeededRandom& random);
};

// One change of names, atomic: all edits or none.
struct NameEdit {
  InodeRef folder;
  std::string name;
  InodeRef target;  // null: removed
};
using NameChange = std::vector<NameEdit>;

// The changes of names that no syncDirectory has made durable yet, oldest first.
class NameJournal {
 public:
  void apply(NameChange change);  // to the current names
  void sync(const InodeRef& folder);
  // Keeps a prefix per folder, by chance, and forgets the rest.
  void crash(SeededRandom& random);

 private:
  static void makeDurable(const NameChange& change);

  std::vector<NameChange> pending_;
};

template <typename Changed>
void Image::resize(uint64_t bytes, Changed changed) {
  if (bytes < size) {
    uint64_t firstGone = (bytes + kIoAlignment - 1) / kIoAlignment;
    for (auto it = sectors.lower_bound(firstGone); it != sectors.end(); it = sectors.erase(it)) {
      changed(it->first);
    }
    if (bytes % kIoAlignment != 0) {
      auto last = sectors.find(bytes / kIoAlignment);
      if (last != sectors.end()) {
        auto cut = std::make_shared<Sector>(*last->second);
        std::fill(cut->begin() + bytes % kIoAlignment, cut->end(), 0);
        last->second = std::move(cut);
        changed(last->first);
      }
    }
  }
  size = bytes;
}

}  // namespace packmoor::kernelio::sim
