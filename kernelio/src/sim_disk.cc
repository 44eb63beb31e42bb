#include "kernelio/check.h"
#include "kernelio/co.h"
#include "kernelio/sim_disk.h"
#include "path.h"
#include "sim_storage.h"

#include <kj/debug.h>
#include <kj/function.h>
#include <kj/refcount.h>

#include <algorithm>

namespace packmoor::kernelio {

using sim::Inode;
using sim::InodeRef;
using sim::NameChange;
using sim::OpKind;
using sim::Storage;
using sim::Verdict;

namespace {

kj::Exception ioError(kj::StringPtr what, kj::StringPtr path) {
  return kj::Exception(kj::Exception::Type::FAILED, __FILE__, __LINE__,
                       kj::str("Could not ", what, " ", path, ": simulated input/output error."));
}

std::string nameString(kj::StringPtr path) { return nameOf(path).cStr(); }

}  // namespace

// Runs operations so that they take effect even when nobody waits for them any more.
class SimDisk::Runner final : public kj::Refcounted, public kj::TaskSet::ErrorHandler {
 public:
  Runner(Storage& storage, kj::Timer& timer)
      : storage(storage), timer_(timer), tasks_(std::make_unique<kj::TaskSet>(*this)) {}

  // Waits as long as the verdict says, then runs effect() and passes on what it returns. Changes
  // are write boundaries, at which power may be cut.
  template <typename T, typename F>
  kj::Promise<T> perform(const Verdict& verdict, bool changes, F effect) {
    auto paf = kj::newPromiseAndFulfiller<T>();
    if (!storage.powered || verdict.stuck || tasks_ == nullptr) {
      stranded_.add(kj::mv(paf.fulfiller));
    } else {
      auto begun = verdict.delay > 0 * kj::NANOSECONDS
                       ? timer_.afterDelay(verdict.delay)
                       : kj::evalLater([]() {});
      tasks_->add(begun.then([this, changes, effect = kj::mv(effect),
                             fulfiller = kj::mv(paf.fulfiller)]() mutable {
        step<T>(changes, effect, kj::mv(fulfiller));
      }));
    }
    return kj::mv(paf.promise);
  }

  void stop() { tasks_ = nullptr; }

  Storage& storage;

 private:
  template <typename T, typename F>
  void step(bool changes, F& effect, kj::Own<kj::PromiseFulfiller<T>> fulfiller) {
    if (!storage.powered || (changes && storage.cutsDuring())) {
      stranded_.add(kj::mv(fulfiller));
      return;
    }
    bool cut = false;
    auto failure = kj::runCatchingExceptions([&]() {
      if constexpr (std::is_void_v<T>) {
        effect();
        cut = changes && storage.cutsAfter();
        if (!cut) fulfiller->fulfill();
      } else {
        T result = effect();
        cut = changes && storage.cutsAfter();
        if (!cut) fulfiller->fulfill(kj::mv(result));
      }
    });
    KJ_IF_MAYBE (exception, failure) {
      cut = changes && storage.cutsAfter();
      if (!cut) fulfiller->reject(kj::mv(*exception));
    }
    if (cut) stranded_.add(kj::mv(fulfiller));
  }

  void taskFailed(kj::Exception&& exception) override {
    PACKMOOR_CHECK(false, "a simulated operation failed outside of its promise: ",
                   exception.getDescription());
  }

  kj::Timer& timer_;
  // Operations that power or a fault has stopped: their promises stay unresolved.
  kj::Vector<kj::Own<kj::PromiseRejector>> stranded_;
  std::unique_ptr<kj::TaskSet> tasks_;  // null once the disk is gone
};

class SimDisk::SimFile final : public File {
 public:
  SimFile(kj::Own<Runner> runner, InodeRef inode, kj::StringPtr path, OpenOptions options)
      : runner_(kj::mv(runner)), inode_(kj::mv(inode)), path_(kj::heapString(path)),
        options_(options) {}

  kj::Promise<IoBuffer> read(uint64_t offset, size_t bytes) override {
    auto verdict = storage().judge(OpKind::kRead, path_);
    return perform<IoBuffer>(verdict, false, [offset, bytes, verdict](Target& on) {
      if (verdict.failed) kj::throwFatalException(ioError("read", on.path));
      SectorRead result = readNow(on, offset, bytes, verdict.rots);
      if (result.bad.size() > 0) kj::throwFatalException(ioError("read a sector of", on.path));
      return kj::mv(result.data);
    });
  }

