#include "gitlayer/pack_cache.h"

#include "band_frames.h"
#include "cached_pack.h"
#include "fetch_work.h"
#include "pack_sender.h"

#include <kernelio/co.h>
#include <kj/debug.h>

#include <list>
#include <map>

#include <sys/stat.h>
#include <sys/statvfs.h>

namespace packmoor::gitlayer {
namespace {

constexpr uint32_t kPlanBudget = 4000;
constexpr size_t kPieceBytes = 512u << 10;
constexpr uint64_t kMemoryShare = 16;
constexpr uint64_t kEntryShare = 2;      // of the room, for one entry

struct Made {
  uint64_t bytes = 0;
  kj::Array<const kj::byte> memory;   // when it is all of the pack
  bool more = false;
};

// The next piece, on a worker: into the file, unless it is the only one.
Made makePiece(FetchWork& work, SpillFile& file, size_t bandPacketBytes) {
  BandFrames frames(bandPacketBytes, kPieceBytes + PackBuilder::kPieceOvershoot + 1024);
  Made made;
  made.more = work.builder->produce(frames, kPieceBytes);
  auto bytes = frames.finish();
  made.bytes = bytes.size();
  if (made.more || file.isOpen()) {
    file.append(bytes);
  } else {
    made.memory = kj::mv(bytes);
  }
  return made;
}

}  // namespace

class PackCache::Impl final : private kj::TaskSet::ErrorHandler {
 public:
  Impl(kernelio::Env& env, kj::Own<PackQueue> queue, std::string folder, uint64_t bytesMax,
       FreeBytes freeBytes)
      : env_(env), queue_(kj::mv(queue)), folder_(std::move(folder)), bytesMax_(bytesMax),
        freeBytes_(std::move(freeBytes)), tasks_(*this) {
    if (mkdir(folder_.c_str(), 0700) != 0 && errno != EEXIST) {
      KJ_FAIL_SYSCALL("mkdir", errno, folder_.c_str());
    }
    tasks_.add(watchRoom());
  }

  kj::Maybe<kj::Own<CachedPack>> get(const std::string& key, std::shared_ptr<FetchWork> work,
                                     size_t bandPacketBytes, const std::string& turnKey) {
    auto found = entries_.find(key);
    if (found != entries_.end()) {
      ++statistics.hits;
      byUse_.splice(byUse_.begin(), byUse_, found->second);
      return kj::addRef(*found->second->pack);
    }
    if (!hasRoom()) return nullptr;
    auto opened = queue_->open();
    KJ_IF_MAYBE(held, opened) {
      ++statistics.misses;
      auto pack = kj::refcounted<CachedPack>(folder_);
      byUse_.push_front(Entry{key, kj::addRef(*pack), 0, false});
      entries_[key] = byUse_.begin();
      auto building = build(kj::addRef(*pack), kj::mv(work), bandPacketBytes, turnKey, key).promise();
      tasks_.add(building.attach(kj::mv(*held)));
      return kj::mv(pack);
    }
    return nullptr;
  }

  PackCacheStatistics statistics;
  size_t entryCount() const { return entries_.size(); }
  uint64_t bytes() const { return fileBytes_ + memoryBytes_; }

 private:
  struct Entry {
    std::string key;
    kj::Own<CachedPack> pack;
    uint64_t bytes = 0;
    bool inFile = false;
  };

  bool hasRoom() const { return freeBytes_(folder_) >= kFreeBytesMin; }

  // The room is for pushes.
  Co<void> watchRoom() {
    for (;;) {
      co_await env_.timer.afterDelay(kRoomInterval);
      if (fileBytes_ == 0 || hasRoom()) continue;
      for (auto it = entries_.begin(); it != entries_.end();) {
        auto next = std::next(it);
        if (it->second->inFile && it->second->pack->ended()) drop(it);
        it = next;
      }
    }
  }

  // Whether the cache keeps it, or still does.
  Entry* entryOf(const std::string& key, CachedPack& pack) {
    auto found = entries_.find(key);
    if (found == entries_.end() || found->second->pack.get() != &pack) return nullptr;
    return &*found->second;
  }

  void drop(std::map<std::string, std::list<Entry>::iterator>::iterator at) {
    const Entry& entry = *at->second;
    (entry.inFile ? fileBytes_ : memoryBytes_) -= entry.bytes;
    byUse_.erase(at->second);
    entries_.erase(at);
  }

  void add(Entry& entry, uint64_t bytes, bool inFile) {
    entry.bytes += bytes;
    entry.inFile = inFile;
    (inFile ? fileBytes_ : memoryBytes_) += bytes;
    evict(entry);
  }

  // The least recently asked for of those that are whole, until it all fits.
  void evict(const Entry& grown) {
    for (auto it = byUse_.end(); it != byUse_.begin();) {
      --it;
      const bool tooMuch = it->inFile ? fileBytes_ > bytesMax_ : memoryBytes_ > bytesMax_ / kMemoryShare;
      if (!tooMuch || &*it == &grown || !it->pack->ended()) continue;
      auto gone = entries_.find(it->key);
      ++it;   // stays valid, unlike what is erased
      drop(gone);
    }
  }

