#include "pack_stream_writer.h"

#include <algorithm>

namespace packmoor::gitlayer {
namespace {

constexpr size_t kCopyBytes = 32u << 10;
constexpr int kDeflateLevel = 3;

}  // namespace

bool PackStreamWriter::produce(PackSink& sink, size_t bytes) {
  sink_ = &sink;
  KJ_DEFER(sink_ = nullptr);
  uint64_t until = offset() + bytes;
  if (phase_ == Phase::kHeader) {
    kj::byte header[kPackHeaderBytes];
    encodePackHeader(header, statistics_.objects);
    emit(header);
    phase_ = Phase::kEntries;
  }
  while (phase_ == Phase::kEntries && offset() < until) {
    if (rest_.size() > 0) {
      auto piece = rest_.slice(0, std::min(rest_.size(), kCopyBytes));
      rest_ = rest_.slice(piece.size(), rest_.size());
      emit(piece);
      continue;
    }
    keepAlive_ = nullptr;
    if (next()) continue;
    ObjectId trailer = sha1_.finish();
    sink.write(kj::arrayPtr(trailer.bytes.data(), kOidBytes));
    statistics_.bytes += kOidBytes;
    phase_ = Phase::kDone;
  }
  return phase_ != Phase::kDone;
}

void PackStreamWriter::header(const PackEntryHeader& header) {
  kj::byte bytes[kEntryHeaderBytesMax];
  size_t size = encodeEntryHeader(bytes, header);
  emit(kj::arrayPtr(bytes, size));
}

void PackStreamWriter::body(kj::ArrayPtr<const kj::byte> bytes,
                            std::shared_ptr<const void> keepAlive) {
  rest_ = bytes;
  keepAlive_ = std::move(keepAlive);
}

void PackStreamWriter::deflateAnew(const Object& object) {
  PackEntryHeader entry;
  entry.type = entryTypeOf(object.type);
  entry.bytes = object.data.size();
  header(entry);
  deflateBody(object.data);
}

void PackStreamWriter::deflateDelta(PackEntryHeader entry, kj::ArrayPtr<const kj::byte> delta) {
  entry.bytes = delta.size();
  header(entry);
  deflateBody(delta);
  ++statistics_.deltasAnew;
}

void PackStreamWriter::deflateBody(kj::ArrayPtr<const kj::byte> inflated) {
  if (!deflater_) deflater_ = std::make_unique<Deflater>(kDeflateLevel);
  auto deflated = std::make_shared<kj::Array<const kj::byte>>(deflater_->deflate(inflated));
  auto bytes = deflated->asPtr();
  body(bytes, std::move(deflated));
  ++statistics_.deflatedAnew;
}

void PackStreamWriter::emit(kj::ArrayPtr<const kj::byte> bytes) {
  sha1_.update(bytes);
  sink_->write(bytes);
  statistics_.bytes += bytes.size();
}

}  // namespace packmoor::gitlayer
