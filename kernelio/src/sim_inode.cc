#include "sim_inode.h"

#include <algorithm>
#include <cstring>

namespace packmoor::kernelio::sim {

namespace {

constexpr size_t kTearUnit = 512;

// New content, old content, or a mix of both.
SectorRef survivor(const SectorRef& before, const SectorRef& after, SeededRandom& random) {
  switch (random.below(3)) {
    case 0:
      return before;
    case 1:
      return after;
    default: {
      auto mixed = std::make_shared<Sector>();
      for (size_t at = 0; at < mixed->size(); at += kTearUnit) {
        const SectorRef& source = random.below(2) == 0 ? before : after;
        if (source != nullptr) std::copy_n(source->begin() + at, kTearUnit, mixed->begin() + at);
      }
      return mixed;
    }
  }
}

// Calls f(sector number, offset in the sector, offset in the range, bytes) for each sector.
template <typename F>
void forEachSector(uint64_t offset, uint64_t bytes, F f) {
  uint64_t done = 0;
  while (done < bytes) {
    uint64_t at = offset + done;
    uint64_t inSector = at % kIoAlignment;
    uint64_t part = std::min<uint64_t>(kIoAlignment - inSector, bytes - done);
    f(at / kIoAlignment, inSector, done, part);
    done += part;
  }
}

// Files that are pre-written with zeros share one sector of them.
const SectorRef& zeroSector() {
  static const SectorRef kZeros = std::make_shared<Sector>();
  return kZeros;
}

SectorRef merged(const SectorRef& old, uint64_t inSector, const kj::byte* from, uint64_t bytes) {
  if (bytes == kIoAlignment && std::memcmp(from, zeroSector()->data(), bytes) == 0) {
    return zeroSector();
  }
  auto sector = old == nullptr ? std::make_shared<Sector>() : std::make_shared<Sector>(*old);
  std::memcpy(sector->data() + inSector, from, bytes);
  return sector;
}

}  // namespace

SectorRef Image::get(uint64_t sector) const {
  auto found = sectors.find(sector);
  return found == sectors.end() ? nullptr : found->second;
}

void Image::set(uint64_t sector, SectorRef content) {
  if (content == nullptr) {
    sectors.erase(sector);
  } else {
    sectors[sector] = std::move(content);
  }
}

void Image::read(uint64_t offset, kj::ArrayPtr<kj::byte> into) const {
  forEachSector(offset, into.size(),
                [&](uint64_t sector, uint64_t inSector, uint64_t done, uint64_t part) {
                  SectorRef from = get(sector);
                  if (from == nullptr) {
                    std::memset(into.begin() + done, 0, part);
                  } else {
                    std::memcpy(into.begin() + done, from->data() + inSector, part);
                  }
                });
}

void Inode::write(uint64_t offset, kj::ArrayPtr<const kj::byte> bytes) {
  forEachSector(offset, bytes.size(),
                [&](uint64_t sector, uint64_t inSector, uint64_t done, uint64_t part) {
                  current.set(sector, merged(current.get(sector), inSector,
                                             bytes.begin() + done, part));
                  dirty.insert(sector);
                  if (part == kIoAlignment) unreadable.erase(sector);
                });
  if (offset + bytes.size() > current.size) {
    current.size = offset + bytes.size();
    sizeDirty = true;
  }
}

void Inode::resize(uint64_t bytes) {
  if (bytes == current.size) return;
  current.resize(bytes, [this](uint64_t sector) { dirty.insert(sector); });
  sizeDirty = true;
}

void Inode::flipBit(uint64_t offset, unsigned bit) {
  for (Image* image : {&current, &durable}) {
    if (offset >= image->size) continue;
    SectorRef old = image->get(offset / kIoAlignment);
    auto rotten = old == nullptr ? std::make_shared<Sector>() : std::make_shared<Sector>(*old);
    (*rotten)[offset % kIoAlignment] ^= static_cast<kj::byte>(1u << bit);
    image->set(offset / kIoAlignment, std::move(rotten));
  }
}

Inode::DirtyState Inode::dirtyState() const {
  DirtyState state;
  for (uint64_t sector : dirty) state.sectors.emplace(sector, current.get(sector));
  state.sizeDirty = sizeDirty;
  state.size = current.size;
  return state;
}

void Inode::forget(const DirtyState& state) {
  // What was written again since stays dirty.
  for (auto& [sector, content] : state.sectors) {
    if (current.get(sector) == content) dirty.erase(sector);
  }
  if (state.size == current.size) sizeDirty = false;
}

void Inode::commit(const DirtyState& state) {
  for (auto& [sector, content] : state.sectors) durable.set(sector, content);
  if (state.sizeDirty) durable.resize(state.size, [](uint64_t) {});
  forget(state);
}

void Inode::commitRange(uint64_t offset, uint64_t bytes) {
  forEachSector(offset, bytes, [&](uint64_t sector, uint64_t, uint64_t, uint64_t) {
    durable.set(sector, current.get(sector));
    dirty.erase(sector);
  });
  durable.resize(current.size, [](uint64_t) {});
  sizeDirty = false;
}

void Inode::crashWrite(uint64_t offset, kj::ArrayPtr<const kj::byte> bytes,
                       SeededRandom& random) {
  bool grown = false;
  forEachSector(offset, bytes.size(),
                [&](uint64_t sector, uint64_t inSector, uint64_t done, uint64_t part) {
                  SectorRef before = durable.get(sector);
                  SectorRef after = merged(before, inSector, bytes.begin() + done, part);
                  SectorRef kept = survivor(before, after, random);
                  if (kept == before) return;
                  durable.set(sector, kept);
                  grown = true;
                });
  uint64_t end = offset + bytes.size();
  if (end > durable.size) {
    // The size is journaled apart from the data: it may be there without it, never the reverse.
    if (grown || random.below(2) == 0) durable.size = end;
  }
}

void Inode::crash(SeededRandom& random) {
  for (uint64_t sector : dirty) {
    // What an unsynced truncation cut off is as durable as the truncation: see the size below.
    if (sector * kIoAlignment >= current.size) continue;
    durable.set(sector, survivor(durable.get(sector), current.get(sector), random));
  }
  uint64_t size = sizeDirty && random.below(2) == 0 ? current.size : durable.size;
  // Sectors that survived beyond the size that survived are not reachable.
  durable.size = UINT64_MAX;
  durable.resize(size, [](uint64_t) {});
  dirty.clear();
  sizeDirty = false;
  current = durable;
}

void NameJournal::makeDurable(const NameChange& change) {
  for (const NameEdit& edit : change) {
    if (edit.target == nullptr) {
      edit.folder->durableEntries.erase(edit.name);
    } else {
      edit.folder->durableEntries[edit.name] = edit.target;
    }
  }
}

void NameJournal::apply(NameChange change) {
  for (const NameEdit& edit : change) {
    if (edit.target == nullptr) {
      edit.folder->entries.erase(edit.name);
    } else {
      edit.folder->entries[edit.name] = edit.target;
    }
  }
  pending_.push_back(std::move(change));
}

void NameJournal::sync(const InodeRef& folder) {
  // A change of two folders drags with it what came before it in the other one.
  std::set<const Inode*> folders{folder.get()};
  std::vector<bool> chosen(pending_.size());
  for (size_t i = pending_.size(); i-- > 0;) {
    for (const NameEdit& edit : pending_[i]) {
      if (folders.count(edit.folder.get()) > 0) chosen[i] = true;
    }
    if (!chosen[i]) continue;
    for (const NameEdit& edit : pending_[i]) folders.insert(edit.folder.get());
  }
  std::vector<NameChange> rest;
  for (size_t i = 0; i < pending_.size(); ++i) {
    if (chosen[i]) {
      makeDurable(pending_[i]);
    } else {
      rest.push_back(std::move(pending_[i]));
    }
  }
  pending_ = std::move(rest);
}

void NameJournal::crash(SeededRandom& random) {
  std::set<const Inode*> stopped;
  for (const NameChange& change : pending_) {
    bool kept = random.below(2) == 0;
    for (const NameEdit& edit : change) {
      if (stopped.count(edit.folder.get()) > 0) kept = false;
    }
    if (kept) {
      makeDurable(change);
    } else {
      for (const NameEdit& edit : change) stopped.insert(edit.folder.get());
    }
  }
  pending_.clear();
}

}  // namespace packmoor::kernelio::sim
