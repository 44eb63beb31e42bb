#include "checkpoint_manifest.h"

#include "kernelio/check.h"

#include <replicator/replicator_records.pb.h>

#include <kj/debug.h>

#include <cstring>
#include <limits>
#include <set>

namespace packmoor::replicator {

namespace {

constexpr size_t kHashBytes = 16;
static_assert(sizeof(Hash128) == kHashBytes);

std::string hashText(const Hash128& hash) {
  return std::string(reinterpret_cast<const char*>(&hash), kHashBytes);
}

Hash128 hashAt(const std::string& bytes, size_t offset) {
  Hash128 hash;
  std::memcpy(&hash, bytes.data() + offset, kHashBytes);
  return hash;
}

Uuid uuidOf(const std::string& bytes) {
  return Uuid::fromBytes(kj::arrayPtr(reinterpret_cast<const kj::byte*>(bytes.data()),
                                      bytes.size()));
}

std::string uuidText(const Uuid& id) {
  return std::string(reinterpret_cast<const char*>(id.bytes.data()), id.bytes.size());
}

void encodePosition(const LogPosition& position, pb::Position& out) {
  out.set_index(position.index.value);
  out.set_epoch(position.epoch.value);
  out.set_hash(hashText(position.hash));
}

LogPosition decodePosition(const pb::Position& in) {
  KJ_REQUIRE(in.hash().size() == kHashBytes, "a position without a hash");
  return LogPosition{RecordIndex(in.index()), Epoch(in.epoch()), hashAt(in.hash(), 0)};
}

bool isFileName(const std::string& name) {
  return !name.empty() && name.size() <= 255 && name != "." && name != ".." &&
         name.find('/') == std::string::npos && name.find('\0') == std::string::npos;
}

template <typename Message>
kj::Array<kj::byte> serialize(const Message& message) {
  auto bytes = kj::heapArray<kj::byte>(message.ByteSizeLong());
  const bool encoded = message.SerializeToArray(bytes.begin(), static_cast<int>(bytes.size()));
  PACKMOOR_CHECK(encoded, "encoding a checkpoint's manifest");
  return bytes;
}

template <typename Message>
bool parse(kj::ArrayPtr<const kj::byte> bytes, Message& message) {
  return bytes.size() <= size_t(std::numeric_limits<int>::max()) &&
         message.ParseFromArray(bytes.begin(), static_cast<int>(bytes.size()));
}

CheckpointFile decodeFile(const pb::CheckpointManifest::File& in) {
  CheckpointFile file{in.name(), in.bytes(), {}};
  KJ_REQUIRE(isFileName(file.name), "a checkpoint's manifest names a file that cannot be");
  const size_t count = in.blocks().size() / kHashBytes;
  KJ_REQUIRE(in.blocks().size() % kHashBytes == 0 && count == blockCount(file.bytes),
             "a checkpoint's manifest has not one checksum for each block of a file",
             file.name.c_str());
  file.blocks.reserve(count);
  for (size_t i = 0; i < count; ++i) file.blocks.push_back(hashAt(in.blocks(), i * kHashBytes));
  return file;
}

}  // namespace

uint64_t CheckpointManifest::fileBytes() const {
  uint64_t bytes = 0;
  for (const CheckpointFile& file : files) bytes += file.bytes;
  return bytes;
}

uint64_t CheckpointManifest::extentBytes() const {
  uint64_t bytes = 0;
  for (const ExtentInfo& extent : extents) bytes += extent.bytes;
  return bytes;
}

kj::Array<kj::byte> encodeManifest(const CheckpointManifest& manifest) {
  pb::CheckpointManifest message;
  encodePosition(manifest.position, *message.mutable_position());
  for (const CheckpointFile& file : manifest.files) {
    auto& out = *message.add_files();
    out.set_name(file.name);
    out.set_bytes(file.bytes);
    out.set_blocks(reinterpret_cast<const char*>(file.blocks.data()),
                   file.blocks.size() * kHashBytes);
  }
  for (const ExtentInfo& extent : manifest.extents) {
    auto& out = *message.add_extents();
    out.set_id(uuidText(extent.id));
    out.set_bytes(extent.bytes);
    out.set_root(hashText(extent.root));
  }
  return serialize(message);
}

CheckpointManifest decodeManifest(kj::ArrayPtr<const kj::byte> bytes) {
  pb::CheckpointManifest message;
  KJ_REQUIRE(bytes.size() <= kManifestBytesMax && parse(bytes, message),
             "a checkpoint's manifest is damaged or of a later version", bytes.size());
  KJ_REQUIRE(static_cast<size_t>(message.files_size()) <= kCheckpointFilesMax,
             "a checkpoint's manifest names too many files", message.files_size());
  CheckpointManifest manifest;
  manifest.position = decodePosition(message.position());
  std::set<std::string> names;
  for (const auto& in : message.files()) {
    manifest.files.push_back(decodeFile(in));
    KJ_REQUIRE(names.insert(in.name()).second, "a checkpoint's manifest names a file twice",
               in.name().c_str());
  }
  for (const auto& in : message.extents()) {
    KJ_REQUIRE(in.id().size() == 16 && in.root().size() == kHashBytes,
               "a checkpoint's manifest names an extent that cannot be");
    manifest.extents.push_back(ExtentInfo{uuidOf(in.id()), in.bytes(), hashAt(in.root(), 0)});
  }
  return manifest;
}

kj::Array<kj::byte> encodeTransferNote(const TransferNote& note) {
  pb::TransferNote message;
  message.set_source(note.source);
  message.set_checkpoint(uuidText(note.checkpoint));
  encodePosition(note.position, *message.mutable_position());
  return serialize(message);
}

kj::Maybe<TransferNote> decodeTransferNote(kj::ArrayPtr<const kj::byte> bytes) {
  pb::TransferNote message;
  if (!parse(bytes, message) || message.checkpoint().size() != 16 ||
      message.position().hash().size() != kHashBytes) {
    return nullptr;
  }
  return TransferNote{message.source(), uuidOf(message.checkpoint()),
                      decodePosition(message.position())};
}

}  // namespace packmoor::replicator
