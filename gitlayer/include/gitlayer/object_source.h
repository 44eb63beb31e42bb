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

// Checks the bytes of a pack against their block checksums when they are first needed, and keeps
// them mapped. Thread-safe. Damage and I/O errors are thrown.
class PackGuard {
 public:
  virtual ~PackGuard() noexcept(false) {}
  virtual void needBytes(uint64_t offset, uint64_t count) = 0;
  virtual void needIndex(uint64_t offset, uint64_t count) = 0;
};

// A pack as a whole, for reuse in a clone. What is read of it is asked for first with need() and
// needIndex(); asking again is cheap.
struct PackView {
  kj::ArrayPtr<const kj::byte> bytes;   // header, entries, trailer
  uint32_t objectCount = 0;
  kj::ArrayPtr<const kj::byte> index;   // its version 2 index
  std::shared_ptr<PackGuard> guard;     // null: the bytes need no check (tests)

  void need(uint64_t offset, uint64_t count) const {
    if (guard != nullptr) guard->needBytes(offset, count);
  }
  void needIndex(uint64_t offset, uint64_t count) const {
    if (guard != nullptr) guard->needIndex(offset, count);
  }
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
