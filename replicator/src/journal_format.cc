#include "replicator/journal_format.h"

#include <kj/debug.h>

#include <cstring>

namespace packmoor::replicator::format {

namespace {

template <typename T>
T load(kj::ArrayPtr<const kj::byte> bytes) {
  static_assert(std::is_trivially_copyable_v<T>);
  T value;
  std::memcpy(&value, bytes.begin(), sizeof value);
  return value;
}

template <typename T>
kj::ArrayPtr<const kj::byte> rawBytes(const T& value, size_t count = sizeof(T)) {
  return kj::arrayPtr(reinterpret_cast<const kj::byte*>(&value), count);
}

template <typename T>
T loadContent(const EntryHeader& header, kj::ArrayPtr<const kj::byte> content) {
  KJ_REQUIRE(header.contentBytes == sizeof(T), "A journal entry has the wrong size.",
             static_cast<unsigned>(header.kind), header.contentBytes);
  return load<T>(content);
}

FencePromise toPromise(const PromiseContent& content) {
  return FencePromise{Epoch(content.epoch), content.nonce};
}

}  // namespace

// ---- Encoding -----------------------------------------------------------------------------------

size_t recordEntryBytes(const Record& record) {
  return entryBytes(sizeof(RecordContent) + record.extents.size() * sizeof(ExtentId) +
                    record.payload.size());
}

kj::byte* BodyWriter::begin(EntryKind kind, uint8_t flags, const VolumeId& volume,
                            size_t contentBytes) {
  EntryHeader header{};
  header.kind = kind;
  header.flags = flags;
  header.contentBytes = static_cast<uint32_t>(contentBytes);
  header.volume = volume;
  kj::byte* at = room_.begin() + used_;
  std::memcpy(at, &header, sizeof header);
  used_ += entryBytes(contentBytes);  // the padding is zero: the room was zeroed
  ++count_;
  return at + sizeof header;
}

size_t BodyWriter::addRecord(const VolumeId& volume, const Record& record) {
  const size_t offset = used_;
  const size_t extentBytes = record.extents.size() * sizeof(ExtentId);
  kj::byte* at = begin(EntryKind::kRecord, 0, volume,
                       sizeof(RecordContent) + extentBytes + record.payload.size());
  RecordContent content{};
  content.index = record.index.value;
  content.epoch = record.epoch.value;
  content.previousHash = record.previousHash;
  content.hash = record.hash;
  content.kind = static_cast<uint16_t>(record.kind);
  content.extentCount = static_cast<uint32_t>(record.extents.size());
  content.payloadBytes = static_cast<uint32_t>(record.payload.size());
  std::memcpy(at, &content, sizeof content);
  if (extentBytes > 0) std::memcpy(at + sizeof content, record.extents.data(), extentBytes);
  if (record.payload.size() > 0) {
    std::memcpy(at + sizeof content + extentBytes, record.payload.begin(), record.payload.size());
  }
  return offset;
}

size_t BodyWriter::add(EntryKind kind, uint8_t flags, const VolumeId& volume,
                       kj::ArrayPtr<const kj::byte> content) {
  const size_t offset = used_;
  kj::byte* at = begin(kind, flags, volume, content.size());
  if (content.size() > 0) std::memcpy(at, content.begin(), content.size());
  return offset;
}

void sealHeader(FrameHeader& header, kj::ArrayPtr<const kj::byte> body) {
  header.magic = kFrameMagic;
  header.version = kJournalVersion;
  header.bodyBytes = body.size();
  header.bodyHash = hashBytes(body);
  header.reserved = 0;
  header.headerHash = hashBytes(rawBytes(header, offsetof(FrameHeader, headerHash)));
}

void sealMarker(MarkerSlot& slot) {
  slot.magic = kMarkerMagic;
  slot.version = kJournalVersion;
  slot.reserved = 0;
  slot.hash = hashBytes(rawBytes(slot, offsetof(MarkerSlot, hash)));
}

// ---- Decoding -----------------------------------------------------------------------------------

bool parseHeader(kj::ArrayPtr<const kj::byte> bytes, const JournalIdentity& identity,
                 FrameHeader& out) {
  if (bytes.size() < sizeof(FrameHeader)) return false;
  if (load<uint64_t>(bytes) != kFrameMagic) return false;
  out = load<FrameHeader>(bytes);
  if (identity.known() && (out.journal != identity.journal || out.salt != identity.salt)) {
    return false;
  }
  if (hashBytes(bytes.slice(0, offsetof(FrameHeader, headerHash))) != out.headerHash) return false;
  KJ_REQUIRE(out.version == kJournalVersion && (out.flags & ~kFrameFlagsKnown) == 0,
             "The journal was written by a newer version of Packmoor; run that version.",
             out.version, out.flags);
  return true;
}

bool bodyIsIntact(const FrameHeader& header, kj::ArrayPtr<const kj::byte> body) {
  return body.size() == header.bodyBytes && hashBytes(body) == header.bodyHash;
}

bool parseMarker(kj::ArrayPtr<const kj::byte> bytes, MarkerSlot& out) {
  if (bytes.size() < sizeof(MarkerSlot)) return false;
  out = load<MarkerSlot>(bytes);
  if (out.magic != kMarkerMagic) return false;
  if (hashBytes(bytes.slice(0, offsetof(MarkerSlot, hash))) != out.hash) return false;
  KJ_REQUIRE(out.version == kJournalVersion,
             "The journal was written by a newer version of Packmoor; run that version.",
             out.version);
  return true;
}

namespace {

void parseRecord(const EntryHeader& header, kj::ArrayPtr<const kj::byte> content, Entry& entry) {
  KJ_REQUIRE(content.size() >= sizeof(RecordContent), "A journal record is too short.",
             content.size());
  entry.record = load<RecordContent>(content);
  const uint64_t extentBytes = uint64_t{entry.record.extentCount} * sizeof(ExtentId);
  KJ_REQUIRE(content.size() == sizeof(RecordContent) + extentBytes + entry.record.payloadBytes,
             "A journal record's sizes do not add up.", content.size(), entry.record.extentCount,
             entry.record.payloadBytes);
  auto rest = content.slice(sizeof(RecordContent), content.size());
  entry.extents = rest.slice(0, extentBytes);
  entry.payload = rest.slice(extentBytes, rest.size());
}

void parseFacts(const EntryHeader& header, kj::ArrayPtr<const kj::byte> content, Entry& entry) {
  auto facts = loadContent<FactsContent>(header, content);
  entry.promise = toPromise(facts.promise);
  entry.checkpoint = fromContent(facts.checkpoint);
  entry.last = fromContent(facts.last);
}

}  // namespace

Entry parseEntry(kj::ArrayPtr<const kj::byte> body, size_t& offset) {
  KJ_REQUIRE(offset <= body.size() && body.size() - offset >= sizeof(EntryHeader),
             "A journal batch ends inside an entry.", offset, body.size());
  const auto header = load<EntryHeader>(body.slice(offset, body.size()));
  const size_t bytes = entryBytes(header.contentBytes);
  KJ_REQUIRE(body.size() - offset >= bytes, "A journal batch ends inside an entry.", offset,
             header.contentBytes, body.size());
  auto content = body.slice(offset + sizeof header, offset + sizeof header + header.contentBytes);

  Entry entry;
  entry.kind = header.kind;
  entry.volume = header.volume;
  entry.offset = offset;
  entry.bytes = bytes;
  entry.replace = (header.flags & kEntryReplace) != 0;
  entry.suspect = (header.flags & kEntrySuspect) != 0;
  offset += bytes;

  switch (header.kind) {
    case EntryKind::kRecord:
      parseRecord(header, content, entry);
      return entry;
    case EntryKind::kTruncate:
    case EntryKind::kCheckpoint:
      entry.position = fromContent(loadContent<PositionContent>(header, content));
      return entry;
    case EntryKind::kPromise:
      entry.promise = toPromise(loadContent<PromiseContent>(header, content));
      return entry;
    case EntryKind::kFacts:
      parseFacts(header, content, entry);
      return entry;
    case EntryKind::kDrop:
    case EntryKind::kWhole:
      KJ_REQUIRE(content.size() == 0, "A journal entry has the wrong size.", content.size());
      return entry;
  }
  KJ_FAIL_REQUIRE("The journal holds an entry of a kind that this version of Packmoor does not "
                  "know; run the version that wrote it.",
                  static_cast<unsigned>(header.kind));
}

RecordRef toRecord(const Entry& entry) {
  std::vector<ExtentId> extents(entry.record.extentCount);
  if (!extents.empty()) {
    std::memcpy(extents.data(), entry.extents.begin(), entry.extents.size());
  }
  return makeRecord(RecordIndex(entry.record.index), Epoch(entry.record.epoch),
                    entry.record.previousHash, RecordKind(entry.record.kind), std::move(extents),
                    kj::heapArray<const kj::byte>(entry.payload));
}

}  // namespace packmoor::replicator::format
