// Finds the frames of a journal in their order, and says what is missing between them.
//
// Why: recovery, `packmoorctl journal dump` and the fuzzer read the same bytes by the same rule
// (journal_format.h). SegmentScanner is the rule, over bytes in memory; scanJournal() applies it to
// the files of a folder, changes none of them, and needs memory for one segment at a time.
#pragma once

#include "kernelio/co.h"
#include "kernelio/disk.h"
#include "replicator/journal_format.h"

#include <map>
#include <string>
#include <vector>

namespace packmoor::replicator {

// What a scan reports, in the journal's order.
class ScanVisitor {
 public:
  virtual ~ScanVisitor() noexcept(false) {}
  // An intact frame. `body` is valid during the call.
  virtual void frame(kj::StringPtr file, uint64_t offset, const format::FrameHeader& header,
                     kj::ArrayPtr<const kj::byte> body) = 0;
  // Acknowledged frames are missing between the last frame and the next one, or the end.
  // `oldest`: within the oldest segment, where a torn reuse of it looks the same.
  virtual void gap(kj::StringPtr sentence, bool oldest) = 0;
  // Something is rotten, but no frame is lost by it.
  virtual void blemish(kj::StringPtr sentence) = 0;
};

// How far the chain of frames has been followed.
struct FrameChain {
  bool begun = false;
  std::string oldestFile;        // where it began
  uint64_t sequence = 0;         // of the last frame
  Hash128 hash;                  // its headerHash
  std::string file;              // where the next frame was expected
  uint64_t offset = 0;
  std::string resumedFile;       // the last one with something rotten or misplaced in it
  uint64_t sequenceHighest = 0;  // in any intact header, also of a rotten body
};

// Walks one segment at a time over its bytes.
class SegmentScanner {
 public:
  SegmentScanner(FrameChain& chain, format::JournalIdentity identity, ScanVisitor& visitor)
      : chain_(chain), identity_(identity), visitor_(visitor) {}

  // `bad`: ranges that could not be read. Afterwards chain.file and offset are where the next
  // frame would begin.
  void scan(kj::StringPtr file, uint64_t segmentSequence, kj::ArrayPtr<const kj::byte> bytes,
            kj::ArrayPtr<const kernelio::ByteRange> bad);

 private:
  bool frameAt(uint64_t offset, format::FrameHeader& header) const;
  bool continues(const format::FrameHeader& header) const;
  void accept(uint64_t offset, const format::FrameHeader& header);
  void mapHeaders();
  bool resume();  // behind something rotten; false: nothing more here

  FrameChain& chain_;
  format::JournalIdentity identity_;
  ScanVisitor& visitor_;

  kj::StringPtr file_;
  uint64_t segmentSequence_ = 0;
  kj::ArrayPtr<const kj::byte> bytes_;
  kj::ArrayPtr<const kernelio::ByteRange> bad_;
  bool mapped_ = false;
  std::multimap<uint64_t, uint64_t> headers_;  // batch sequence to offset
};

// The largest segment sequence of any intact header in `bytes`, with the identity it has; 0: none.
uint64_t identifySegment(kj::ArrayPtr<const kj::byte> bytes, const format::JournalIdentity& identity,
                         format::JournalIdentity& found);

struct MarkerState {
  bool present = false;        // the file exists
  uint32_t slotsIntact = 0;
  format::MarkerSlot newest{};  // with slotsIntact > 0
};

struct SegmentFile {
  std::string name;       // in the journal's folder
  uint64_t bytes = 0;
  uint64_t sequence = 0;  // 0: holds no frame
  bool unreadable = false;
  bool begins = false;    // an intact frame at offset 0
};

struct ScanResult {
  format::JournalIdentity identity;  // null: no journal here
  MarkerState marker;
  FrameChain chain;
  std::vector<SegmentFile> segments;  // that were walked, by sequence
  std::vector<SegmentFile> unused;    // hold nothing that the journal needs
  bool rotAtEnd = false;              // reported as a gap
  uint64_t tornBytes = 0;             // of a torn frame after the last one, as far as known
};

constexpr char kMarkerFile[] = "marker";
constexpr char kSegmentPrefix[] = "segment-";
constexpr char kPreparePrefix[] = "prepare-";

Co<ScanResult> scanJournal(kernelio::Disk& disk, kj::String folder, ScanVisitor& visitor);

}  // namespace packmoor::replicator
