// PackBuilder: a pack as a stream of bytes, made from entries as they are stored.
//
// Two ways, both without new compression wherever possible:
//  - objects one by one (copyObjects): each stored entry is copied as it is. A delta whose base
//    is in the pack comes after its base and names it by distance; one whose base only the
//    client has stays a delta when the pack may be thin; any other becomes a delta of what is
//    like it (what its chain of stored deltas leads to), or is stored whole anew.
//  - whole packs (CloneScan): the bodies of packs, one after the other, then the hot objects. Distances
//    stay right since every body stays in one piece. Of a pack that shares objects with a larger one,
//    the other objects are copied one by one, their deltas naming their bases.
//
// Packs never hold an object twice: git refuses that when it is told to be strict.
// Memory: a table of about 30 bytes per object, and one object at a time where one must be
// deflated anew. A builder is used on one thread at a time, usually a worker, in slices as small
// as the caller likes; a missing or damaged object rejects with a sentence.
#pragma once

#include "gitlayer/object_walk.h"

#include <memory>

namespace packmoor::gitlayer {

class PackSink {
 public:
  virtual ~PackSink() noexcept(false) {}
  virtual void write(kj::ArrayPtr<const kj::byte> bytes) = 0;
};

struct PackOptions {
  bool ofsDelta = true;   // else deltas name their base
  bool thin = false;      // deltas may have bases that only the client has
};

struct PackBuildStatistics {
  uint32_t objects = 0;       // in the whole pack
  uint32_t written = 0;       // so far; of whole packs, counted at each pack's end
  uint32_t deltas = 0;        // of those copied one by one
  uint32_t deflatedAnew = 0;
  uint32_t deltasAnew = 0;    // of these
  uint64_t bytes = 0;         // so far
};

class PackBuilder {
 public:
  // The plan's objects. `source` outlives the builder, as in all of these.
  static std::unique_ptr<PackBuilder> copyObjects(ObjectSource& source, PackPlan plan,
                                                  PackOptions options);
  virtual ~PackBuilder() noexcept(false) {}

  // Writes the next piece of the pack: at least `bytes`, unless the pack ends before, and at
  // most kPieceOvershoot more. True: there is more.
  virtual bool produce(PackSink& sink, size_t bytes) = 0;
  static constexpr size_t kPieceOvershoot = 64u << 10;

  const PackBuildStatistics& statistics() const { return statistics_; }

 protected:
  PackBuildStatistics statistics_;
};

// Everything that a repository holds, for a clone. Looks for packs that share objects with others.
class CloneScan {
 public:
  explicit CloneScan(ObjectSource& source);
  ~CloneScan() noexcept;
  KJ_DISALLOW_COPY(CloneScan);

  // Looks at about `budget` names. True: done.
  bool step(uint32_t budget);
  // After that, once.
  std::unique_ptr<PackBuilder> builder(PackOptions options);
  // How many packs go out as they are; of the others objects are copied one by one.
  size_t wholePacks() const;

 private:
  struct Impl;
  std::unique_ptr<Impl> impl_;
};

}  // namespace packmoor::gitlayer
