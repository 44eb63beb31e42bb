#include "collision_check.h"

#include "large_buffer.h"

#include <kj/debug.h>
#include <zlib.h>

#include <cstring>

namespace packmoor::gitlayer {

namespace {

constexpr size_t kPieceBytes = 64u << 10;

// What a zlib stream inflates to, piece by piece.
class InflatedPieces {
 public:
  explicit InflatedPieces(DeflatedInput input) : input_(std::move(input)) {
    KJ_REQUIRE(inflateInit(&zlib_) == Z_OK, "zlib has no memory");
  }
  ~InflatedPieces() noexcept { inflateEnd(&zlib_); }
  KJ_DISALLOW_COPY(InflatedPieces);

  // Returns how many bytes were filled: all, or less at the end of the stream, or where it is damaged.
  size_t fill(kj::ArrayPtr<kj::byte> out) {
    zlib_.next_out = out.begin();
    zlib_.avail_out = static_cast<uInt>(out.size());
    while (zlib_.avail_out > 0) {
      if (zlib_.avail_in == 0) {
        auto more = input_();
        if (more.size() == 0) break;
        zlib_.next_in = const_cast<kj::byte*>(more.begin());
        zlib_.avail_in = static_cast<uInt>(more.size());
      }
      if (inflate(&zlib_, Z_NO_FLUSH) != Z_OK) break;
    }
    return out.size() - zlib_.avail_out;
  }

 private:
  DeflatedInput input_;
  z_stream zlib_{};
};

// A range of memory, given in steps that zlib can count.
DeflatedInput inputOf(kj::ArrayPtr<const kj::byte> deflated) {
  return [rest = deflated]() mutable {
    auto step = rest.slice(0, kj::min(rest.size(), kPieceBytes));
    rest = rest.slice(step.size(), rest.size());
    return step;
  };
}

// Compares `bytes` bytes of what is stored with those that `next` fills in; nothing is held as a whole but
// what is stored as a delta.
template <typename Next>
bool equalPieces(ObjectSource& stored, const ObjectId& id, uint64_t bytes, Next next) {
  auto entry = stored.stored(id);
  auto& found = KJ_REQUIRE_NONNULL(entry, "an object is gone while it is read", id);
  kj::Maybe<Object> whole;
  std::unique_ptr<InflatedPieces> pieces;
  if (found.form == StoredEntry::Form::kWhole) {
    pieces = std::make_unique<InflatedPieces>(inputOf(found.deflated));
  } else {
    whole = stored.read(id);
  }
  auto ours = kj::heapArray<kj::byte>(kPieceBytes), theirs = kj::heapArray<kj::byte>(kPieceBytes);
  for (uint64_t at = 0; at < bytes;) {
    const size_t piece = static_cast<size_t>(kj::min(bytes - at, uint64_t{kPieceBytes}));
    KJ_IF_MAYBE(object, whole) {
      memcpy(ours.begin(), object->data.begin() + at, piece);
    } else {
      KJ_REQUIRE(pieces->fill(ours.slice(0, piece)) == piece, "a stored object is damaged", id);
    }
    if (next(theirs.slice(0, piece)) != piece) return false;
    if (memcmp(ours.begin(), theirs.begin(), piece) != 0) return false;
    at += piece;
  }
  return true;
}

}  // namespace

bool sameAsStored(ObjectSource& stored, const ObjectId& id, ObjectType type,
                  kj::ArrayPtr<const kj::byte> data) {
  auto header = stored.header(id);
  KJ_IF_MAYBE(known, header) {
    if (known->type != type || known->bytes != data.size()) return false;
    if (data.size() > kHeapObjectBytesMax) {
      return equalPieces(stored, id, data.size(), [rest = data](kj::ArrayPtr<kj::byte> out) mutable {
        memcpy(out.begin(), rest.begin(), out.size());
        rest = rest.slice(out.size(), rest.size());
        return out.size();
      });
    }
    auto object = stored.read(id);
    auto& found = KJ_REQUIRE_NONNULL(object, "an object is gone while it is read", id);
    return found.data.size() == data.size() &&
           (data.size() == 0 || memcmp(found.data.begin(), data.begin(), data.size()) == 0);
  }
  return true;
}

bool sameBlobAsStored(ObjectSource& stored, const ObjectId& id, uint64_t bytes,
                      DeflatedInput deflated) {
  auto header = stored.header(id);
  KJ_IF_MAYBE(known, header) {
    if (known->type != ObjectType::kBlob || known->bytes != bytes) return false;
    InflatedPieces incoming(std::move(deflated));
    return equalPieces(stored, id, bytes,
                       [&incoming](kj::ArrayPtr<kj::byte> out) { return incoming.fill(out); });
  }
  return true;
}

std::string collisionFound(const ObjectId& id) {
  return kj::str("SHA1 COLLISION FOUND WITH ", id, " !").cStr();
}

}  // namespace packmoor::gitlayer
