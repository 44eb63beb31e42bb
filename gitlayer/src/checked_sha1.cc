#include "checked_sha1.h"

#include <kernelio/check.h>

#include <cstring>

namespace packmoor::gitlayer {

namespace {

void storeBig(kj::byte* out, uint64_t value, int bytes) {
  while (bytes-- > 0) *out++ = static_cast<kj::byte>(value >> 8 * bytes);
}

// False: one of the blocks has a partner.
bool addBlocks(Sha1State& state, const kj::byte* blocks, size_t count) {
  while (count > 0) {
    Sha1State before;
    Sha1Run run = runSha1(state, before, blocks, count);
    blocks += run.blocks * kSha1BlockBytes;
    count -= run.blocks;
    if (run.suspects != 0 && hasPartner(before, blocks - kSha1BlockBytes, state, run.suspects)) {
      return false;
    }
  }
  return true;
}

}  // namespace

bool checkedSha1(kj::ArrayPtr<const kj::byte> prefix, kj::ArrayPtr<const kj::byte> data,
                 ObjectId& name) {
  PACKMOOR_CHECK(prefix.size() <= kSha1PrefixBytesMax, "the prefix is shorter than a block");
  const uint64_t bits = (uint64_t(prefix.size()) + data.size()) * 8;
  Sha1State state;
  kj::byte held[2 * kSha1BlockBytes];
  memcpy(held, prefix.begin(), prefix.size());
  size_t filled = prefix.size();
  // The first block is pieced together; the others lie in the data as they are.
  size_t first = kj::min(kSha1BlockBytes - filled, data.size());
  if (first > 0) memcpy(held + filled, data.begin(), first);
  filled += first;
  data = data.slice(first, data.size());
  if (filled == kSha1BlockBytes) {
    if (!addBlocks(state, held, 1)) return false;
    size_t whole = data.size() / kSha1BlockBytes;
    if (!addBlocks(state, data.begin(), whole)) return false;
    data = data.slice(whole * kSha1BlockBytes, data.size());
    filled = data.size();
    if (filled > 0) memcpy(held, data.begin(), filled);
  }
  held[filled++] = 0x80;
  size_t end = filled + 8 <= kSha1BlockBytes ? kSha1BlockBytes : 2 * kSha1BlockBytes;
  memset(held + filled, 0, end - filled);
  storeBig(held + end - 8, bits, 8);
  if (!addBlocks(state, held, end / kSha1BlockBytes)) return false;
  for (size_t i = 0; i < state.words.size(); ++i) storeBig(name.bytes.data() + 4 * i, state.words[i], 4);
  return true;
}

}  // namespace packmoor::gitlayer
