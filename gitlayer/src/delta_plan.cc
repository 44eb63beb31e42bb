#include "delta_plan.h"
#include "collision_check.h"
#include "object_links.h"

#include <kernelio/check.h>

#include <kj/debug.h>

#include <algorithm>

namespace packmoor::gitlayer {

namespace {

// What a delta costs beside its result.
constexpr uint64_t kDeltaCostBytes = 1024;
// git makes no chains of more than 4,095. Reading an object takes as many steps as its chain is long.
constexpr size_t kDeltaDepthMax = 10'000;

struct BaseOrder {
  bool operator()(const DeltaPlan::ByEntry& a, uint32_t base) const { return a.base < base; }
  bool operator()(uint32_t base, const DeltaPlan::ByEntry& a) const { return base < a.base; }
  bool operator()(const DeltaPlan::ByName& a, const ObjectId& base) const { return a.base < base; }
  bool operator()(const ObjectId& base, const DeltaPlan::ByName& a) const { return base < a.base; }
};

}  // namespace

bool DeltaPlan::refuse(std::string text) {
  std::lock_guard<std::mutex> lock(mutex);
  if (!refused.exchange(true)) problem = std::move(text);
  return false;
}

bool DeltaPlan::complete(uint32_t number, ObjectType type, kj::ArrayPtr<const kj::byte> data,
                         std::vector<ObjectLink>& scratch, LinkFilter& filter) {
  IndexEntry& entry = table[number];
  // hashObject refuses what looks like a collision attack; that is the client's doing.
  auto collision = kj::runCatchingExceptions([&]() { entry.id = hashObject(type, data); });
  KJ_IF_MAYBE(exception, collision) { return refuse(exception->getDescription().cStr()); }
  entry.type = type;
  if (stored != nullptr && !sameAsStored(*stored, entry.id, type, data)) {
    return refuse(collisionFound(entry.id));
  }
  scratch.clear();
  if (const char* wrong = checkObject(type, data, scratch, limits.strict)) {
    return refuse(kj::str("object ", entry.id, ": ", wrong).cStr());
  }
  for (const ObjectLink& link : scratch) filter.add(link);
  return true;
}

void DeltaPlan::prepare() {
  std::sort(byEntry.begin(), byEntry.end(), [](const ByEntry& a, const ByEntry& b) {
    return a.base != b.base ? a.base < b.base : a.child < b.child;
  });
  std::sort(byName.begin(), byName.end(), [](const ByName& a, const ByName& b) {
    return a.base != b.base ? a.base < b.base : a.child < b.child;
  });
  claimed = std::make_unique<std::atomic<bool>[]>(byName.size());
  for (size_t i = 0; i < byName.size(); ++i) claimed[i] = false;
  size_t next = 0;
  for (uint32_t number = 0; number < table.size(); ++number) {
    bool has = false;
    for (; next < byEntry.size() && byEntry[next].base <= number; ++next) {
      has = has || byEntry[next].base == number;
    }
    if (table[number].type == ObjectType::kNone) continue;  // a delta itself
    if (!has && !byName.empty()) {
      has = std::binary_search(byName.begin(), byName.end(), table[number].id, BaseOrder());
    }
    if (has) roots.push_back(number);
  }
}

LargeBuffer DeltaPlan::inflate(uint32_t number, Inflater& inflater) const {
  uint64_t offset = table[number].offset;
  LargeBuffer stored(table.entryEnd(number, entriesEnd) - offset, limits.scratchFolder);
  bytes->read(offset, stored.bytes());
  PackEntryHeader header;
  KJ_REQUIRE(decodeEntryHeader(stored.bytes(), header) == Decoded::kDone,
             "a pack changed while it was being indexed", offset);
  if (header.bytes > limits.heldBytesMax) {
    kj::throwFatalException(kj::Exception(kj::Exception::Type::FAILED, __FILE__, __LINE__,
                                          kj::str(tooLargeToHold(offset, limits.heldBytesMax).c_str())));
  }
  LargeBuffer result(header.bytes, limits.scratchFolder);
  size_t consumed = 0;
  bool good = inflater.inflate(stored.bytes().slice(header.headerBytes, stored.size()),
                               result.bytes(), consumed);
  KJ_REQUIRE(good, "a pack changed while it was being indexed", offset);
  return result;
}

uint32_t DeltaPlan::baseOf(uint32_t number) const {
  if (table[number].base != kNoEntry) return table[number].base;
  kj::byte first[kEntryHeaderBytesMax];
  uint64_t offset = table[number].offset;
  auto room = kj::arrayPtr(
      first, kj::min(sizeof first, table.entryEnd(number, entriesEnd) - offset));
  bytes->read(offset, room);
  PackEntryHeader header;
  KJ_REQUIRE(decodeEntryHeader(room, header) == Decoded::kDone,
             "a pack changed while it was being indexed", offset);
  return header.type == PackEntryType::kRefDelta ? table.find(header.base) : kNoEntry;
}

bool DeltaPlan::apply(kj::ArrayPtr<const kj::byte> base, kj::ArrayPtr<const kj::byte> delta,
                      LargeBuffer& result) const {
  DeltaHeader header;
  if (decodeDeltaHeader(delta, header) != Decoded::kDone) return false;
  result = LargeBuffer(header.resultBytes, limits.scratchFolder);
  return applyDelta(base, delta, result.bytes());
}

bool DeltaPlan::spend(uint64_t bytes) {
  const uint64_t packBytes = entriesEnd + kPackTrailerBytes;
  const uint64_t bytesMax = limits.expansionFloorBytes + limits.expansionMax * packBytes;
  if (spent.fetch_add(bytes + kDeltaCostBytes) + bytes <= bytesMax) return true;
  return refuse(kj::str("the deltas of a pack of ", packBytes, " bytes make more than ", bytesMax,
                        " bytes of objects (git.expansion_max)").cStr());
}

bool DeltaPlan::checkNamedBlobs() {
  constexpr size_t kReadBytes = 256u << 10;
  if (stored == nullptr) return true;
  for (uint32_t number : namedBlobs) {
    uint64_t at = table[number].offset;
    const uint64_t end = table.entryEnd(number, entriesEnd);
    auto buffer = kj::heapArray<kj::byte>(kReadBytes);
    auto next = [&]() -> kj::ArrayPtr<const kj::byte> {
      auto piece = buffer.slice(0, kj::min(end - at, uint64_t{kReadBytes}));
      bytes->read(at, piece);
      at += piece.size();
      return piece;
    };
    PackEntryHeader header;
    auto first = next();
    KJ_REQUIRE(decodeEntryHeader(first, header) == Decoded::kDone,
               "a pack changed while it was being indexed", table[number].offset);
    at = table[number].offset + header.headerBytes;
    if (!sameBlobAsStored(*stored, table[number].id, header.bytes, next)) {
      return refuse(collisionFound(table[number].id));
    }
  }
  return true;
}

DeltaLane::Frame DeltaLane::frameOf(uint32_t entry) const {
  Frame frame;
  frame.entry = entry;
  auto children = std::equal_range(plan_.byEntry.begin(), plan_.byEntry.end(), entry, BaseOrder());
  frame.nextByEntry = static_cast<uint32_t>(children.first - plan_.byEntry.begin());
  frame.endByEntry = static_cast<uint32_t>(children.second - plan_.byEntry.begin());
  if (!plan_.byName.empty()) {
    auto named = std::equal_range(plan_.byName.begin(), plan_.byName.end(),
                                  plan_.table[entry].id, BaseOrder());
    frame.nextByName = static_cast<uint32_t>(named.first - plan_.byName.begin());
    frame.endByName = static_cast<uint32_t>(named.second - plan_.byName.begin());
  }
  return frame;
}

bool DeltaLane::run(size_t bytes) {
  size_t done = 0;
  while (done < bytes && !plan_.refused) {
    if (stack_.empty()) {
      uint32_t root = plan_.nextRoot.fetch_add(1);
      if (root >= plan_.roots.size()) return false;
      push(frameOf(plan_.roots[root]));
    }
    done += step();
  }
  return !plan_.refused;
}

bool DeltaLane::runOn(uint32_t root, LargeBuffer data) {
  Frame frame = frameOf(root);
  frame.data = std::move(data);
  frame.loaded = frame.pinned = true;
  push(std::move(frame));
  while (!stack_.empty() && !plan_.refused) step();
  return !plan_.refused;
}

uint32_t DeltaLane::nextChild(Frame& frame) {
  if (frame.nextByEntry < frame.endByEntry) return plan_.byEntry[frame.nextByEntry++].child;
  while (frame.nextByName < frame.endByName) {
    uint32_t named = frame.nextByName++;
    if (plan_.claim(named)) return plan_.byName[named].child;
  }
  return kNoEntry;
}

// Resolves one delta on top of the stack, or leaves an object that has none left. Returns how
// many bytes were looked at.
size_t DeltaLane::step() {
  size_t level = stack_.size() - 1;
  uint32_t child = nextChild(stack_[level]);
  if (child == kNoEntry) {
    if (stack_[level].loaded) loadedBytes_ -= stack_[level].data.size();
    stack_.pop_back();
    return 0;
  }
  if (!load(level)) return 0;
  LargeBuffer result;
  if (!make(child, stack_[level].data.bytes(), result)) return 0;
  const size_t looked = result.size() + kDeltaCostBytes;
  ObjectType type = plan_.table[stack_[level].entry].type;
  if (!plan_.complete(child, type, result.bytes(), scratch_, filter_)) return looked;
  ++plan_.resolved;
  if (stack_[level].spent()) unload(stack_[level]);
  Frame frame = frameOf(child);
  if (!frame.spent()) {
    frame.data = std::move(result);
    frame.loaded = true;
    push(std::move(frame));
  }
  return looked;
}

// Makes the data of a frame present: from the nearest one below that has its own, or from the
// root, which is read again.
bool DeltaLane::load(size_t level) {
  if (stack_[level].loaded) return true;
  size_t from = level;
  while (from > 0 && !stack_[from].loaded) --from;
  LargeBuffer walked;   // the data of `at - 1`, when that frame does not hold it
  size_t at = from;
  if (!stack_[from].loaded) {
    walked = plan_.inflate(stack_[from].entry, inflater_);
  }
  while (at < level) {
    auto base = stack_[at].loaded ? stack_[at].data.bytes() : walked.bytes();
    LargeBuffer result;
    if (!make(stack_[at + 1].entry, base, result)) return false;
    walked = std::move(result);
    ++at;
  }
  stack_[level].data = std::move(walked);
  stack_[level].loaded = true;
  loadedBytes_ += stack_[level].data.size();
  makeRoom();
  return true;
}

// The object that a delta makes of its base. False: the pack is refused.
bool DeltaLane::make(uint32_t entry, kj::ArrayPtr<const kj::byte> base, LargeBuffer& result) {
  LargeBuffer delta = plan_.inflate(entry, inflater_);
  DeltaHeader header;
  if (decodeDeltaHeader(delta.bytes(), header) != Decoded::kDone) {
    return plan_.refuse("failed to apply delta");
  }
  if (header.resultBytes > plan_.limits.heldBytesMax) {
    return plan_.refuse(tooLargeToHold(plan_.table[entry].offset, plan_.limits.heldBytesMax));
  }
  if (!plan_.spend(delta.size() + header.resultBytes)) return false;
  return plan_.apply(base, delta.bytes(), result) || plan_.refuse("failed to apply delta");
}

void DeltaLane::push(Frame frame) {
  if (stack_.size() == kDeltaDepthMax) {
    plan_.refuse("the pack has a chain of more than " + std::to_string(kDeltaDepthMax) + " deltas");
    return;
  }
  if (frame.loaded) loadedBytes_ += frame.data.size();
  stack_.push_back(std::move(frame));
  makeRoom();
}

void DeltaLane::unload(Frame& frame) {
  if (!frame.loaded || frame.pinned) return;
  loadedBytes_ -= frame.data.size();
  frame.data = {};
  frame.loaded = false;
}

// Objects deep in the stack are needed last; they are made anew when their turn comes.
void DeltaLane::makeRoom() {
  for (size_t level = 0; level + 1 < stack_.size() && loadedBytes_ > Indexer::kLaneBytesMax;
       ++level) {
    unload(stack_[level]);
  }
}

}  // namespace packmoor::gitlayer
