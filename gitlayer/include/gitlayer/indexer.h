// Indexer: finds, names and checks every object of a pack of any size.
//
// Why: what git index-pack does, as a library: fed while the pack streams in, with bounded
// memory and on several threads. It writes nothing; the caller keeps the bytes and gives them
// back through PackBytes.
//
// Order of use, each step after the one before:
//   1. feed() for all bytes, end(). Objects that are no deltas are named on the way.
//   2. beginDeltas(), then resolve() with any number of lanes until each returns false.
//   3. while thinBasesLeft(): resolveThin(), which takes bases from the repository and gives the
//      bytes to append to the pack, so that it stands alone.
//   4. finish(), then the table, the index and single objects may be read.
// Any step returns false, or says so, when the pack is refused: problem() is what git would say.
// I/O errors are exceptions.
//
// Memory: about 40 bytes an object, 24 bytes a name mentioned, and kLaneBytesMax a lane (more only
// while a single object is larger, up to PackLimits::heldBytesMax; those of more than 16 MiB lie in
// temporary files). What deltas make, all together, is bounded too, and how long chains of them are:
// a small pack cannot keep a node busy for long. Threads: feed() and the thin steps by one thread at a time,
// resolve() by one thread per lane.
#pragma once

#include "gitlayer/object_check.h"
#include "gitlayer/object_source.h"

#include <kj/array.h>

#include <memory>
#include <string>

namespace packmoor::gitlayer {

class IndexTable;
class LinkSet;
class PackBytes;
struct DeltaPlan;
class DeltaLane;
struct PackLimits;

class Indexer {
 public:
  explicit Indexer(const PackLimits& limits);
  ~Indexer() noexcept;
  KJ_DISALLOW_COPY(Indexer);

  // Objects that `stored` has already must come as they are there (collision_check.h). Before the first
  // feed(); outlives the steps up to 4.
  void compareWith(ObjectSource& stored);

  // ---- 1 --------------------------------------------------------------------------------------
  bool feed(kj::ArrayPtr<const kj::byte> bytes);
  bool end();
  uint64_t packBytes() const;        // up to what was parsed, with the trailer at the end
  const ObjectId& trailer() const;   // as it came

  // ---- 2 --------------------------------------------------------------------------------------
  // `bytes` outlives every later step.
  void beginDeltas(const PackBytes& bytes);
  std::unique_ptr<DeltaLane> makeLane();
  // Works for about `bytes` bytes of inflated data. False: nothing is left for this lane, or the
  // pack is refused.
  bool resolve(DeltaLane& lane, size_t bytes);

  // ---- 3 --------------------------------------------------------------------------------------
  bool thinBasesLeft() const;
  struct Appended {
    kj::Array<const kj::byte> bytes;   // whole entries, for the end of the pack
    bool stuck = false;                // the bases that are left are not in the repository
  };
  // Takes bases until about `bytesMax` bytes are to be appended. May be called again with
  // another source when it is stuck.
  Appended resolveThin(ObjectSource& source, size_t bytesMax);
  uint32_t appendedCount() const;

  // ---- 4 --------------------------------------------------------------------------------------
  bool finish();
  uint32_t objectCount() const;
  const IndexTable& table() const;
  const LinkSet& links() const;
  // The object of entry `number`, deltas resolved.
  kj::Array<kj::byte> read(uint32_t number) const;

  bool refused() const;
  std::string problem() const;

  static constexpr size_t kLaneBytesMax = 32u << 20;

 private:
  class Sink;

  std::unique_ptr<DeltaPlan> plan_;
  std::unique_ptr<Sink> sink_;
};

}  // namespace packmoor::gitlayer