  kj::Promise<SectorRead> readSectors(uint64_t offset, size_t bytes) override {
    auto verdict = storage().judge(OpKind::kRead, path_);
    return perform<SectorRead>(verdict, false, [offset, bytes, verdict](Target& on) {
      SectorRead result = readNow(on, offset, bytes, verdict.rots);
      if (verdict.failed && result.data.size() > 0) {
        std::fill(result.data.begin(), result.data.begin() + result.data.size(), 0);
        result.bad.clear();
        result.bad.add(ByteRange{offset, result.data.size()});
      }
      return result;
    });
  }

  kj::Promise<void> write(uint64_t offset, IoBuffer data, WriteMode mode) override {
    PACKMOOR_CHECK(options_.write, "writing a file that was opened to read: ", path_);
    if (options_.direct) {
      PACKMOOR_CHECK(offset % kIoAlignment == 0, "unaligned direct write: ", path_, offset);
      PACKMOOR_CHECK(data.size() % kIoAlignment == 0, "unaligned direct write: ", path_,
                     data.size());
      PACKMOOR_CHECK(reinterpret_cast<uintptr_t>(data.begin()) % kIoAlignment == 0,
                     "direct write from unaligned memory: ", path_);
    }
    auto verdict = storage().judge(OpKind::kWrite, path_);
    if (!storage().powered) return kj::NEVER_DONE;
    auto& pending = storage().pendingWrites;
    pending.push_back({inode_, offset, kj::mv(data)});
    auto slot = std::prev(pending.end());
    return perform<void>(verdict, true, [slot, mode, verdict](Target& on) {
      sim::PendingWrite write = kj::mv(*slot);
      on.storage.pendingWrites.erase(slot);
      writeNow(on, write, mode, verdict);
    });
  }

  kj::Promise<void> sync() override {
    auto verdict = storage().judge(OpKind::kSync, path_);
    return perform<void>(verdict, true,
                         [state = inode_->dirtyState(), verdict](Target& on) {
                           if (verdict.failed) {
                             on.inode->forget(state);
                             kj::throwFatalException(ioError("sync", on.path));
                           }
                           on.inode->commit(state);
                         });
  }

  kj::Promise<void> allocate(uint64_t bytes) override {
    PACKMOOR_CHECK(options_.write, "allocating in a file that was opened to read: ", path_);
    return perform<void>(storage().judge(OpKind::kNames, path_), true, [bytes](Target& on) {
      on.storage.requireSpace(*on.inode, 0, bytes, on.path);
      on.inode->reservedBytes = std::max(on.inode->reservedBytes, bytes);
      if (bytes > on.inode->current.size) on.inode->resize(bytes);
    });
  }

  kj::Promise<void> truncate(uint64_t bytes) override {
    PACKMOOR_CHECK(options_.write, "truncating a file that was opened to read: ", path_);
    return perform<void>(storage().judge(OpKind::kNames, path_), true, [bytes](Target& on) {
      on.inode->reservedBytes = std::min(on.inode->reservedBytes, bytes);
      on.inode->resize(bytes);
    });
  }

  uint64_t size() override { return inode_->current.size; }

 private:
  // What an operation works on; it outlives the File.
  struct Target {
    Storage& storage;
    InodeRef inode;
    kj::String path;
  };

  Storage& storage() { return runner_->storage; }

  template <typename T, typename F>
  kj::Promise<T> perform(const Verdict& verdict, bool changes, F effect) {
    return runner_->perform<T>(
        verdict, changes,
        [target = Target{storage(), inode_, kj::heapString(path_)},
         effect = kj::mv(effect)]() mutable { return effect(target); });
  }

