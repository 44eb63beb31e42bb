// module: replicator
// Feeds bytes to the journal's scan and replay as the content of segments, and checks what must hold
// of any result. A second pass seals the frames that it finds in the input anew, so that changes
// inside entries get past the checksums.
//
// Corpus: prefixes of segments as the journal writes them, and variations. Made by running this
// program on any file with the environment variable PACKMOOR_FUZZ_CORPUS set to a folder to fill.
#include "journal_replay.h"

#include "kernelio/check.h"

#include <cstdlib>
#include <cstring>
#include <fstream>
#include <string>

using namespace packmoor::replicator;  // NOLINT: one program, one file

namespace {

constexpr size_t kInputBytesMax = 1u << 18;

void scanAndReplay(kj::ArrayPtr<const kj::byte> first, kj::ArrayPtr<const kj::byte> second) {
  format::JournalIdentity identity;
  for (auto bytes : {first, second}) {
    if (!identity.known()) identifySegment(bytes, {}, identity);
  }
  JournalReplay replay;
  FrameChain chain;
  SegmentScanner scanner(chain, identity, replay);
  format::JournalIdentity ignored;
  uint64_t last = 0;
  for (auto bytes : {first, second}) {
    const uint64_t sequence = identifySegment(bytes, identity, ignored);
    if (sequence <= last) continue;
    scanner.scan("segment", sequence, bytes, nullptr);
    last = sequence;
  }
  replay.finish();
  for (auto& [id, volume] : replay.volumes) {
    PACKMOOR_CHECK(!volume.island, "an island was left");
    PACKMOOR_CHECK(volume.suspect || volume.log.base().index <= volume.checkpoint.index ||
                       volume.log.base().index.value == 0,
                   "records are missing unnoticed");
    const LogPosition end = volume.log.last();
    PACKMOOR_CHECK(volume.log.holds(end), "the log does not hold its end");
    KJ_IF_MAYBE (position, volume.log.position(end.index)) {
      PACKMOOR_CHECK(*position == end, "two ends");
    }
    volume.log.release(end.index);
    PACKMOOR_CHECK(volume.log.count() == 0, "a released log has records");
  }
}

// Makes every header with the right magic valid for the bytes behind it, and chains them.
void seal(kj::ArrayPtr<kj::byte> bytes) {
  Hash128 previous;
  for (size_t at = 0; at + sizeof(format::FrameHeader) <= bytes.size();) {
    format::FrameHeader header;
    std::memcpy(&header, bytes.begin() + at, sizeof header);
    if (header.magic != format::kFrameMagic) {
      at += format::kFrameAlignment;
      continue;
    }
    const size_t room = bytes.size() - at - sizeof header;
    header.bodyBytes = std::min<uint64_t>(header.bodyBytes, room);
    header.flags &= format::kFrameFlagsKnown;
    header.previousHash = previous;
    format::sealHeader(header, bytes.slice(at + sizeof header, at + sizeof header + header.bodyBytes));
    previous = header.headerHash;
    std::memcpy(bytes.begin() + at, &header, sizeof header);
    at += format::frameBytes(header.bodyBytes);
  }
}

// ---- Corpus -------------------------------------------------------------------------------------

// Frames behind each other, as the journal's writer lays them out.
class Corpus {
 public:
  Corpus() {
    identity_.journal.bytes.fill(7);
    identity_.salt = 77;
  }

  template <typename F>
  void frame(uint64_t segment, bool snapshot, F fill) {
    auto room = kj::heapArray<kj::byte>(1u << 16);
    memset(room.begin(), 0, room.size());
    format::BodyWriter body(room);
    fill(body);
    format::FrameHeader header{};
    header.flags = snapshot ? format::kFrameSnapshot : 0;
    header.entryCount = body.count();
    header.journal = identity_.journal;
    header.salt = identity_.salt;
    header.segmentSequence = segment;
    header.batchSequence = ++batch_;
    header.previousHash = previous_;
    format::sealHeader(header, room.slice(0, body.bytes()));
    previous_ = header.headerHash;
    const size_t at = bytes_.size();
    bytes_.resize(at + format::frameBytes(body.bytes()));
    std::memcpy(bytes_.data() + at, &header, sizeof header);
    std::memcpy(bytes_.data() + at + sizeof header, room.begin(), body.bytes());
  }

