#include "rocks_options.h"

#include <rocksdb/cache.h>
#include <rocksdb/env.h>
#include <rocksdb/file_checksum.h>
#include <rocksdb/filter_policy.h>
#include <rocksdb/listener.h>
#include <rocksdb/table.h>

namespace packmoor::gitlayer {

namespace {

constexpr int kOpenFilesMax = 256;
constexpr double kMemtableBloomShare = 0.05;  // of a write buffer
constexpr int kBackgroundJobs = 2;
constexpr int kBloomBitsPerKey = 10;
constexpr size_t kManifestBytes = 4u << 20;
constexpr uint64_t kBytesPerSync = 1u << 20;

// RocksDB's own notes are not kept. Its log file, once a full disk has refused a line of it, ends the
// process at the next one: an assertion about writers that failed, which the distribution's library has
// compiled in. What goes wrong is told by the call that fails.
class NoInfoLog final : public rocksdb::Logger {
 public:
  using rocksdb::Logger::Logv;
  void Logv(const char*, va_list) override {}
};

// Only the store resumes after a full disk. RocksDB's own recovery, by a thread that it starts, does
// not bear another beside it: a flush then says that it is done before it has begun.
class NoRecoveryByItself final : public rocksdb::EventListener {
 public:
  void OnErrorRecoveryBegin(rocksdb::BackgroundErrorReason, rocksdb::Status,
                            bool* byItself) override {
    *byItself = false;
  }
};

}  // namespace

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
  result.info_log = std::make_shared<NoInfoLog>();
  result.listeners.push_back(std::make_shared<NoRecoveryByItself>());
  result.max_bgerror_resume_count = 0;  // the same for other failures
  result.stats_dump_period_sec = 0;
  result.stats_persist_period_sec = 0;
  // Of each table as a whole, kept in the manifest, for whoever reads it only to see that it is whole.
  result.file_checksum_gen_factory = rocksdb::GetFileChecksumGenCrc32cFactory();
  return result;
}

}  // namespace packmoor::gitlayer