  static SectorRead readNow(Target& on, uint64_t offset, size_t bytes, bool rots) {
    SectorRead result;
    Inode& inode = *on.inode;
    if (offset >= inode.current.size) return result;
    bytes = std::min<uint64_t>(bytes, inode.current.size - offset);
    if (bytes == 0) return result;
    if (rots) {
      inode.flipBit(offset + on.storage.random.below(bytes), on.storage.random.below(8));
    }
    result.data = IoBuffer::allocate(bytes);
    inode.current.read(offset, result.data.bytes());
    uint64_t end = offset + bytes;
    for (auto it = inode.unreadable.lower_bound(offset / kIoAlignment);
         it != inode.unreadable.end() && *it * kIoAlignment < end; ++it) {
      uint64_t from = std::max(offset, *it * kIoAlignment);
      uint64_t to = std::min(end, (*it + 1) * kIoAlignment);
      std::fill(result.data.begin() + (from - offset), result.data.begin() + (to - offset), 0);
      if (result.bad.size() > 0 && result.bad.back().offset + result.bad.back().bytes == from) {
        result.bad.back().bytes += to - from;
      } else {
        result.bad.add(ByteRange{from, to - from});
      }
    }
    return result;
  }

  static void writeNow(Target& on, sim::PendingWrite& write, WriteMode mode,
                       const Verdict& verdict) {
    if (verdict.failed) kj::throwFatalException(ioError("write", on.path));
    if (verdict.lost || write.data.size() == 0) return;
    uint64_t offset = write.offset;
    if (verdict.misdirected) {
      uint64_t sectors = std::max<uint64_t>(1, on.inode->current.size / kIoAlignment);
      offset = on.storage.random.below(sectors) * kIoAlignment;
    }
    on.storage.requireSpace(*on.inode, offset, write.data.size(), on.path);
    on.inode->write(offset, write.data.bytes());
    if (mode == WriteMode::kDurable) on.inode->commitRange(offset, write.data.size());
  }

