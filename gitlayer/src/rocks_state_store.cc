// The state store on RocksDB; how that is set up is in rocks_options.cc, and nothing else knows it.
//
// RocksDB runs without its log: after a crash it holds what was flushed, and the journal has the
// rest. All tables are in one column family, so that a flush is atomic across them, and each
// batch carries the position row, so that whatever prefix of the batches survives says itself
// where it ends.
#include "state_store.h"

#include "durable_folders.h"
#include "kernelio/co.h"
#include "replicator/outcome.h"
#include "rocks_options.h"
#include "row_cache.h"

#include <kj/debug.h>

#include <rocksdb/db.h>
#include <rocksdb/file_checksum.h>
#include <rocksdb/slice.h>
#include <rocksdb/sst_file_reader.h>
#include <rocksdb/utilities/checkpoint.h>
#include <rocksdb/write_batch.h>

#include <sys/statvfs.h>

#include <atomic>

namespace packmoor::gitlayer {

namespace {

rocksdb::Slice slice(std::string_view text) { return {text.data(), text.size()}; }
std::string_view view(const rocksdb::Slice& text) { return {text.data(), text.size()}; }
std::string_view view(const std::string& text) { return text; }

// What the files say is wrong, or a sector of them cannot be read.
bool isDamage(const rocksdb::Status& status) {
  if (status.IsCorruption()) return true;
  if (!status.IsIOError() || status.IsNoSpace()) return false;
  const std::string text = status.ToString();
  return text.find("Input/output error") != std::string::npos ||
         text.find("No such file") != std::string::npos;
}

// Throws what RocksDB says as a sentence that names the folder. Damage is noted; it is of the type of what
// is not to be had here now: another node has it, and this one gets it back.
void require(const rocksdb::Status& status, std::string_view doing, const std::string& folder,
             StateDamage& damage) {
  if (status.ok()) return;
  const auto type = status.IsNoSpace()  ? kj::Exception::Type::OVERLOADED
                    : isDamage(status) ? kj::Exception::Type::DISCONNECTED
                                       : kj::Exception::Type::FAILED;
  const char* hint = "";
  if (isDamage(status)) {
    hint = " Its files are damaged; it is brought back from another node.";
    damage.note(kj::str("the state store in ", folder.c_str(), " fails its checksums while ",
                        std::string(doing).c_str(), ": ", status.ToString().c_str()).cStr());
  } else if (status.IsNoSpace()) {
    hint = " The disk is full: make room; it goes on by itself then.";
  } else if (status.ToString().find("lock") != std::string::npos) {
    hint = " Another process may have this data directory open.";
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
  std::shared_ptr<StateDamage> damage;
  RowCache cache;
  mutable std::atomic<bool> isFull = false;   // as room() found it last
  uint64_t quietBytes = 0;   // so much in memory makes RocksDB write no files yet

  ~Database() noexcept {
    if (db != nullptr) (void)db->Close();
  }
  void require(const rocksdb::Status& status, std::string_view doing) const {
    gitlayer::require(status, doing, folder, *damage);
  }

  // That the disk takes `bytes` more. RocksDB is not let run into a full disk while that can be
  // helped: once it has, resuming it before there is room may wait for ever.
  rocksdb::Status room(uint64_t bytes) const {
    struct statvfs disk;
    if (statvfs(folder.c_str(), &disk) != 0 || disk.f_blocks == 0) return {};  // it does not tell
    const uint64_t left = uint64_t{disk.f_bavail} * disk.f_frsize;
    isFull = left < bytes + kSpareBytes;
    if (!isFull) return {};
    return rocksdb::Status::NoSpace(std::to_string(left) + " bytes are left");
  }

  // Returns when the batches up to the one of record `upTo` are in tables that the catalogue names,
  // all of them synced; `bytes`: about so much is written. RocksDB's word alone does not do: a flush
  // that met a recovery from a full disk was seen to say that it is done before it had begun. So the
  // position row is read, of what is in tables only.
  void makeDurable(replicator::RecordIndex upTo, uint64_t bytes) {
    rocksdb::FlushOptions flush;
    flush.wait = true;
    rocksdb::Status status;
    for (int attempt = 0; attempt < kFlushAttempts; ++attempt) {
      require(room(bytes), "being made durable");
      status = db->Flush(flush);
      if (status.ok() && durable().index >= upTo) return;
      if (!resume(bytes)) break;
    }
    if (status.ok()) status = rocksdb::Status::NoSpace("it is not in its files after a flush");
    require(status, "being made durable");
  }

  // After a full disk, if there is room by now: whether it takes writes again.
  bool resume(uint64_t bytes) { return room(bytes).ok() && db->Resume().ok(); }

 private:
  static constexpr int kFlushAttempts = 3;
  static constexpr uint64_t kSpareBytes = 8u << 20;   // beyond what is in memory

  replicator::LogPosition durable() const {
    rocksdb::ReadOptions options;
    options.read_tier = rocksdb::kPersistedTier;
    std::string row;
    const auto status = db->Get(options, slice(kPositionKey), &row);
    if (status.IsNotFound()) return {};
    require(status, "reading");
    return decodePosition(row);
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
    database_->require(status, "reading");
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
    database_->require(entry->status(), "reading");
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
  RocksStateStore(kernelio::Env& env, std::string folder, std::shared_ptr<Database> database)
      : disk_(env.disk), workers_(env.workers), root_(env.disk.root().cStr()),
        folder_(std::move(folder)), database_(std::move(database)), newest_(database_, nullptr, 0) {
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
    // RocksDB may begin to write files by itself from here on. And what could not be made durable is not
    // to become more: then it is said early, and in one place, that the disk is full.
    const uint64_t held = unflushedBytes_ + bytes;
    if (held >= database_->quietBytes || database_->isFull) database_->require(database_->room(held), "writing");
    rocksdb::WriteOptions options;
    options.disableWAL = true;
    database_->cache.beginWrite(rocks.changes, rocks.prefixes);
    const auto status = database_->db->Write(options, &rocks.batch);
    // When this throws, the cache stays as within a write: it learns nothing more.
    database_->require(status, "writing");
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
        .run([database = database_, upTo = position_.index, flushing]() {
          database->makeDurable(upTo, flushing);
        })
        .then([this, flushing]() { unflushedBytes_ -= flushing; });
  }

  kj::Promise<void> resume() override {
    return workers_.run([database = database_, bytes = unflushedBytes()]() {
      (void)database->resume(bytes);
    });
  }

  uint64_t unflushedBytes() const override { return unflushedBytes_; }

  // Tables are linked; what is in memory is flushed first.
  kj::Promise<void> checkpoint(std::string folder) override {
    return workers_.run([database = database_, path = root_ + "/" + folder,
                         upTo = position_.index, bytes = unflushedBytes()]() {
      database->makeDurable(upTo, bytes);
      rocksdb::Checkpoint* made = nullptr;
      database->require(rocksdb::Checkpoint::Create(database->db.get(), &made),
                        "making a checkpoint");
      std::unique_ptr<rocksdb::Checkpoint> checkpoint(made);
      database->require(checkpoint->CreateCheckpoint(path), "making a checkpoint");
    });
  }

  std::vector<replicator::StoredFile> files() override {
    std::vector<replicator::StoredFile> files;
    std::vector<rocksdb::LiveFileMetaData> tables;
    database_->db->GetLiveFilesMetaData(&tables);
    for (const auto& table : tables) files.push_back({table.name.substr(1), table.size});
    files.push_back({kCatalogue, 0});
    return files;
  }

  kj::Promise<void> verify(std::string name, replicator::Pace& pace) override {
    if (name == kCatalogue) return verifyCatalogue();
    return verifyTable(std::move(name), pace);
  }

 private:
  // Tables are the files of rows; the catalogue is which of them there are (CURRENT, MANIFEST).
  static constexpr const char* kCatalogue = "MANIFEST";
  static constexpr size_t kVerifyBytes = 256u << 10;

  kj::Promise<void> verifyCatalogue();
  Co<void> verifyTable(std::string name, replicator::Pace& pace);
  Co<std::string> problemOf(rocksdb::LiveFileMetaData table, replicator::Pace& pace);
  bool findTable(const std::string& name, rocksdb::LiveFileMetaData& found) const;

  kernelio::Disk& disk_;
  kernelio::WorkerPool& workers_;
  const std::string root_, folder_;   // the second below the first
  std::shared_ptr<Database> database_;
  RocksReader newest_;
  replicator::LogPosition position_;
  std::atomic<uint64_t> unflushedBytes_ = 0;  // written on workers, read on the loop
};

// Reads which tables there are as an opening does, beside the database that is open. A table may go
// meanwhile: nothing is asked of the tables themselves.
rocksdb::Status readCatalogue(const std::string& folder, const StateStoreOptions& options) {
  rocksdb::Options look = databaseOptions(options);
  look.create_if_missing = false;
  look.skip_checking_sst_file_sizes_on_db_open = true;
  look.skip_stats_update_on_db_open = true;
  rocksdb::DB* db = nullptr;
  const auto status = rocksdb::DB::OpenForReadOnly(look, folder, &db);
  delete db;
  return status;
}

rocksdb::Status readTable(const std::string& path, bool direct) {
  rocksdb::Options options = databaseOptions({});
  options.use_direct_reads = direct;
  rocksdb::SstFileReader reader(options);
  const auto opened = reader.Open(path);
  return opened.ok() ? reader.VerifyChecksum() : opened;
}

std::shared_ptr<Database> openDatabase(const std::string& folder, const StateStoreOptions& options) {
  auto database = std::make_shared<Database>();
  database->folder = folder;
  database->damage = options.damage;
  database->quietBytes = options.writeBufferBytes / 2;
  rocksdb::DB* db = nullptr;
  database->require(rocksdb::DB::Open(databaseOptions(options), folder, &db), "being opened");
  database->db.reset(db);
  return database;
}

// ---- Files that are read to see whether they are whole -----------------------------------------

kj::Promise<void> RocksStateStore::verifyCatalogue() {
  return workers_.run([database = database_]() {
    auto status = readCatalogue(database->folder, {});
    // It may have been replaced by a new one while it was read.
    if (!status.ok()) status = readCatalogue(database->folder, {});
    if (isDamage(status)) {
      database->damage->note(kj::str("the catalogue of the state store in ",
                                     database->folder.c_str(), " is damaged: ",
                                     status.ToString().c_str()).cStr());
    }
  });
}

bool RocksStateStore::findTable(const std::string& name, rocksdb::LiveFileMetaData& found) const {
  std::vector<rocksdb::LiveFileMetaData> tables;
  database_->db->GetLiveFilesMetaData(&tables);
  for (auto& table : tables) {
    if (table.name.substr(1) != name) continue;
    found = std::move(table);
    return true;
  }
  return false;
}

Co<void> RocksStateStore::verifyTable(std::string name, replicator::Pace& pace) {
  rocksdb::LiveFileMetaData table;
  if (!findTable(name, table)) co_return;
  auto verifying = problemOf(table, pace);
  const std::string problem = co_await kj::mv(verifying);
  // A table that is gone by now was needed no more.
  if (problem.empty() || !findTable(name, table)) co_return;
  database_->damage->note(kj::str("table ", name.c_str(), " of the state store in ",
                                  database_->folder.c_str(), " is damaged: ",
                                  problem.c_str()).cStr());
}

// Past the page cache, which may hold what the disk does not give any more. Empty: it is whole.
Co<std::string> RocksStateStore::problemOf(rocksdb::LiveFileMetaData table,
                                           replicator::Pace& pace) {
  const std::string name = table.name.substr(1);
  if (table.file_checksum_func_name != rocksdb::kStandardDbFileChecksumFuncName) {
    // Of a time before tables had a checksum as a whole: block by block.
    co_await pace(table.size);
    auto reading = workers_.run([database = database_, name]() {
      const std::string path = database->folder + "/" + name;
      auto status = readTable(path, true);
      if (!status.ok()) status = readTable(path, false);  // a file system without such reads
      return status.ok() ? std::string() : status.ToString();
    });
    auto problem = co_await kj::mv(reading);
    co_return problem;
  }
  auto checksum = rocksdb::GetFileChecksumGenCrc32cFactory()->CreateFileChecksumGenerator({});
  kernelio::OpenOptions options;
  options.direct = true;
  const std::string path = folder_ + "/" + name;
  auto opening = replicator::outcomeOf(disk_.open(path, options));
  auto opened = co_await kj::mv(opening);
  if (!opened.ok()) co_return KJ_ASSERT_NONNULL(opened.exception).getDescription().cStr();
  for (uint64_t at = 0; at < table.size; at += kVerifyBytes) {
    const size_t bytes = std::min<uint64_t>(kVerifyBytes, table.size - at);
    co_await pace(bytes);
    auto reading = replicator::outcomeOf((*opened.value)->read(at, bytes));
    auto read = co_await kj::mv(reading);
    if (!read.ok()) co_return KJ_ASSERT_NONNULL(read.exception).getDescription().cStr();
    if (read.value->size() != bytes) co_return std::string("it is too short");
    checksum->Update(reinterpret_cast<const char*>(read.value->begin()), bytes);
  }
  checksum->Finalize();
  co_return checksum->GetChecksum() == table.file_checksum ? std::string()
                                                           : std::string("its checksum differs");
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
      .then([&env, folder](std::shared_ptr<Database> database) -> kj::Own<StateStore> {
        return kj::heap<RocksStateStore>(env, folder, std::move(database));
      });
}

}  // namespace packmoor::gitlayer
