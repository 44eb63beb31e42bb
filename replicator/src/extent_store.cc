#include "replicator/extent_store.h"

#include "extent_store_impl.h"

#include "replicator/outcome.h"
#include "kernelio/check.h"

namespace packmoor::replicator {

using kernelio::File;
using kernelio::IoBuffer;

namespace {

kj::Exception sentence(kj::String text) {
  return kj::Exception(kj::Exception::Type::FAILED, __FILE__, __LINE__, kj::mv(text));
}

}  // namespace

ExtentStoreImpl::ExtentStoreImpl(kernelio::Env& env, const ExtentStoreOptions& options)
    : env_(env), folder_(options.folder.cStr()), expiryMs_(options.expiryMs),
      quarantinedMax_(options.quarantinedMax), tasks_(*this) {}

ExtentStoreImpl::~ExtentStoreImpl() noexcept(false) {}

kj::String ExtentStoreImpl::quarantinePath(const ExtentId& id, const char* suffix) const {
  return kj::str(folder_.c_str(), "/quarantine/", id, ".", suffix);
}

kj::String ExtentStoreImpl::sealedFolder(const ExtentId& id) const {
  return kj::str(folder_.c_str(), "/sealed/", id.text().slice(0, 2));
}

kj::String ExtentStoreImpl::sealedPath(const ExtentId& id, const char* suffix) const {
  return kj::str(sealedFolder(id), "/", id, ".", suffix);
}

// ---- On the way in ------------------------------------------------------------------------------

kj::Promise<kj::Own<ExtentWriter>> ExtentStoreImpl::begin(ExtentId id) { return beginBody(id); }

Co<kj::Own<ExtentWriter>> ExtentStoreImpl::beginBody(ExtentId id) {
  KJ_REQUIRE(sealed_.count(id) == 0, "The extent is sealed here already.", id);
  KJ_REQUIRE(writing_.count(id) == 0, "The extent is being written here already.", id);
  if (writing_.size() >= quarantinedMax_) {
    kj::throwFatalException(kj::Exception(
        kj::Exception::Type::OVERLOADED, __FILE__, __LINE__,
        kj::str("Too many extents are being received at once (", writing_.size(),
                "); try again later.")));
  }
  writing_.insert(id);
  // Whatever happens, a begin that gives no writer leaves the id free.
  bool given = false;
  KJ_DEFER(if (!given) writing_.erase(id));
  auto removing = removing_.find(id);
  if (removing != removing_.end()) co_await removing->second.addBranch();
  auto file = co_await env_.disk.open(quarantinePath(id, "data"),
                                      {.write = true, .create = true, .exclusive = true});
  given = true;
  co_return makeExtentWriter(*this, id, kj::mv(file));
}

Co<void> ExtentStoreImpl::prepareFolder(kj::String folder) {
  if (foldersDurable_.count(folder.cStr()) > 0) co_return;
  co_await env_.disk.makeFolders(folder);
  co_await env_.disk.syncDirectory(kj::str(folder_.c_str(), "/sealed"));
  foldersDurable_.insert(folder.cStr());
}

void ExtentStoreImpl::sealed(ExtentInfo info, kj::Array<Hash128> checksums) {
  const ExtentId id = info.id;
  damaged_.erase(id);
  ++statistics_.sealed;
  statistics_.sealedBytes += info.bytes;
  sealed_[id] = {info, kj::mv(checksums), nowMs()};
  pin(id);
  auto [begin, end] = awaited_.equal_range(id);
  for (auto it = begin; it != end; ++it) it->second->fulfill();
  awaited_.erase(begin, end);
}

void ExtentStoreImpl::writerGone(const ExtentId& id) { writing_.erase(id); }

void ExtentStoreImpl::writerAbandoned(const ExtentId& id) {
  writing_.erase(id);
  auto removal = kj::Promise<void>(removeAbandoned(id)).fork();
  tasks_.add(removal.addBranch());
  removing_.erase(id);
  removing_.emplace(id, kj::mv(removal));
}

Co<void> ExtentStoreImpl::removeAbandoned(ExtentId id) {
  // In a later turn, so that the caller has noted the removal before it can be over.
  co_await kj::evalLater([]() {});
  co_await env_.disk.remove(quarantinePath(id, "data"));
  co_await env_.disk.remove(quarantinePath(id, "sum"));
  tasks_.add(kj::evalLater([this, id]() { removing_.erase(id); }));
}

// ---- What is sealed -----------------------------------------------------------------------------

kj::Maybe<ExtentInfo> ExtentStoreImpl::info(ExtentId id) {
  auto found = sealed_.find(id);
  if (found == sealed_.end()) return nullptr;
  return found->second.info;
}

kj::Promise<void> ExtentStoreImpl::whenSealed(ExtentId id) {
  if (isSealed(id)) return kj::READY_NOW;
  auto paf = kj::newPromiseAndFulfiller<void>();
  // Those that nobody waits for any more.
  for (auto it = awaited_.lower_bound(id); it != awaited_.end() && it->first == id;) {
    it = it->second->isWaiting() ? std::next(it) : awaited_.erase(it);
  }
  awaited_.emplace(id, kj::mv(paf.fulfiller));
  return kj::mv(paf.promise);
}

kj::Array<Hash128> ExtentStoreImpl::blockChecksums(ExtentId id) {
  auto found = sealed_.find(id);
  if (found == sealed_.end()) return nullptr;
  return kj::heapArray<Hash128>(found->second.checksums.asPtr());
}

kj::Array<ExtentInfo> ExtentStoreImpl::list() {
  kj::Vector<ExtentInfo> result(sealed_.size());
  for (auto& [id, sealed] : sealed_) result.add(sealed.info);
  std::sort(result.begin(), result.end(), [](auto& a, auto& b) { return a.id < b.id; });
  return result.releaseAsArray();
}

kj::Array<ExtentId> ExtentStoreImpl::missing() {
  kj::Vector<ExtentId> result;
  for (auto& [id, hold] : holds_) {
    if (hold.linked && sealed_.count(id) == 0) result.add(id);
  }
  std::sort(result.begin(), result.end());
  return result.releaseAsArray();
}

ExtentStatistics ExtentStoreImpl::statistics() {
  ExtentStatistics result = statistics_;
  result.quarantined = writing_.size();
  result.blocksStanding = standing_.size();
  for (auto& [id, hold] : holds_) {
    result.pinned += hold.pins > 0;
    result.missing += hold.linked && sealed_.count(id) == 0;
  }
  return result;
}

// ---- Reading and repair -------------------------------------------------------------------------

const ExtentStoreImpl::Sealed& ExtentStoreImpl::requireBlock(const ExtentId& id, uint64_t block) {
  auto found = sealed_.find(id);
  KJ_REQUIRE(found != sealed_.end(), "The extent is not sealed here.", id);
  KJ_REQUIRE(block < found->second.checksums.size(), "The extent has no such block.", id, block,
             found->second.checksums.size());
  return found->second;
}

Co<ExtentStoreImpl::FileRef> ExtentStoreImpl::openData(ExtentId id) {
  auto found = open_.find(id);
  if (found != open_.end()) co_return found->second;
  auto file = std::make_shared<kj::Own<File>>();
  *file = co_await env_.disk.open(path(id), {});
  if (open_.size() >= kOpenFilesMax) open_.erase(open_.begin());
  if (isSealed(id)) open_[id] = file;
  co_return file;
}

kj::Promise<IoBuffer> ExtentStoreImpl::readBlock(ExtentId id, uint64_t block) {
  return readOrRepair(id, block);
}

kj::Promise<IoBuffer> ExtentStoreImpl::readBlockHere(ExtentId id, uint64_t block) {
  return readBlockBody(id, block, false);
}

Co<IoBuffer> ExtentStoreImpl::readOrRepair(ExtentId id, uint64_t block) {
  auto here = readBlockBody(id, block, false).promise();
  auto read = co_await outcomeOf(kj::mv(here));
  if (read.ok()) co_return kj::mv(*read.value);
  auto repairing = repairFromSource(id, block, kj::mv(KJ_ASSERT_NONNULL(read.exception)));
  auto data = co_await kj::mv(repairing);
  co_return kj::mv(data);
}

Co<IoBuffer> ExtentStoreImpl::repairFromSource(ExtentId id, uint64_t block,
                                               kj::Exception problem) {
  BlockSource* source = nullptr;
  KJ_IF_MAYBE(given, source_) { source = given; }
  if (source == nullptr || !isSealed(id)) kj::throwFatalException(kj::mv(problem));
  KJ_LOG(WARNING, "a block of an extent is bad here and is fetched from another member",
         problem.getDescription());
  auto asked = (*source)(id, block);
  auto fetched = co_await outcomeOf(kj::mv(asked));
  if (!fetched.ok()) {
    kj::throwFatalException(sentence(
        kj::str(problem.getDescription(), " It cannot be repaired: ",
                KJ_ASSERT_NONNULL(fetched.exception).getDescription())));
  }
  IoBuffer data = *fetched.value;
  auto repaired = repairBlock(id, block, kj::mv(*fetched.value));
  co_await kj::mv(repaired);
  KJ_LOG(INFO, "a block of an extent is repaired", id, block);
  co_return kj::mv(data);
}

Co<IoBuffer> ExtentStoreImpl::readBlockBody(ExtentId id, uint64_t block, bool direct) {
  const Sealed& extent = requireBlock(id, block);
  const Hash128 wanted = extent.checksums[block];
  const size_t bytes = blockBytesAt(extent.info.bytes, block);
  IoBuffer data;
  kj::String problem;
  try {
    auto opening = direct ? openDirect(id) : openData(id);
    FileRef file = co_await kj::mv(opening);
    data = co_await (*file)->read(block * kBlockBytes, bytes);
    if (data.size() != bytes) {
      problem = kj::str("the file is too short");
    } else if (hashBytes(data.bytes()) != wanted) {
      problem = kj::str("its checksum does not match");
    }
  } catch (kj::Exception& exception) {
    problem = kj::str(exception.getDescription());
  }
  if (problem.size() > 0) {
    noteBad(id, block);
    kj::throwFatalException(sentence(
        kj::str("Block ", block, " of extent ", id, " is damaged on disk: ", problem, ".")));
  }
  ++statistics_.blocksVerified;
  standing_.erase({id, block});
  co_return data;
}

// A block that is read again and again while it stands is one bad block.
void ExtentStoreImpl::noteBad(const ExtentId& id, uint64_t block) {
  if (!isSealed(id) || standing_.count({id, block}) > 0) return;
  ++statistics_.blocksBad;
  if (standing_.size() < kStandingMax) standing_.insert({id, block});
}

kj::Promise<void> ExtentStoreImpl::repairBlock(ExtentId id, uint64_t block, IoBuffer data) {
  return repairBlockBody(id, block, kj::mv(data));
}

Co<void> ExtentStoreImpl::repairBlockBody(ExtentId id, uint64_t block, IoBuffer data) {
  const Sealed& extent = requireBlock(id, block);
  KJ_REQUIRE(data.size() == blockBytesAt(extent.info.bytes, block) &&
                 hashBytes(data.bytes()) == extent.checksums[block],
             "The bytes given to repair a block are not that block's.", id, block);
  auto file = co_await env_.disk.open(path(id), {.write = true});
  co_await file->write(block * kBlockBytes, kj::mv(data), kernelio::WriteMode::kDurable);
  ++statistics_.blocksRepaired;
  standing_.erase({id, block});
}

void ExtentStoreImpl::taskFailed(kj::Exception&& exception) {
  // A removal that failed leaves a file that the next open removes or lists again.
  KJ_LOG(WARNING, "An extent's file could not be removed.", exception.getDescription());
}

}  // namespace packmoor::replicator
