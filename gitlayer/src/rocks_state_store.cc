// The one file that knows RocksDB.
//
// RocksDB runs without its log: after a crash it holds what was flushed, and the journal has the
// rest. All tables are in one column family, so that a flush is atomic across them, and each
// batch carries the position row, so that whatever prefix of the batches survives says itself
// where it ends.
#include "state_store.h"

#include "durable_folders.h"
#include "row_cache.h"

#include <kj/debug.h>

#include <rocksdb/cache.h>
#include <rocksdb/db.h>
#include <rocksdb/filter_policy.h>
#include <rocksdb/options.h>
#include <rocksdb/slice.h>
#include <rocksdb/table.h>
#include <rocksdb/utilities/checkpoint.h>
#include <rocksdb/write_batch.h>

#include <atomic>

namespace packmoor::gitlayer {

namespace {

constexpr int kOpenFilesMax = 256;
constexpr double kMemtableBloomShare = 0.05;  // of a write buffer
constexpr int kBackgroundJobs = 2;
constexpr int kBloomBitsPerKey = 10;
constexpr size_t kInfoLogBytes = 1u << 20;
constexpr size_t kInfoLogFiles = 2;
constexpr size_t kManifestBytes = 4u << 20;
constexpr uint64_t kBytesPerSync = 1u << 20;

rocksdb::Slice slice(std::string_view text) { return {text.data(), text.size()}; }
std::string_view view(const rocksdb::Slice& text) { return {text.data(), text.size()}; }
std::string_view view(const std::string& text) { return text; }

// Throws what RocksDB says as a sentence that names the folder.
void require(const rocksdb::Status& status, std::string_view doing, const std::string& folder) {
  if (status.ok()) return;
  const auto type =
      status.IsNoSpace() ? kj::Exception::Type::OVERLOADED : kj::Exception::Type::FAILED;
  const char* hint = "";
  if (status.ToString().find("lock") != std::string::npos) {
    hint = " Another process may have this data directory open.";
  } else if (status.IsNoSpace()) {
    hint = " The disk is full: make room and start the node again.";
  } else if (status.IsCorruption()) {
    hint = " Its files are damaged: remove the folder, and the state is built again from peers.";
  }
  kj::throwFatalException(kj::Exception(
      type, __FILE__, __LINE__,
      kj::str("The state store in ", folder.c_str(), " fails while ", std::string(doing).c_str(),
              ": ", status.ToString().c_str(), ".", hint)));
}

// The database, where it is, and what of it is in memory; shared by the store and its snapshots.
struct Database {
  std::unique_ptr<rocksdb::DB> db;
  std::string folder;
  RowCache cache;

  ~Database() noexcept {
    if (db != nullptr) (void)db->Close();
  }
};

// Reads at one version of the database, or with `snapshot` null at the newest.
class RocksReader : public StateReader {
 public:
  RocksReader(std::shared_ptr<Database> database, const rocksdb::Snapshot* snapshot,
              RowCache::Version version)
      : database_(std::move(database)), version_(version) {
    options_.snapshot = snapshot;
  }

  bool get(std::string_view key, std::string& value) const override { return find(key, &value); }
  bool exists(std::string_view key) const override { return find(key, nullptr); }

  void scan(std::string_view prefix, std::string_view from, Each each) const override {
    if (RowCache::isInList(prefix)) {
      const auto list = keptList(prefix);
      if (list != nullptr) {
        for (auto row = list->lower_bound(std::max(prefix, from));
             row != list->end() && view(row->first).substr(0, prefix.size()) == prefix; ++row) {
          if (!each(row->first, row->second)) break;
        }
        return;
      }
    }
    scanStore(prefix, from, each);
  }

 protected:
  std::shared_ptr<Database> database_;
  rocksdb::ReadOptions options_;

 private:
  RowCache::Version version() const {
    return options_.snapshot == nullptr ? database_->cache.version() : version_;
  }

  bool find(std::string_view key, std::string* value) const {
    if (!RowCache::isKept(key)) return findInStore(key, value);
    const RowCache::Version at = version();
    const auto kept = database_->cache.get(key, at, value);
    if (kept != RowCache::Answer::kUnknown) return kept == RowCache::Answer::kFound;
    std::string row;
    const bool found = findInStore(key, &row);
    database_->cache.learn(key, at, found ? &row : nullptr);
    if (found && value != nullptr) *value = std::move(row);
    return found;
  }

  bool findInStore(std::string_view key, std::string* value) const {
    rocksdb::PinnableSlice found;
    const auto status =
        database_->db->Get(options_, database_->db->DefaultColumnFamily(), slice(key), &found);
    if (status.IsNotFound()) return false;
    require(status, "reading", database_->folder);
    if (value != nullptr) value->assign(found.data(), found.size());
    return true;
  }