  Co<void> build(kj::Own<CachedPack> pack, std::shared_ptr<FetchWork> work, size_t bandPacketBytes,
                 std::string turnKey, std::string key) {
    auto making = make(*pack, kj::mv(work), bandPacketBytes, kj::mv(turnKey), key).promise();
    auto failure = co_await failureOf(kj::mv(making));
    if (failure != nullptr) forget(key, *pack);
    pack->end(kj::mv(failure));
  }

  // The next request begins another one.
  void forget(const std::string& key, CachedPack& pack) {
    if (entryOf(key, pack) != nullptr) drop(entries_.find(key));
  }

  // Nobody reads it any more; and nobody finds it from now on.
  bool abandoned(const std::string& key, CachedPack& pack) {
    if (pack.readers() > 0) return false;
    forget(key, pack);
    return true;
  }

  // Returns early when it is abandoned.
  Co<void> make(CachedPack& pack, std::shared_ptr<FetchWork> work, size_t bandPacketBytes,
                std::string turnKey, std::string key) {
    auto turn = co_await queue_->turn(turnKey);
    for (bool done = false; !done;) {
      if (abandoned(key, pack)) co_return;
      auto planning = env_.workers.run([work]() { return work->stepPlan(kPlanBudget); });
      done = co_await kj::mv(planning);
      pack.objectsFound = work->objectsFound();
      pack.changed();
    }
    pack.wholePacks = work->wholePacks();
    pack.statistics = work->builder->statistics();
    pack.planned = true;
    pack.changed();
    for (bool more = true; more;) {
      if (abandoned(key, pack)) co_return;
      if (queue_->waiting() > 0) {
        turn = nullptr;
        auto next = co_await queue_->turn(turnKey);
        turn = kj::mv(next);
      }
      auto making = env_.workers.run([work, file = pack.file(), bandPacketBytes]() {
        return std::make_shared<Made>(makePiece(*work, *file, bandPacketBytes));
      });
      auto made = co_await kj::mv(making);
      more = made->more;
      pack.statistics = work->builder->statistics();
      publish(pack, *made, key);
      if (more && entryOf(key, pack) == nullptr) {
        turn = nullptr;
        co_await keepToWindow(pack);
        auto next = co_await queue_->turn(turnKey);
        turn = kj::mv(next);
      }
    }
  }

  void publish(CachedPack& pack, Made& made, const std::string& key) {
    Entry* entry = entryOf(key, pack);
    const bool inFile = made.memory == nullptr;
    if (inFile) {
      pack.published(made.bytes);
    } else {
      pack.publishedWhole(kj::mv(made.memory));
    }
    if (entry == nullptr) return;
    add(*entry, made.bytes, inFile);
    // Who comes from now on begins another one.
    if (entry->bytes > bytesMax_ / kEntryShare) forget(key, pack);
  }

  Co<void> keepToWindow(CachedPack& pack) {
    while (pack.readers() > 0 && pack.bytes() - pack.sentToAll() > kWindowBytes) {
      co_await pack.whenSent();
    }
    pack.file()->forget(pack.sentToAll());
  }

  void taskFailed(kj::Exception&& exception) override {
    KJ_LOG(ERROR, "a pack's build ended in an odd way", exception);
  }

  kernelio::Env& env_;
  kj::Own<PackQueue> queue_;
  const std::string folder_;
  const uint64_t bytesMax_;
  const FreeBytes freeBytes_;
  std::list<Entry> byUse_;   // newest first
  std::map<std::string, std::list<Entry>::iterator> entries_;
  uint64_t fileBytes_ = 0, memoryBytes_ = 0;
  kj::TaskSet tasks_;        // last: they use the above
};

uint64_t PackCache::freeBytesOf(const std::string& folder) {
  struct statvfs disk;
  if (statvfs(folder.c_str(), &disk) != 0) return 0;
  return uint64_t{disk.f_bavail} * disk.f_frsize;
}

PackCache::PackCache(kernelio::Env& env, kj::Own<PackQueue> queue, std::string folder, uint64_t bytesMax,
                     FreeBytes freeBytes)
    : impl_(kj::heap<Impl>(env, kj::mv(queue), std::move(folder), bytesMax, std::move(freeBytes))) {}
PackCache::~PackCache() noexcept(false) {}

kj::Maybe<kj::Own<CachedPack>> PackCache::get(const std::string& key, std::shared_ptr<FetchWork> work,
                                              size_t bandPacketBytes, const std::string& turnKey) {
  return impl_->get(key, kj::mv(work), bandPacketBytes, turnKey);
}

PackCacheStatistics PackCache::statistics() const {
  auto result = impl_->statistics;
  result.entries = impl_->entryCount();
  result.bytes = impl_->bytes();
  return result;
}

}  // namespace packmoor::gitlayer
