#include "object_hasher.h"

#include "checked_sha1.h"

#include <cstring>

namespace packmoor::gitlayer {

bool ObjectHasher::available() { return hasSha1Kernel(); }

ObjectHasher::ObjectHasher(ObjectType type, uint64_t bytes) : state_(kSha1Start) {
  filled_ = writeObjectPrefix(type, bytes, held_);
  bytes_ = filled_;
}

bool ObjectHasher::update(kj::ArrayPtr<const kj::byte> piece) {
  CheckedBlocks blocks;
  blocks.state = state_;
  bytes_ += piece.size();
  const size_t first = kj::min(kSha1BlockBytes - filled_, piece.size());
  if (first > 0) memcpy(held_ + filled_, piece.begin(), first);
  filled_ += first;
  if (filled_ < kSha1BlockBytes) return true;
  piece = piece.slice(first, piece.size());
  const size_t whole = piece.size() / kSha1BlockBytes;
  if (!blocks.add(held_, 1) || !blocks.add(piece.begin(), whole) || !blocks.done()) return false;
  state_ = blocks.state;
  piece = piece.slice(whole * kSha1BlockBytes, piece.size());
  filled_ = piece.size();
  if (filled_ > 0) memcpy(held_, piece.begin(), filled_);
  return true;
}

bool ObjectHasher::finish(ObjectId& name) {
  CheckedBlocks blocks;
  blocks.state = state_;
  return blocks.finish(held_, filled_, bytes_, name);
}

}  // namespace packmoor::gitlayer