  // The list that the prefix lies in, read and kept when it is short; nullptr: scan the store.
  std::shared_ptr<const RowCache::List> keptList(std::string_view prefix) const {
    const RowCache::Version at = version();
    auto list = database_->cache.list(prefix, at);
    if (list != nullptr || !database_->cache.wantsList(prefix, at)) return list;
    RowCache::List rows;
    scanStore(RowCache::listOf(prefix), {}, [&](std::string_view key, std::string_view value) {
      rows.emplace(key, value);
      return rows.size() <= RowCache::kListRowsMax;
    });
    database_->cache.learnList(prefix, at, std::move(rows));
    return database_->cache.list(prefix, at);
  }

  template <typename F>
  void scanStore(std::string_view prefix, std::string_view from, F&& each) const {
    const std::string end = endOfPrefix(prefix);
    const rocksdb::Slice bound = slice(end);
    rocksdb::ReadOptions options = options_;
    if (!end.empty()) options.iterate_upper_bound = &bound;
    std::unique_ptr<rocksdb::Iterator> entry(database_->db->NewIterator(options));
    for (entry->Seek(slice(std::max(prefix, from))); entry->Valid(); entry->Next()) {
      if (!each(view(entry->key()), view(entry->value()))) break;
    }
    require(entry->status(), "reading", database_->folder);
  }

  const RowCache::Version version_;
};

class RocksSnapshot final : public RocksReader {
 public:
  // The version first: the snapshot may hold more than it, which the cache then does not answer.
  explicit RocksSnapshot(const std::shared_ptr<Database>& database)
      : RocksSnapshot(database, database->cache.version()) {}
  ~RocksSnapshot() noexcept(false) { database_->db->ReleaseSnapshot(options_.snapshot); }

 private:
  RocksSnapshot(const std::shared_ptr<Database>& database, RowCache::Version version)
      : RocksReader(database, database->db->GetSnapshot(), version) {}
};

class RocksBatch final : public StateBatch {
 public:
  void put(std::string_view key, std::string_view head, std::string_view tail) override {
    const rocksdb::Slice keys[] = {slice(key)};
    const rocksdb::Slice values[] = {slice(head), slice(tail)};
    check(batch.Put(rocksdb::SliceParts(keys, 1), rocksdb::SliceParts(values, 2)));
    if (RowCache::isKept(key)) {
      changes.push_back({std::string(key), std::string(head).append(tail)});
    }
  }
  void erase(std::string_view key) override {
    check(batch.Delete(slice(key)));
    if (RowCache::isKept(key)) changes.push_back({std::string(key), std::nullopt});
  }
  void erasePrefix(std::string_view prefix) override {
    const std::string end = endOfPrefix(prefix);
    KJ_REQUIRE(!end.empty(), "erasing by a prefix without an end");
    check(batch.DeleteRange(slice(prefix), slice(end)));
    prefixes.emplace_back(prefix);
    std::erase_if(changes, [&](const RowCache::Change& change) {
      return view(change.key).substr(0, prefix.size()) == prefix;
    });
  }
  size_t bytes() const override { return batch.GetDataSize(); }

  rocksdb::WriteBatch batch;
  std::vector<RowCache::Change> changes;  // of rows that the cache keeps, in order
  std::vector<std::string> prefixes;      // erased before those changes

 private:
  static void check(const rocksdb::Status& status) {
    KJ_REQUIRE(status.ok(), "adding to a batch of the state store", status.ToString().c_str());
  }
};

class RocksStateStore final : public StateStore {
 public:
  RocksStateStore(kernelio::WorkerPool& workers, std::string root,
                  std::shared_ptr<Database> database)
      : workers_(workers), root_(std::move(root)), database_(std::move(database)), newest_(database_, nullptr, 0) {
    std::string row;
    if (newest_.get(kPositionKey, row)) position_ = decodePosition(row);
  }

  bool get(std::string_view key, std::string& value) const override {
    return newest_.get(key, value);
  }
  bool exists(std::string_view key) const override { return newest_.exists(key); }
  void scan(std::string_view prefix, std::string_view from, Each each) const override {
    newest_.scan(prefix, from, kj::mv(each));
  }

  kj::Own<StateBatch> newBatch() override { return kj::heap<RocksBatch>(); }

  void write(kj::Own<StateBatch> batch, replicator::LogPosition position) override {
    auto& rocks = kj::downcast<RocksBatch>(*batch);
    rocks.put(kPositionKey, encodePosition(position), {});
    const size_t bytes = rocks.bytes();
    rocksdb::WriteOptions options;
    options.disableWAL = true;
    database_->cache.beginWrite(rocks.changes, rocks.prefixes);
    auto status = database_->db->Write(options, &rocks.batch);
    // After a failed background flush (a full disk), writes are refused until it is resumed.
    if (!status.ok() && database_->db->Resume().ok()) {
      status = database_->db->Write(options, &rocks.batch);
    }
    // When this throws, the cache stays as within a write: it learns nothing more.
    require(status, "writing", database_->folder);
    database_->cache.endWrite(std::move(rocks.changes));
    position_ = position;
    unflushedBytes_ += bytes;
  }

