// StateStore: the ordered key-value store under a volume's state.
//
// Why: the state machine must not know RocksDB, and the simulator must not run it. Both stores
// promise the same: a batch is applied whole or not at all, together with the position of the
// last record that it contains; after a crash the store is exactly as it was at some position,
// never older than the last flush().
//
// Durability: write() is not durable, the journal is. flush() makes everything written before it
// durable. A store may make more durable by itself at any time; position() after opening tells.
//
// Damage: every read checks what it reads against its checksum, and what does not match is noted and
// thrown, never given. verify() reads a file for nothing else.
//
// Threads: write() and flush() from one place at a time. Snapshots and reads from any thread.
// Snapshots stay readable after the store is gone. Errors of the store are thrown as sentences.
#pragma once

#include "kernelio/env.h"
#include "replicator/state_machine.h"

#include <kj/async.h>
#include <kj/function.h>
#include <kj/mutex.h>

#include <atomic>
#include <memory>
#include <optional>
#include <string>
#include <string_view>

namespace packmoor::gitlayer {

// Reading, of the newest state or of a snapshot. Keys are in byte order.
class StateReader {
 public:
  virtual ~StateReader() noexcept(false) {}
  // False: no such key; `value` is then unchanged.
  virtual bool get(std::string_view key, std::string& value) const = 0;
  virtual bool exists(std::string_view key) const = 0;
  // Calls back with each entry whose key has the prefix and is not below `from`, until it
  // returns false. The views are valid within the call. The store is not changed meanwhile.
  using Each = kj::Function<bool(std::string_view key, std::string_view value)>;
  virtual void scan(std::string_view prefix, std::string_view from, Each each) const = 0;
};

class StateBatch {
 public:
  virtual ~StateBatch() noexcept(false) {}
  // The value is the two parts, one behind the other.
  virtual void put(std::string_view key, std::string_view head, std::string_view tail = {}) = 0;
  virtual void erase(std::string_view key) = 0;
  // Erases what the store holds below the prefix and what this batch put there before.
  virtual void erasePrefix(std::string_view prefix) = 0;
  virtual size_t bytes() const = 0;
};

// What was found damaged of a store's files; the first finding stays. Any thread.
class StateDamage {
 public:
  void note(std::string what) {
    auto text = text_.lockExclusive();
    if (text->empty()) *text = std::move(what);
    found_ = true;
  }
  std::string text() const { return found_ ? *text_.lockShared() : std::string(); }

 private:
  std::atomic<bool> found_ = false;
  kj::MutexGuarded<std::string> text_;
};

class StateStore : public StateReader {
 public:
  virtual kj::Own<StateBatch> newBatch() = 0;  // written to this store only
  virtual void write(kj::Own<StateBatch> batch, replicator::LogPosition position) = 0;
  // Of the last batch written; after opening, what was durable (zeros: empty).
  virtual replicator::LogPosition position() const = 0;
  virtual std::shared_ptr<const StateReader> snapshot() const = 0;
  virtual kj::Promise<void> flush() = 0;
  // After a write or a flush that a full disk refused: takes writes again, if there is room by now. Where
  // the store looks for room by itself, it may go on a few seconds later.
  virtual kj::Promise<void> resume() { return kj::READY_NOW; }
  virtual uint64_t unflushedBytes() const = 0;  // in batches written since the last flush
  // Writes what write() has written so far as files that never change into `folder` below the
  // disk's root, whose parent is there and which is not; openStateStore() opens it. Not durable.
  // Not concurrent with write().
  virtual kj::Promise<void> checkpoint(std::string folder) = 0;

  // The files as they are now, and whether one of them is whole (replicator/state_machine.h). What is
  // found goes to the options' StateDamage.
  virtual std::vector<replicator::StoredFile> files() = 0;
  virtual kj::Promise<void> verify(std::string name, replicator::Pace& pace) = 0;
};

struct StateStoreOptions {
  uint64_t cacheBytes = 64ull << 20;        // for blocks read from files
  uint64_t writeBufferBytes = 16ull << 20;  // each; at most kWriteBuffersMax are in memory
  // Told of damage also when opening fails for it.
  std::shared_ptr<StateDamage> damage = std::make_shared<StateDamage>();
};
constexpr int kWriteBuffersMax = 3;

// RocksDB with its log switched off, in `folder` below the disk's root. Opening and flushing run
// on the worker pool.
kj::Promise<kj::Own<StateStore>> openRocksStateStore(kernelio::Env& env, std::string folder,
                                                     StateStoreOptions options);

// An ordered map in memory, for the simulator and tests; flush() writes all of it to one file.
// Meant for small states.
kj::Promise<kj::Own<StateStore>> openMapStateStore(
    kernelio::Env& env, std::string path,
    std::shared_ptr<StateDamage> damage = std::make_shared<StateDamage>());

// The first for a disk that has files of the operating system, else the second.
kj::Promise<kj::Own<StateStore>> openStateStore(kernelio::Env& env, std::string folder,
                                                StateStoreOptions options);

// The applied position's row, the same in both stores.
constexpr std::string_view kPositionKey = "A";
std::string encodePosition(const replicator::LogPosition& position);
replicator::LogPosition decodePosition(std::string_view value);

// The first key behind all that have the prefix; empty when there is none.
std::string endOfPrefix(std::string_view prefix);

}  // namespace packmoor::gitlayer
