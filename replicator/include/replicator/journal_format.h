// The journal's bytes on disk: layout, validity, and the order in which they are written.
//
// Files in the journal's folder:
//   marker             ring of kMarkerSlots slots of 4 KiB; its presence means "a journal is here"
//   segment-NNNNNN     pre-written files of equal size, used as segments and reused; the number
//                      is only a name, the frames inside say which segment it is at present
//   prepare-NNNNNN, marker.new   being written; removed when the journal is opened
//
// A segment is a run of frames from offset 0, each starting on a 4 KiB boundary, none crossing
// the segment's end. One frame is one batch: FrameHeader, then `bodyBytes` of entries, then zeros
// to the boundary. The first frame of a segment, and the first that a process writes, is a
// snapshot: before anything else it holds one kFacts entry for every volume, so a segment can be
// recycled without losing any volume's promise, checkpoint or last position, and a reader that
// begins here needs nothing older.
//
// A frame is valid at an offset of segment S when magic and version are right, headerHash fits
// the header, journal and salt are this journal's, segmentSequence is S, the frame fits in the
// segment, and bodyHash fits the body. It continues the journal when also batchSequence is one
// more than, and previousHash is the headerHash of, the frame before. The salt is random and is
// never shown: user data inside a body cannot imitate a frame.
//
// Write order: a frame is written only when the one before is durable. Hence of all frames only
// the last can be torn, and any header with a later sequence proves a frame acknowledged. The
// frame after the last continuing one is
//   - absent or torn, if the marker does not know its sequence, no valid header has a later
//     one, and its sectors can be read: it was never acknowledged, and it is cut by writing
//     over it;
//   - rotten otherwise: what it held was acknowledged and is lost here. The process then goes on
//     in a new segment, so that the evidence stays until the snapshot that says so is durable.
// Stale frames of a segment's earlier use have an older segmentSequence.
//
// An entry is EntryHeader, its content (see EntryKind), zeros to 8 bytes. Numbers are
// little-endian. A reader refuses a version or an entry kind that it does not know.
#pragma once

#include "replicator/journal.h"

namespace packmoor::replicator::format {

static_assert(__BYTE_ORDER__ == __ORDER_LITTLE_ENDIAN__, "formats are little-endian");

constexpr size_t kFrameAlignment = 4096;
constexpr uint16_t kJournalVersion = 1;

constexpr uint64_t kFrameMagic = 0x454d4152464a4d50;   // "PMJFRAME"
constexpr uint64_t kMarkerMagic = 0x4b52414d4c4a4d50;  // "PMJLMARK"

enum FrameFlags : uint16_t {
  kFrameSnapshot = 1,       // begins with a kFacts entry for every volume that exists
  kFrameMayMissVolumes = 2  // rot ate frames that may have named volumes unknown to the writer
};
constexpr uint16_t kFrameFlagsKnown = 3;

struct FrameHeader {
  uint64_t magic;
  uint16_t version;
  uint16_t flags;
  uint32_t entryCount;
  Uuid journal;
  uint64_t salt;
  uint64_t segmentSequence;  // from 1
  uint64_t batchSequence;    // from 1
  Hash128 previousHash;      // headerHash of the frame before; zeros before the first
  uint64_t bodyBytes;
  int64_t wallMs;            // when it was written, for people only
  Hash128 bodyHash;          // XXH3-128 of the body
  uint64_t reserved;         // zero
  Hash128 headerHash;        // XXH3-128 of the 112 bytes before
};
static_assert(offsetof(FrameHeader, version) == 8);
static_assert(offsetof(FrameHeader, flags) == 10);
static_assert(offsetof(FrameHeader, entryCount) == 12);
static_assert(offsetof(FrameHeader, journal) == 16);
static_assert(offsetof(FrameHeader, salt) == 32);
static_assert(offsetof(FrameHeader, segmentSequence) == 40);
static_assert(offsetof(FrameHeader, batchSequence) == 48);
static_assert(offsetof(FrameHeader, previousHash) == 56);
static_assert(offsetof(FrameHeader, bodyBytes) == 72);
static_assert(offsetof(FrameHeader, wallMs) == 80);
static_assert(offsetof(FrameHeader, bodyHash) == 88);
static_assert(offsetof(FrameHeader, headerHash) == 112);
static_assert(sizeof(FrameHeader) == 128);

// Values are on disk for ever.
enum class EntryKind : uint8_t {
  kRecord = 1,      // RecordContent, extents (16 bytes each), payload
  kTruncate = 2,    // PositionContent: the log ends here from now on
  kPromise = 3,     // PromiseContent
  kCheckpoint = 4,  // PositionContent; flag kEntryReplace: the log continues from here
  kDrop = 5,        // nothing: the volume is forgotten
  kFacts = 6,       // FactsContent; only at the start of a snapshot; flag kEntrySuspect
  kWhole = 7,       // nothing: the volume has been repaired
};
enum EntryFlags : uint8_t { kEntryReplace = 1, kEntrySuspect = 2 };

struct EntryHeader {
  EntryKind kind;
  uint8_t flags;
  uint16_t reserved;      // zero
  uint32_t contentBytes;  // without padding
  VolumeId volume;
};
static_assert(offsetof(EntryHeader, contentBytes) == 4);
static_assert(offsetof(EntryHeader, volume) == 8);
static_assert(sizeof(EntryHeader) == 24);

struct RecordContent {
  uint64_t index;
  uint64_t epoch;
  Hash128 previousHash;
  Hash128 hash;
  uint16_t kind;
  uint16_t reserved;  // zero
  uint32_t extentCount;
  uint32_t payloadBytes;
  uint32_t reserved2;  // zero
};
static_assert(offsetof(RecordContent, previousHash) == 16);
static_assert(offsetof(RecordContent, hash) == 32);
static_assert(offsetof(RecordContent, kind) == 48);
static_assert(offsetof(RecordContent, extentCount) == 52);
static_assert(offsetof(RecordContent, payloadBytes) == 56);
static_assert(sizeof(RecordContent) == 64);

struct PositionContent {
  uint64_t index;
  uint64_t epoch;
  Hash128 hash;
};
static_assert(sizeof(PositionContent) == 32);

struct PromiseContent {
  uint64_t epoch;
  Uuid nonce;
};
static_assert(sizeof(PromiseContent) == 24);

struct FactsContent {
  PromiseContent promise;
  PositionContent checkpoint;
  PositionContent last;
};
static_assert(offsetof(FactsContent, checkpoint) == 24);
static_assert(offsetof(FactsContent, last) == 56);
static_assert(sizeof(FactsContent) == 88);

// The marker. Slot `counter % kMarkerSlots` is overwritten by a durable write, so one torn slot
// leaves the others. The largest batch sequence in any valid slot is known to be acknowledged.
constexpr size_t kMarkerSlots = 8;
constexpr size_t kMarkerSlotBytes = 4096;
enum MarkerFlags : uint16_t { kMarkerClosed = 1 };  // the journal was closed after that batch

struct MarkerSlot {
  uint64_t magic;
  uint16_t version;
  uint16_t flags;
  uint32_t reserved;  // zero
  Uuid journal;
  uint64_t salt;
  uint64_t counter;
  uint64_t batchSequence;
  uint64_t segmentBytes;
  int64_t wallMs;
  Hash128 hash;  // XXH3-128 of the 72 bytes before
};
static_assert(offsetof(MarkerSlot, journal) == 16);
static_assert(offsetof(MarkerSlot, salt) == 32);
static_assert(offsetof(MarkerSlot, counter) == 40);
static_assert(offsetof(MarkerSlot, batchSequence) == 48);
static_assert(offsetof(MarkerSlot, segmentBytes) == 56);
static_assert(offsetof(MarkerSlot, hash) == 72);
static_assert(sizeof(MarkerSlot) == 88);

constexpr uint64_t roundUp(uint64_t value, uint64_t to) { return (value + to - 1) / to * to; }
constexpr uint64_t frameBytes(uint64_t bodyBytes) {
  return roundUp(sizeof(FrameHeader) + bodyBytes, kFrameAlignment);
}
constexpr size_t entryBytes(size_t contentBytes) {
  return roundUp(sizeof(EntryHeader) + contentBytes, 8);
}

inline PositionContent toContent(const LogPosition& p) {
  return {p.index.value, p.epoch.value, p.hash};
}
inline LogPosition fromContent(const PositionContent& p) {
  return {RecordIndex(p.index), Epoch(p.epoch), p.hash};
}

// ---- Encoding: into memory that the caller has sized ------------------------------------------

size_t recordEntryBytes(const Record& record);

// Appends entries to a body. The caller gives room for all; nothing is checked in between.
class BodyWriter {
 public:
  explicit BodyWriter(kj::ArrayPtr<kj::byte> room) : room_(room) {}
  // Offset of the entry in the body.
  size_t addRecord(const VolumeId& volume, const Record& record);
  size_t add(EntryKind kind, uint8_t flags, const VolumeId& volume,
             kj::ArrayPtr<const kj::byte> content);
  size_t bytes() const { return used_; }
  uint32_t count() const { return count_; }

