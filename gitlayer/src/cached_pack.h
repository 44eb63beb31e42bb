// CachedPack: a pack in the form in which it is sent, while it is built and afterwards.
//
// Its bytes lie in memory when they are few, else in a file without a name in the cache's folder, which
// is gone with the process. Whoever sends it holds a Reader; a pack that nobody reads any more before it
// is whole is given up. Published bytes always end at the end of a side-band packet.
//
// Loop: the node's; SpillFile::append() alone is called on workers, one at a time.
#pragma once

#include "gitlayer/pack_builder.h"

#include <kj/async-io.h>
#include <kj/io.h>
#include <kj/refcount.h>

#include <set>
#include <string>
#include <vector>

namespace packmoor::gitlayer {

// Where a pack goes that does not stay in memory.
class SpillFile {
 public:
  explicit SpillFile(std::string folder) : folder_(std::move(folder)) {}
  KJ_DISALLOW_COPY(SpillFile);
  // Creates the file first. Throws a sentence when the disk takes no more.
  void append(kj::ArrayPtr<const kj::byte> bytes);
  // Gives the room of what lies before `offset` back.
  void forget(uint64_t offset);
  bool isOpen() const { return file_.get() >= 0; }
  int fd() const { return file_.get(); }

 private:
  const std::string folder_;
  kj::AutoCloseFd file_;
  uint64_t bytes_ = 0, forgotten_ = 0;
};

class CachedPack final : public kj::Refcounted {
 public:
  explicit CachedPack(std::string folder) : file_(std::make_shared<SpillFile>(std::move(folder))) {}

  // Somebody who is being sent the pack; counts for as long as it lives.
  class Reader {
   public:
    explicit Reader(kj::Own<CachedPack> pack) : pack_(kj::mv(pack)) { pack_->readers_.insert(this); }
    ~Reader() noexcept(false);
    KJ_DISALLOW_COPY(Reader);

    CachedPack& pack() { return *pack_; }
    uint64_t sent() const { return sent_; }
    // Writes what is published and not yet sent.
    kj::Promise<void> send(kj::AsyncOutputStream& out);

   private:
    void advance(uint64_t bytes);
    kj::Own<CachedPack> pack_;
    uint64_t sent_ = 0;
  };

  // ---- Readers -----------------------------------------------------------------------------
  uint64_t bytes() const { return bytes_; }        // published
  bool ended() const { return ended_; }
  const kj::Maybe<kj::Exception>& failure() const { return failure_; }   // once it has ended
  // Published more, ended, or found more objects.
  kj::Promise<void> whenChanged();
  uint64_t objectsFound = 0;                       // while it is planned
  bool planned = false;
  PackBuildStatistics statistics;                  // once planned; whole once ended
  size_t wholePacks = 0;

  // ---- The builder -------------------------------------------------------------------------
  const std::shared_ptr<SpillFile>& file() { return file_; }
  // Bytes that are in the file, or all that there are.
  void published(uint64_t bytes);
  void publishedWhole(kj::Array<const kj::byte> bytes);
  void end(kj::Maybe<kj::Exception> failure);
  void changed();
  size_t readers() const { return readers_.size(); }
  // The least that a reader has been sent. Later readers begin there only if nothing was forgotten.
  uint64_t sentToAll() const;
  kj::Promise<void> whenSent();

 private:
  static void fulfillAll(std::vector<kj::Own<kj::PromiseFulfiller<void>>>& waiters);
  static kj::Promise<void> wait(std::vector<kj::Own<kj::PromiseFulfiller<void>>>& waiters);

  std::shared_ptr<SpillFile> file_;
  kj::Array<const kj::byte> memory_;
  uint64_t bytes_ = 0;
  bool ended_ = false;
  kj::Maybe<kj::Exception> failure_;
  std::set<Reader*> readers_;
  std::vector<kj::Own<kj::PromiseFulfiller<void>>> changeWaiters_, sentWaiters_;
};

}  // namespace packmoor::gitlayer
