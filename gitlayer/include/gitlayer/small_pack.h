// Unpacking a small push in memory: the hot path of Packmoor.
//
// Why: most pushes are a few objects. They go into the record itself, so nothing is written
// before the journal, and one pass over a buffer does all: verify the trailer, inflate, resolve
// deltas against each other and the repository (thin packs), hash with collision detection,
// check the form of each object and collect the names in it.
//
// CPU only, but `source` may read from disk: run on the loop only for tiny packs. Thread-safe.
// Bounds: the caller bounds the pack's bytes; `inflatedBytesMax` bounds all memory together.
#pragma once

#include "gitlayer/git_node.h"
#include "gitlayer/object_check.h"

#include <kj/vector.h>

#include <optional>
#include <string>
#include <unordered_map>

namespace packmoor::gitlayer {

// Why a pack is refused.
struct PackRefusal {
  std::string reason;   // of the report's line "unpack <reason>"
  std::string detail;   // what git would print before it dies, without "fatal: "
};
// The refusal of git index-pack, whose reason is always the same.
PackRefusal indexPackRefusal(std::string detail);

struct UnpackedObject {
  ObjectId id;
  ObjectType type = ObjectType::kNone;
  kj::ArrayPtr<const kj::byte> data;      // inflated, deltas resolved
  kj::ArrayPtr<const kj::byte> deflated;  // as it came; empty when it came as a delta
  uint32_t linksBegin = 0, linksEnd = 0;  // in UnpackedPack::links
  bool known = false;                     // the repository has it already
};

struct UnpackedPack {
  std::optional<PackRefusal> refusal;
  bool missingBase = false;               // refused only for a delta base that nobody has
  bool tooLarge = false;                  // beyond inflatedBytesMax: not refused, not unpacked
  std::vector<UnpackedObject> objects;    // in the pack's order
  std::vector<ObjectLink> links;          // what they name, object by object
  std::unordered_map<ObjectId, uint32_t> byId;
  kj::Vector<kj::Array<kj::byte>> memory;  // what `data` points into
};

// `pack` must live as long as the result. `strict`: what git fsck refuses is refused.
UnpackedPack unpackSmallPack(kj::ArrayPtr<const kj::byte> pack, ObjectSource& source,
                             size_t inflatedBytesMax, bool strict = true);

// The objects as they go into the state, without those that are known; those that came as deltas
// are deflated.
std::vector<NewObject> toNewObjects(const UnpackedPack& unpacked);

}  // namespace packmoor::gitlayer
