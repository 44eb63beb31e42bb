// What every way of building a pack shares: bytes go to the sink, are counted and hashed; entries
// are copied in pieces so that a huge one does not swell a slice.
#pragma once

#include "gitlayer/pack_builder.h"
#include "gitlayer/pack_format.h"
#include "gitlayer/zlib_codec.h"

#include "sha1_stream.h"

namespace packmoor::gitlayer {

class PackStreamWriter : public PackBuilder {
 public:
  bool produce(PackSink& sink, size_t bytes) final;

 protected:
  explicit PackStreamWriter(uint32_t objectCount) { statistics_.objects = objectCount; }

  // Begins the next entry, by calls of the functions below. False: there is none left.
  virtual bool next() = 0;

  uint64_t offset() const { return statistics_.bytes; }
  void header(const PackEntryHeader& header);
  // Written before next() is called again; `keepAlive` holds the bytes until then.
  void body(kj::ArrayPtr<const kj::byte> bytes, std::shared_ptr<const void> keepAlive = nullptr);
  // A whole object from its inflated form.
  void deflateAnew(const Object& object);
  // A new delta; the entry says of what.
  void deflateDelta(PackEntryHeader entry, kj::ArrayPtr<const kj::byte> delta);

 private:
  void deflateBody(kj::ArrayPtr<const kj::byte> inflated);
  void emit(kj::ArrayPtr<const kj::byte> bytes);

  enum class Phase : uint8_t { kHeader, kEntries, kDone } phase_ = Phase::kHeader;
  PackSink* sink_ = nullptr;  // during produce()
  kj::ArrayPtr<const kj::byte> rest_;
  std::shared_ptr<const void> keepAlive_;
  Sha1Stream sha1_;
  std::unique_ptr<Deflater> deflater_;
};

}  // namespace packmoor::gitlayer
