#include "checked_sha1.h"

#include <kernelio/check.h>

#include <charconv>
#include <cstring>
#include <iterator>
#include <string_view>

namespace packmoor::gitlayer {

namespace {

void storeBig(kj::byte* out, uint64_t value, int bytes) {
  while (bytes-- > 0) *out++ = static_cast<kj::byte>(value >> 8 * bytes);
}

}  // namespace

size_t writeObjectPrefix(ObjectType type, uint64_t bytes, kj::byte* out) {
  const std::string_view name = objectTypeName(type);
  char prefix[kSha1PrefixBytesMax];
  memcpy(prefix, name.data(), name.size());
  prefix[name.size()] = ' ';
  char* end = std::to_chars(prefix + name.size() + 1, std::end(prefix), bytes).ptr;
  *end++ = 0;
  memcpy(out, prefix, static_cast<size_t>(end - prefix));
  return static_cast<size_t>(end - prefix);
}

bool CheckedBlocks::add(const kj::byte* blocks, size_t count) {
  while (count > 0) {
    size_t run = kj::min(count, kRunBlocks);
    found_ += runSha1(state, blocks, run, suspects_ + found_);
    blocks += run * kSha1BlockBytes;
    count -= run;
    if (found_ > kRunBlocks && !done()) return false;
  }
  return true;
}

bool CheckedBlocks::done() {
  bool attack = anyHasPartner(kj::arrayPtr(suspects_, found_));
  found_ = 0;
  return !attack;
}

bool CheckedBlocks::finish(kj::byte* last, size_t filled, uint64_t bytes, ObjectId& name) {
  last[filled++] = 0x80;
  size_t end = filled + 8 <= kSha1BlockBytes ? kSha1BlockBytes : 2 * kSha1BlockBytes;
  memset(last + filled, 0, end - filled);
  storeBig(last + end - 8, bytes * 8, 8);
  if (!add(last, end / kSha1BlockBytes) || !done()) return false;
  for (size_t i = 0; i < state.words.size(); ++i) storeBig(name.bytes.data() + 4 * i, state.words[i], 4);
  return true;
}

bool checkedSha1(kj::ArrayPtr<const kj::byte> prefix, kj::ArrayPtr<const kj::byte> data,
                 ObjectId& name) {
  PACKMOOR_CHECK(prefix.size() <= kSha1PrefixBytesMax, "the prefix is shorter than a block");
  const uint64_t bytes = uint64_t(prefix.size()) + data.size();
  CheckedBlocks blocks;
  kj::byte held[2 * kSha1BlockBytes], tail[2 * kSha1BlockBytes];
  if (prefix.size() > 0) memcpy(held, prefix.begin(), prefix.size());
  size_t filled = prefix.size();
  // The first block is pieced together; the others lie in the data as they are.
  size_t first = kj::min(kSha1BlockBytes - filled, data.size());
  if (first > 0) memcpy(held + filled, data.begin(), first);
  filled += first;
  data = data.slice(first, data.size());
  kj::byte* last = held;
  if (filled == kSha1BlockBytes) {
    size_t whole = data.size() / kSha1BlockBytes;
    if (!blocks.add(held, 1) || !blocks.add(data.begin(), whole)) return false;
    data = data.slice(whole * kSha1BlockBytes, data.size());
    last = tail;
    filled = data.size();
    if (filled > 0) memcpy(tail, data.begin(), filled);
  }
  return blocks.finish(last, filled, bytes, name);
}

}  // namespace packmoor::gitlayer