  void record(format::BodyWriter& body, const VolumeId& id, size_t payload) {
    auto& last = last_[id];
    auto bytes = kj::heapArray<kj::byte>(payload);
    memset(bytes.begin(), 'p', payload);
    auto made = makeRecord(last.index.next(), Epoch(1), last.hash, RecordKind(16), {id},
                           kj::mv(bytes));
    body.addRecord(id, *made);
    last = {made->index, made->epoch, made->hash};
  }

  template <typename T>
  void add(format::BodyWriter& body, format::EntryKind kind, uint8_t flags, const VolumeId& id,
           const T& content) {
    body.add(kind, flags, id,
             kj::arrayPtr(reinterpret_cast<const kj::byte*>(&content), sizeof content));
  }

  void save(const std::string& folder, const char* name) {
    std::ofstream(folder + "/" + name, std::ios::binary)
        .write(reinterpret_cast<const char*>(bytes_.data()),
               static_cast<std::streamsize>(bytes_.size()));
  }

  std::vector<kj::byte>& bytes() { return bytes_; }
  LogPosition last(const VolumeId& id) { return last_[id]; }

 private:
  format::JournalIdentity identity_;
  uint64_t batch_ = 0;
  Hash128 previous_;
  std::map<VolumeId, LogPosition> last_;
  std::vector<kj::byte> bytes_;
};

bool makeCorpus(const char* folderName) {
  if (folderName == nullptr) return false;
  const std::string folder = folderName;
  VolumeId a, b;
  a.bytes.fill(1);
  b.bytes.fill(2);
  Corpus corpus;
  corpus.frame(1, true, [](auto&) {});
  corpus.save(folder, "empty");
  corpus.frame(1, false, [&](auto& body) {
    for (int i = 0; i < 5; ++i) corpus.record(body, i % 2 ? a : b, 10);
    corpus.add(body, format::EntryKind::kPromise, 0, a, format::PromiseContent{3, b});
  });
  corpus.save(folder, "records");
  const LogPosition cut = corpus.last(a);
  corpus.frame(1, false, [&](auto& body) {
    corpus.record(body, a, 10);
    corpus.add(body, format::EntryKind::kTruncate, 0, a, format::toContent(cut));
    corpus.add(body, format::EntryKind::kCheckpoint, 0, a, format::toContent(cut));
    corpus.add(body, format::EntryKind::kCheckpoint, format::kEntryReplace, b,
               format::PositionContent{40, 2, {1, 2}});
    body.add(format::EntryKind::kWhole, 0, a, nullptr);
    body.add(format::EntryKind::kDrop, 0, b, nullptr);
  });
  corpus.save(folder, "all_kinds");
  corpus.frame(1, true, [&](auto& body) {
    corpus.add(body, format::EntryKind::kFacts, format::kEntrySuspect, a,
               format::FactsContent{{3, b}, format::toContent(cut), format::toContent(cut)});
  });
  corpus.save(folder, "snapshot");
  corpus.bytes()[format::kFrameAlignment + 300] ^= 1;  // the second frame rots
  corpus.save(folder, "gap");
  return true;
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  static const bool made = makeCorpus(std::getenv("PACKMOOR_FUZZ_CORPUS"));
  (void)made;
  if (size > kInputBytesMax) return 0;
  auto bytes = kj::heapArray<kj::byte>(kj::arrayPtr(data, size));
  const size_t half = size / 2 / format::kFrameAlignment * format::kFrameAlignment;
  for (bool sealed : {false, true}) {
    if (sealed) seal(bytes);
    // What does not decode is refused by an exception; anything else is a bug.
    kj::runCatchingExceptions([&]() { scanAndReplay(bytes, nullptr); });
    kj::runCatchingExceptions(
        [&]() { scanAndReplay(bytes.slice(0, half), bytes.slice(half, size)); });
  }
  return 0;
}
