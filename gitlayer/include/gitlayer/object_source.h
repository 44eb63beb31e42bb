// ObjectSource: reading the objects of one repository at one state, from whatever holds them.
//
// Why: hot objects live in the state store, packed ones in extents, and a push's own objects in
// its quarantine. Connectivity, walks, pack building and libgit2 see one source.
//
// Threads: every method may be called on any thread, concurrently. The source keeps the state
// snapshot and the packs that it reads alive. Objects are verified against damage on the way
// (block checksums of extents); damage and I/O errors are kj exceptions with a sentence.
#pragma once

#include "gitlayer/object_id.h"

#include <kj/common.h>
#include <kj/memory.h>

#include <memory>
#include <vector>

namespace packmoor::gitlayer {

struct ObjectHeader {
  ObjectType type = ObjectType::kNone;
  uint64_t bytes = 0;  // inflated size
};

struct Object {
  ObjectType type = ObjectType::kNone;
  kj::Array<kj::byte> data;  // inflated, deltas resolved
};

// An object as it is stored, for copying into a pack without inflating. `deflated` is a complete
// zlib stream. It borrows from the source and is valid for the source's life.
struct StoredEntry {
  enum class Form : uint8_t { kWhole, kDelta };
  Form form = Form::kWhole;
  ObjectType type = ObjectType::kNone;  // of the resolved object; kNone where not known cheaply
  uint64_t bytes = 0;                   // inflated size of what is stored: object or delta
  ObjectId base;                        // kDelta: the delta's base
  kj::ArrayPtr<const kj::byte> deflated;
  std::shared_ptr<const void> keepAlive;  // holds `deflated` where the source alone does not
};

// A pack as a whole, for reuse in a clone.
struct PackView {
  kj::ArrayPtr<const kj::byte> bytes;   // header, entries, trailer; mapped, checked on first touch
  uint32_t objectCount = 0;
  kj::ArrayPtr<const kj::byte> index;   // its version 2 index, likewise
};

class ObjectSource {
 public:
  virtual ~ObjectSource() noexcept(false) {}
  virtual bool exists(const ObjectId& id) = 0;
  virtual kj::Maybe<ObjectHeader> header(const ObjectId& id) = 0;
  virtual kj::Maybe<Object> read(const ObjectId& id) = 0;
  virtual kj::Maybe<StoredEntry> stored(const ObjectId& id) = 0;
  // Whole packs and the names of all hot objects: together every object of the repository.
  virtual std::vector<PackView> packs() = 0;
  virtual std::vector<ObjectId> hotObjects() = 0;
};

}  // namespace packmoor::gitlayer
