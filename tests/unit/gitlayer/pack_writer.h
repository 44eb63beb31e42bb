// Packs entry by entry, with whatever headers and deltas a test wants.
#pragma once

#include "gitlayer/object_id.h"
#include "gitlayer/pack_format.h"
#include "gitlayer/zlib_codec.h"
#include "sha1_stream.h"

#include <string>
#include <string_view>

namespace packmoor::gitlayer::test {

inline kj::ArrayPtr<const kj::byte> bytesOf(std::string_view text) {
  return kj::arrayPtr(reinterpret_cast<const kj::byte*>(text.data()), text.size());
}
inline std::string textOf(kj::ArrayPtr<const kj::byte> bytes) {
  return std::string(reinterpret_cast<const char*>(bytes.begin()), bytes.size());
}

class PackWriter {
 public:
  // Each returns where the entry begins.
  size_t add(ObjectType type, std::string_view data) {
    PackEntryHeader header;
    header.type = entryTypeOf(type);
    header.bytes = data.size();
    return addRaw(header, textOf(deflater_.deflate(bytesOf(data))));
  }
  size_t addDelta(size_t base, std::string_view delta) {
    PackEntryHeader header;
    header.type = PackEntryType::kOfsDelta;
    header.bytes = delta.size();
    header.baseDistance = body_.size() - base;
    return addRaw(header, textOf(deflater_.deflate(bytesOf(delta))));
  }
  // A header that may lie about the zlib stream behind it.
  size_t addRaw(const PackEntryHeader& header, std::string_view stream) {
    kj::byte encoded[kEntryHeaderBytesMax];
    const size_t at = body_.size();
    body_ += textOf(kj::arrayPtr(encoded, encodeEntryHeader(encoded, header)));
    body_ += stream;
    ++count_;
    return at;
  }
  std::string finish() const { return finish(count_); }
  std::string finish(uint32_t claimed) const {
    std::string pack = body_;
    encodePackHeader(reinterpret_cast<kj::byte*>(pack.data()), claimed);
    Sha1Stream sha1;
    sha1.update(bytesOf(pack));
    const ObjectId trailer = sha1.finish();
    return pack + textOf(kj::arrayPtr(trailer.bytes.data(), kOidBytes));
  }

 private:
  Deflater deflater_;
  std::string body_ = std::string(kPackHeaderBytes, '\0');
  uint32_t count_ = 0;
};

// A delta of `copies` times the whole base, which is shorter than 64 KiB, and then `tail`.
inline std::string deltaOf(size_t baseBytes, size_t copies, std::string_view tail) {
  std::string delta;
  auto number = [&delta](uint64_t value) {
    for (; value >= 0x80; value >>= 7) delta.push_back(static_cast<char>(value | 0x80));
    delta.push_back(static_cast<char>(value));
  };
  number(baseBytes);
  number(baseBytes * copies + tail.size());
  for (size_t i = 0; i < copies; ++i) {
    delta += "\xb0";
    delta.push_back(static_cast<char>(baseBytes));
    delta.push_back(static_cast<char>(baseBytes >> 8));
  }
  if (tail.empty()) return delta;
  delta.push_back(static_cast<char>(tail.size()));
  return delta.append(tail);
}

}  // namespace packmoor::gitlayer::test