  replicator::LogPosition position() const override { return position_; }

  std::shared_ptr<const StateReader> snapshot() const override {
    return std::make_shared<RocksSnapshot>(database_);
  }

  kj::Promise<void> flush() override {
    const uint64_t flushing = unflushedBytes_;
    return workers_
        .run([database = database_]() {
          rocksdb::FlushOptions options;
          options.wait = true;
          auto status = database->db->Flush(options);
          if (!status.ok() && database->db->Resume().ok()) status = database->db->Flush(options);
          require(status, "being made durable", database->folder);
        })
        .then([this, flushing]() { unflushedBytes_ -= flushing; });
  }

  uint64_t unflushedBytes() const override { return unflushedBytes_; }

  // Tables are linked; what is in memory is flushed first.
  kj::Promise<void> checkpoint(std::string folder) override {
    return workers_.run([database = database_, path = root_ + "/" + folder]() {
      rocksdb::Checkpoint* made = nullptr;
      require(rocksdb::Checkpoint::Create(database->db.get(), &made), "making a checkpoint",
              database->folder);
      std::unique_ptr<rocksdb::Checkpoint> checkpoint(made);
      require(checkpoint->CreateCheckpoint(path), "making a checkpoint", database->folder);
    });
  }

 private:
  kernelio::WorkerPool& workers_;
  const std::string root_;
  std::shared_ptr<Database> database_;
  RocksReader newest_;
  replicator::LogPosition position_;
  std::atomic<uint64_t> unflushedBytes_ = 0;  // written on workers, read on the loop
};

rocksdb::Options databaseOptions(const StateStoreOptions& options) {
  rocksdb::BlockBasedTableOptions table;
  table.block_cache = rocksdb::NewLRUCache(options.cacheBytes);
  table.cache_index_and_filter_blocks = true;  // so that the cache bounds all of them
  table.pin_l0_filter_and_index_blocks_in_cache = true;
  table.filter_policy.reset(rocksdb::NewBloomFilterPolicy(kBloomBitsPerKey));
  table.checksum = rocksdb::kXXH3;
  table.format_version = 5;

  rocksdb::Options result;
  result.table_factory.reset(rocksdb::NewBlockBasedTableFactory(table));
  result.create_if_missing = true;
  result.write_buffer_size = options.writeBufferBytes;
  result.max_write_buffer_number = kWriteBuffersMax;
  // Most look-ups are for objects that are not there: new ones of a push.
  result.memtable_whole_key_filtering = true;
  result.memtable_prefix_bloom_size_ratio = kMemtableBloomShare;
  result.compression = rocksdb::kNoCompression;  // most bytes are deflated objects
  result.level_compaction_dynamic_level_bytes = true;
  result.max_background_jobs = kBackgroundJobs;
  result.max_open_files = kOpenFilesMax;
  result.bytes_per_sync = kBytesPerSync;
  result.max_manifest_file_size = kManifestBytes;
  // Closing writes nothing: a clean shutdown flushes first, and a kill is no different.
  result.avoid_flush_during_shutdown = true;
  result.info_log_level = rocksdb::WARN_LEVEL;
  result.max_log_file_size = kInfoLogBytes;
  result.keep_log_file_num = kInfoLogFiles;
  result.stats_dump_period_sec = 0;
  result.stats_persist_period_sec = 0;
  return result;
}

std::shared_ptr<Database> openDatabase(const std::string& folder, const StateStoreOptions& options) {
  auto database = std::make_shared<Database>();
  database->folder = folder;
  rocksdb::DB* db = nullptr;
  require(rocksdb::DB::Open(databaseOptions(options), folder, &db), "being opened", folder);
  database->db.reset(db);
  return database;
}

}  // namespace

kj::Promise<kj::Own<StateStore>> openRocksStateStore(kernelio::Env& env, std::string folder,
                                                     StateStoreOptions options) {
  auto made = makeDurableFolders(env.disk, folder);
  std::string path = kj::str(env.disk.root(), "/", folder.c_str()).cStr();
  return made
      .then([&env, path = std::move(path), options]() {
        return env.workers.run([path, options]() { return openDatabase(path, options); });
      })
      .then([&env](std::shared_ptr<Database> database) -> kj::Own<StateStore> {
        return kj::heap<RocksStateStore>(env.workers, env.disk.root().cStr(), std::move(database));
      });
}

}  // namespace packmoor::gitlayer