  kj::Own<Runner> runner_;
  InodeRef inode_;
  kj::String path_;
  OpenOptions options_;
};

SimDisk::SimDisk(SimStorage& storage, kj::Timer& timer)
    : runner_(kj::refcounted<Runner>(*storage.storage_, timer)) {
  PACKMOOR_CHECK(storage.powered(), "a SimDisk on a storage without power: call crash() first");
  ++runner_->storage.attached;
}

SimDisk::~SimDisk() noexcept {
  runner_->stop();
  runner_->storage.completePending();
  --runner_->storage.attached;
}

kj::Promise<kj::Own<File>> SimDisk::open(kj::StringPtr path, OpenOptions options) {
  checkPath(path);
  PACKMOOR_CHECK(options.write || !options.create, "creating a file to read it: ", path);
  PACKMOOR_CHECK(options.create || !options.exclusive, "exclusive without create: ", path);
  Storage& storage = runner_->storage;
  // Only creating changes anything.
  return runner_->perform<kj::Own<File>>(
      storage.judge(OpKind::kNames, path), options.create,
      [this, &storage, path = kj::heapString(path), options]() -> kj::Own<File> {
        InodeRef inode = storage.find(path);
        if (inode == nullptr) {
          KJ_REQUIRE(options.create, "Could not open the file: there is none.", path);
          inode = std::make_shared<Inode>();
          storage.names.apply(
              NameChange{{storage.folder(folderOf(path)), nameString(path), inode}});
        } else {
          KJ_REQUIRE(!options.exclusive, "Could not create the file: it exists already.", path);
          KJ_REQUIRE(!inode->folder, "Could not open the file: it is a folder.", path);
        }
        return kj::heap<SimFile>(kj::addRef(*runner_), kj::mv(inode), path, options);
      });
}

kj::Promise<bool> SimDisk::exists(kj::StringPtr path) {
  checkFolderPath(path);
  Storage& storage = runner_->storage;
  return runner_->perform<bool>(
      storage.judge(OpKind::kNames, path), false,
      [&storage, path = kj::heapString(path)]() { return storage.find(path) != nullptr; });
}

kj::Promise<kj::Array<kj::String>> SimDisk::list(kj::StringPtr folder) {
  checkFolderPath(folder);
  Storage& storage = runner_->storage;
  return runner_->perform<kj::Array<kj::String>>(
      storage.judge(OpKind::kNames, folder), false,
      [&storage, folder = kj::heapString(folder)]() {
        kj::Vector<kj::String> names;
        if (storage.find(folder) != nullptr) {
          for (auto& [name, inode] : storage.folder(folder)->entries) {
            names.add(kj::heapString(name.c_str(), name.size()));
          }
        }
        return names.releaseAsArray();
      });
}

kj::Promise<void> SimDisk::makeFolders(kj::StringPtr path) {
  checkFolderPath(path);
  Storage& storage = runner_->storage;
  return runner_->perform<void>(
      storage.judge(OpKind::kNames, path), true, [&storage, path = kj::heapString(path)]() {
        for (size_t end = 0; end < path.size(); ++end) {
          while (end < path.size() && path[end] != '/') ++end;
          auto part = kj::heapString(path.slice(0, end));
          if (storage.find(part) != nullptr) {
            storage.folder(part);  // throws when it is a file
            continue;
          }
          auto made = std::make_shared<Inode>();
          made->folder = true;
          storage.names.apply(
              NameChange{{storage.folder(folderOf(part)), nameString(part), kj::mv(made)}});
        }
      });
}

kj::Promise<void> SimDisk::remove(kj::StringPtr path) {
  checkPath(path);
  Storage& storage = runner_->storage;
  return runner_->perform<void>(
      storage.judge(OpKind::kNames, path), true, [&storage, path = kj::heapString(path)]() {
        auto inode = storage.find(path);
        if (inode == nullptr) return;
        KJ_REQUIRE(!inode->folder || inode->entries.empty(),
                   "Could not remove the folder: it is not empty.", path);
        storage.names.apply(
            NameChange{{storage.folder(folderOf(path)), nameString(path), nullptr}});
      });
}

kj::Promise<void> SimDisk::removeTree(kj::StringPtr path) {
  checkPath(path);
  Storage& storage = runner_->storage;
  return runner_->perform<void>(
      storage.judge(OpKind::kNames, path), true, [&storage, path = kj::heapString(path)]() {
        if (storage.find(path) == nullptr) return;
        storage.names.apply(
            NameChange{{storage.folder(folderOf(path)), nameString(path), nullptr}});
      });
}

kj::Promise<void> SimDisk::rename(kj::StringPtr from, kj::StringPtr to) {
  checkPath(from);
  checkPath(to);
  Storage& storage = runner_->storage;
  return runner_->perform<void>(
      storage.judge(OpKind::kNames, from), true,
      [&storage, from = kj::heapString(from), to = kj::heapString(to)]() {
        auto inode = storage.find(from);
        KJ_REQUIRE(inode != nullptr, "Could not rename the file: there is none.", from, to);
        auto target = storage.find(to);
        if (target == inode) return;
        KJ_REQUIRE(target == nullptr || target->folder == inode->folder,
                   "Could not rename: one is a file, the other a folder.", from, to);
        KJ_REQUIRE(target == nullptr || target->entries.empty(),
                   "Could not rename: the target folder is not empty.", from, to);
        storage.names.apply(
            NameChange{{storage.folder(folderOf(from)), nameString(from), nullptr},
                       {storage.folder(folderOf(to)), nameString(to), inode}});
      });
}

kj::Promise<void> SimDisk::link(kj::StringPtr from, kj::StringPtr to) {
  checkPath(from);
  checkPath(to);
  Storage& storage = runner_->storage;
  return runner_->perform<void>(
      storage.judge(OpKind::kNames, to), true,
      [&storage, from = kj::heapString(from), to = kj::heapString(to)]() {
        auto inode = storage.file(from);
        auto target = storage.find(to);
        if (target == inode) return;
        KJ_REQUIRE(target == nullptr, "Could not link: the new name is taken.", from, to);
        storage.names.apply(NameChange{{storage.folder(folderOf(to)), nameString(to), inode}});
      });
}

kj::Promise<void> SimDisk::syncDirectory(kj::StringPtr folder) {
  checkFolderPath(folder);
  Storage& storage = runner_->storage;
  auto verdict = storage.judge(OpKind::kSync, folder);
  return runner_->perform<void>(
      verdict, true, [&storage, folder = kj::heapString(folder), verdict]() {
        if (verdict.failed) kj::throwFatalException(ioError("sync the folder", folder));
        storage.names.sync(storage.folder(folder));
      });
}

kj::Promise<DiskSpace> SimDisk::space() {
  Storage& storage = runner_->storage;
  uint64_t total = std::min<uint64_t>(storage.capacityBytes, 1ull << 50);
  return DiskSpace{total, total - std::min(total, storage.usedBytes())};
}

}  // namespace packmoor::kernelio
