// ExtentStoreImpl: the sealed extents of a node, in memory by their sidecars. Split by concern:
//   extent_store.cc     what is sealed, held, read and repaired
//   extent_check.cc     reading for reading's sake
//   extent_expiry.cc    removal of what nothing holds
//   extent_open.cc      open(): leftovers removed, sidecars loaded
//   extent_writer.cc    one extent on its way in
#pragma once

#include "kernelio/co.h"
#include "replicator/extent_format.h"

#include <map>
#include <memory>
#include <set>
#include <string>
#include <unordered_map>

namespace packmoor::replicator {

class ExtentStoreImpl final : public ExtentStore, private kj::TaskSet::ErrorHandler {
 public:
  static constexpr size_t kOpenFilesMax = 128;
  static constexpr size_t kStandingMax = 1u << 16;   // bad blocks that are known one by one

  ExtentStoreImpl(kernelio::Env& env, const ExtentStoreOptions& options);
  ~ExtentStoreImpl() noexcept(false);

  Co<void> load();

  kj::Promise<kj::Own<ExtentWriter>> begin(ExtentId id) override;
  bool isSealed(ExtentId id) override { return sealed_.count(id) > 0; }
  kj::Maybe<ExtentInfo> info(ExtentId id) override;
  kj::Promise<void> whenSealed(ExtentId id) override;
  kj::Promise<kernelio::IoBuffer> readBlock(ExtentId id, uint64_t block) override;
  kj::Promise<kernelio::IoBuffer> readBlockHere(ExtentId id, uint64_t block) override;
  kj::Promise<ExtentCheck> check(ExtentId id, uint64_t place) override;
  void setBlockSource(kj::Maybe<BlockSource> source) override { source_ = kj::mv(source); }
  kj::Promise<void> repairBlock(ExtentId id, uint64_t block, kernelio::IoBuffer data) override;
  kj::Array<Hash128> blockChecksums(ExtentId id) override;
  void pin(ExtentId id) override;
  void unpin(ExtentId id) override;
  void link(ExtentId id) override;
  void unlink(ExtentId id) override;
  void startExpiry() override;
  int64_t expiryMs() override { return expiryMs_; }
  bool isSpoiled(ExtentId id) override { return spoiled_.count(id) > 0; }
  kj::String path(ExtentId id) override { return sealedPath(id, "data"); }
  ExtentStatistics statistics() override;
  kj::Array<ExtentInfo> list() override;
  kj::Array<ExtentId> missing() override;
  kj::ArrayPtr<const kj::String> damage() override { return damage_; }

  // ---- For the writer -----------------------------------------------------------------------
  kernelio::Env& env() { return env_; }
  kj::String quarantinePath(const ExtentId& id, const char* suffix) const;
  kj::String sealedPath(const ExtentId& id, const char* suffix) const;
  kj::String sealedFolder(const ExtentId& id) const;
  // Makes the folder's own name durable, once.
  Co<void> prepareFolder(kj::String folder);
  void sealed(ExtentInfo info, kj::Array<Hash128> checksums);
  void writerGone(const ExtentId& id);                 // after the seal
  void writerAbandoned(const ExtentId& id);            // its files are to be removed

 private:
  struct Sealed {
    ExtentInfo info;
    kj::Array<Hash128> checksums;
    int64_t idleSinceMs = 0;
  };
  // Why an extent is kept; may be known before the extent is here.
  struct Hold {
    uint64_t pins = 0;
    bool linked = false;
    bool letGo = false;   // it was linked in this life: only a log still names it
  };
  using FileRef = std::shared_ptr<kj::Own<kernelio::File>>;

  Co<kj::Own<ExtentWriter>> beginBody(ExtentId id);
  Co<FileRef> openData(ExtentId id);
  Co<FileRef> openDirect(ExtentId id);
  bool spoils(const ExtentId& id, uint64_t block);
  // `direct`: from the disk itself.
  Co<kernelio::IoBuffer> readBlockBody(ExtentId id, uint64_t block, bool direct);
  Co<kernelio::IoBuffer> readOrRepair(ExtentId id, uint64_t block);
  Co<kernelio::IoBuffer> repairFromSource(ExtentId id, uint64_t block, kj::Exception problem);
  Co<ExtentCheck> checkBlock(ExtentId id, uint64_t block);
  Co<ExtentCheck> checkSidecar(ExtentId id);
  Co<void> repairBlockBody(ExtentId id, uint64_t block, kernelio::IoBuffer data);
  Co<void> loadFolder(kj::String folder);
  Co<void> loadExtent(kj::String folder, kj::String name);
  Co<void> removeAbandoned(ExtentId id);
  void noteBad(const ExtentId& id, uint64_t block);
  const Sealed& requireBlock(const ExtentId& id, uint64_t block);

  int64_t nowMs() const;
  bool held(const ExtentId& id) const;
  void heldChanged(const ExtentId& id);
  void scheduleExpiry();
  Co<void> expire();
  Co<void> removeSealed(ExtentId id);
  Co<void> removeAndWait(ExtentId id);
  Co<void> expireDamaged();
  void taskFailed(kj::Exception&& exception) override;

  kernelio::Env& env_;
  const std::string folder_;
  const int64_t expiryMs_;
  const size_t quarantinedMax_;

  std::unordered_map<ExtentId, Sealed> sealed_;
  std::unordered_map<ExtentId, Hold> holds_;
  std::set<ExtentId> writing_;
  std::map<ExtentId, kj::ForkedPromise<void>> removing_;  // names not free yet
  std::multimap<ExtentId, kj::Own<kj::PromiseFulfiller<void>>> awaited_;
  std::set<std::string> foldersDurable_;
  std::map<ExtentId, FileRef> open_;
  ExtentId directId_;            // the one that was checked last
  FileRef direct_;
  kj::Vector<kj::String> damage_;
  std::set<ExtentId> spoiled_;
  std::set<ExtentId> damaged_;   // as damage(), and not written again since
  std::set<std::pair<ExtentId, uint64_t>> standing_;      // bad blocks that are not repaired
  kj::Maybe<BlockSource> source_;

  bool expiryStarted_ = false, expiring_ = false;
  std::set<std::pair<int64_t, ExtentId>> idle_;           // by the time since when

  ExtentStatistics statistics_;
  kj::TaskSet tasks_;
};

kj::Own<ExtentWriter> makeExtentWriter(ExtentStoreImpl& store, ExtentId id,
                                       kj::Own<kernelio::File> file);

}  // namespace packmoor::replicator