 private:
  kj::byte* begin(EntryKind kind, uint8_t flags, const VolumeId& volume, size_t contentBytes);

  kj::ArrayPtr<kj::byte> room_;
  size_t used_ = 0;
  uint32_t count_ = 0;
};

// Fills magic, version, bodyHash and headerHash; the other fields are the caller's.
void sealHeader(FrameHeader& header, kj::ArrayPtr<const kj::byte> body);
void sealMarker(MarkerSlot& slot);

// ---- Decoding: bytes are anything ---------------------------------------------------------------

// Whose frames are looked for. A null journal or a zero salt matches any.
struct JournalIdentity {
  Uuid journal;
  uint64_t salt = 0;
  bool known() const { return !journal.isNull(); }
};

// True: the header at the start of `bytes` is intact and belongs to `identity`. Says nothing about
// segment, place and body. Throws when it is intact but of a version that is not known.
bool parseHeader(kj::ArrayPtr<const kj::byte> bytes, const JournalIdentity& identity,
                 FrameHeader& out);
bool bodyIsIntact(const FrameHeader& header, kj::ArrayPtr<const kj::byte> body);
bool parseMarker(kj::ArrayPtr<const kj::byte> bytes, MarkerSlot& out);

// One entry, as views into the body. Only the fields of its kind are set.
struct Entry {
  EntryKind kind{};
  bool replace = false, suspect = false;
  VolumeId volume;
  size_t offset = 0, bytes = 0;  // in the body, with header and padding
  RecordContent record{};
  kj::ArrayPtr<const kj::byte> extents, payload;
  LogPosition position;          // kTruncate, kCheckpoint
  FencePromise promise;          // kPromise, kFacts
  LogPosition checkpoint, last;  // kFacts
};

// Reads the entry at `offset` of an intact body and moves `offset` behind it. Throws a sentence
// when it does not decode: an intact body holds only what a writer put there, so this is a
// version that is not known, or a bug.
Entry parseEntry(kj::ArrayPtr<const kj::byte> body, size_t& offset);

// The record of a kRecord entry. Its hash is computed anew, not taken from the entry.
RecordRef toRecord(const Entry& entry);

}  // namespace packmoor::replicator::format
