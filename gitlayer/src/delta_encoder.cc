#include "gitlayer/delta_encoder.h"

#include <kj/vector.h>

#include <algorithm>
#include <cstdint>
#include <cstring>
#include <vector>

namespace packmoor::gitlayer {
namespace {

constexpr size_t kBlockBytes = 16;
constexpr uint32_t kCandidatesMax = 16;
constexpr size_t kLongEnough = 4096;      // no better candidate is looked for
constexpr size_t kInsertMax = 127;
constexpr size_t kCopyMax = 0xffff;
constexpr uint32_t kNone = UINT32_MAX;

uint64_t load(const kj::byte* at) {
  uint64_t value;
  memcpy(&value, at, sizeof value);
  return value;
}

// Where each block of the base lies; equal blocks in order.
class BlockTable {
 public:
  explicit BlockTable(kj::ArrayPtr<const kj::byte> base) {
    size_t blocks = base.size() / kBlockBytes;
    while ((size_t(1) << bits_) < blocks) ++bits_;
    first_.assign(size_t(1) << bits_, kNone);
    next_.resize(blocks);
    for (size_t block = blocks; block-- > 0;) {
      uint32_t& slot = first_[hash(base.begin() + block * kBlockBytes)];
      next_[block] = slot;
      slot = static_cast<uint32_t>(block);
    }
  }
  uint32_t first(const kj::byte* block) const { return first_[hash(block)]; }
  uint32_t next(uint32_t block) const { return next_[block]; }

 private:
  size_t hash(const kj::byte* at) const {
    uint64_t mixed = (load(at) * 0x9e3779b97f4a7c15u) ^ (load(at + 8) * 0xc2b2ae3d27d4eb4fu);
    return (mixed * 0x165667b19e3779f9u) >> (64 - bits_);
  }

  int bits_ = 1;
  std::vector<uint32_t> first_, next_;
};

class DeltaWriter {
 public:
  explicit DeltaWriter(size_t bytesMax) : bytesMax_(bytesMax) {}

  void size(size_t value) {
    for (; value >= 0x80; value >>= 7) bytes_.add(static_cast<kj::byte>(0x80 | (value & 0x7f)));
    bytes_.add(static_cast<kj::byte>(value));
  }
  void insert(kj::ArrayPtr<const kj::byte> literal) {
    for (size_t at = 0; at < literal.size() && !tooLong(); at += kInsertMax) {
      auto piece = literal.slice(at, std::min(at + kInsertMax, literal.size()));
      bytes_.add(static_cast<kj::byte>(piece.size()));
      bytes_.addAll(piece);
    }
  }
  void copy(size_t offset, size_t length) {
    for (size_t piece; length > 0 && !tooLong(); length -= piece, offset += piece) {
      piece = std::min(length, kCopyMax);
      size_t command = bytes_.size();
      kj::byte bits = 0x80;
      bytes_.add(bits);
      for (int i = 0; i < 4; ++i) addPart(offset >> 8 * i, i, bits);
      for (int i = 0; i < 2; ++i) addPart(piece >> 8 * i, 4 + i, bits);
      bytes_[command] = bits;
    }
  }
  bool tooLong() const { return bytes_.size() > bytesMax_; }
  kj::Array<kj::byte> finish() { return bytes_.releaseAsArray(); }

 private:
  void addPart(size_t value, int bit, kj::byte& bits) {
    auto part = static_cast<kj::byte>(value & 0xff);
    if (part == 0) return;
    bytes_.add(part);
    bits = static_cast<kj::byte>(bits | 1u << bit);
  }

  size_t bytesMax_;
  kj::Vector<kj::byte> bytes_;
};

size_t commonPrefix(const kj::byte* a, const kj::byte* b, size_t most) {
  size_t length = 0;
  while (length + 8 <= most && load(a + length) == load(b + length)) length += 8;
  while (length < most && a[length] == b[length]) ++length;
  return length;
}

}  // namespace

kj::Maybe<kj::Array<kj::byte>> makeDelta(kj::ArrayPtr<const kj::byte> base,
                                         kj::ArrayPtr<const kj::byte> target, size_t bytesMax) {
  if (base.size() > kDeltaObjectBytesMax || target.size() > kDeltaObjectBytesMax) return nullptr;
  if (base.size() < kBlockBytes || target.size() < kBlockBytes) return nullptr;
  BlockTable table(base);
  DeltaWriter out(bytesMax);
  out.size(base.size());
  out.size(target.size());
  size_t written = 0;   // of the target
  for (size_t at = 0; at + kBlockBytes <= target.size() && !out.tooLong();) {
    size_t bestOffset = 0, bestLength = 0;
    uint32_t block = table.first(target.begin() + at);
    for (uint32_t tried = 0; block != kNone && tried < kCandidatesMax && bestLength < kLongEnough;
         ++tried, block = table.next(block)) {
      size_t offset = size_t(block) * kBlockBytes;
      size_t length = commonPrefix(base.begin() + offset, target.begin() + at,
                                   std::min(base.size() - offset, target.size() - at));
      if (length > bestLength) {
        bestOffset = offset;
        bestLength = length;
      }
    }
    if (bestLength < kBlockBytes) {
      ++at;
      continue;
    }
    while (at > written && bestOffset > 0 && base[bestOffset - 1] == target[at - 1]) {
      --at;
      --bestOffset;
      ++bestLength;
    }
    out.insert(target.slice(written, at));
    out.copy(bestOffset, bestLength);
    at += bestLength;
    written = at;
  }
  out.insert(target.slice(written, target.size()));
  if (out.tooLong()) return nullptr;
  return out.finish();
}

}  // namespace packmoor::gitlayer
