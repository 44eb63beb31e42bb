// Payloads of the state machine's records, read and written (schema/git_records.proto).
//
// Why not protobuf's own classes for ref transactions: they copy each object's bytes on the way
// in and on the way out, and a transaction is read twice on the primary and once on every other
// member. These views point into the payload. The bytes are protobuf's; tests hold the two
// readers against one another. Fields of later versions are passed over.
//
// decode...() throw a sentence when the payload is not what its kind says.
#pragma once

#include "gitlayer/git_node.h"

#include <optional>
#include <string_view>
#include <vector>

namespace packmoor::gitlayer {

// Values of GitRecordKind.
constexpr replicator::RecordKind kRefTransaction{16};
constexpr replicator::RecordKind kRepositoryCreate{17};
constexpr replicator::RecordKind kRepositoryDelete{18};
constexpr replicator::RecordKind kSettle{19};
constexpr replicator::RecordKind kVerify{20};
constexpr replicator::RecordKind kPrune{21};
constexpr replicator::RecordKind kRepositorySet{22};
constexpr replicator::RecordKind kRepack{24};
constexpr replicator::RecordKind kRepositoryRename{23};
constexpr replicator::RecordKind kRepositoryDiscard{25};
constexpr replicator::RecordKind kRepositoryRestore{26};
constexpr replicator::RecordKind kRepositoryFork{27};
constexpr bool isNaming(replicator::RecordKind kind) {
  return kind == kRepositoryRename || kind == kRepositoryDiscard || kind == kRepositoryRestore;
}

struct RefUpdateView {
  std::string_view name;
  ObjectId oldId, newId, peeled;
  bool forward = false;
};

struct HotObjectView {
  ObjectId id;
  ObjectType type = ObjectType::kNone;
  uint64_t bytes = 0;
  std::string_view deflated;
};

struct RefTransactionView {
  replicator::TxnId txn;
  RepositoryId repository;
  std::vector<RefUpdateView> updates;
  std::vector<HotObjectView> objects;
  std::optional<PackExtents> pack;
  uint64_t verifiedAt = 0;
  bool atomic = false;
  std::string_view principal, client;
  int64_t timeMs = 0;
  std::vector<std::string_view> pushOptions;
};

RefTransactionView decodeRefTransaction(kj::ArrayPtr<const kj::byte> payload);
kj::Array<const kj::byte> encodeRefTransaction(const RepositoryId& repository,
                                               const PushTransaction& transaction, int64_t timeMs);

struct RepositoryCreateRecord {
  replicator::TxnId txn;
  RepositoryId repository;
  std::string name, description, head;
  int64_t timeMs = 0;
  std::string principal;
};
RepositoryCreateRecord decodeRepositoryCreate(kj::ArrayPtr<const kj::byte> payload);
kj::Array<const kj::byte> encodeRepositoryCreate(const RepositoryCreateRecord& record);

struct RepositoryDeleteRecord {
  replicator::TxnId txn;
  RepositoryId repository;
  std::string name;
  int64_t timeMs = 0;
  std::string principal;
  uint64_t discardedAtIndex = 0;
};
RepositoryDeleteRecord decodeRepositoryDelete(kj::ArrayPtr<const kj::byte> payload);
kj::Array<const kj::byte> encodeRepositoryDelete(const RepositoryDeleteRecord& record);

struct RepositorySetRecord {
  replicator::TxnId txn;
  RepositoryId repository;
  std::string name;
  Settings changes;
  int64_t timeMs = 0;
  std::string principal;
};
RepositorySetRecord decodeRepositorySet(kj::ArrayPtr<const kj::byte> payload);
kj::Array<const kj::byte> encodeRepositorySet(const RepositorySetRecord& record);

// How the objects of a settled pack lie: as `order` in the schema says.
enum class SettleOrder : uint8_t { kNames = 0, kTime = 1 };

struct RepositoryNamingRecord {
  replicator::TxnId txn;
  RepositoryId repository;
  std::string name, to;
  int64_t timeMs = 0;
  std::string principal;
};
RepositoryNamingRecord decodeRepositoryNaming(kj::ArrayPtr<const kj::byte> payload);
kj::Array<const kj::byte> encodeRepositoryNaming(const RepositoryNamingRecord& record);

struct RepositoryForkRecord {
  replicator::TxnId txn;
  RepositoryId repository, parent;
  std::string name, parentName;
  bool defaultBranchOnly = false;
  int64_t timeMs = 0;
  std::string principal;
};
RepositoryForkRecord decodeRepositoryFork(kj::ArrayPtr<const kj::byte> payload);
kj::Array<const kj::byte> encodeRepositoryFork(const RepositoryForkRecord& record);

struct SettleRecord {
  replicator::TxnId txn;
  RepositoryId repository;
  uint64_t upto = 0;
  uint64_t computedAt = 0;
  replicator::Hash128 packRoot, indexRoot;
  uint32_t objectCount = 0;
  uint64_t packBytes = 0;
  replicator::ExtentId pack, index;
  SettleOrder order = SettleOrder::kTime;
};
SettleRecord decodeSettle(kj::ArrayPtr<const kj::byte> payload);
kj::Array<const kj::byte> encodeSettle(const SettleRecord& record);

// What one prune drops at most, so that its record stays well below the bound of a payload.
constexpr size_t kPruneObjectsMax = 200'000;
constexpr size_t kPrunePacksMax = 10'000;

struct PruneRecord {
  replicator::TxnId txn;
  RepositoryId repository;
  uint64_t computedAt = 0;
  std::vector<ObjectId> objects;
  std::vector<replicator::ExtentId> packs;
};
PruneRecord decodePrune(kj::ArrayPtr<const kj::byte> payload);
kj::Array<const kj::byte> encodePrune(const PruneRecord& record);

// What one repack replaces at most, for the same reason.
constexpr size_t kRepackPacksMax = 10'000;

struct RepackRecord {
  replicator::TxnId txn;
  RepositoryId repository;
  std::vector<replicator::ExtentId> replaced;   // ascending, none twice
  PackExtents pack;
  replicator::Hash128 packRoot, indexRoot;
  uint64_t computedAt = 0;
  int64_t timeMs = 0;
};
RepackRecord decodeRepack(kj::ArrayPtr<const kj::byte> payload);
kj::Array<const kj::byte> encodeRepack(const RepackRecord& record);

kj::Array<const kj::byte> encodeVerify(const replicator::TxnId& txn);
// The txn id of any record of the state machine, null when it has none.
replicator::TxnId txnOf(const replicator::Record& record);

// What apply() returns and the txn table keeps.
struct ApplyResult {
  enum class Status : uint8_t { kDone, kRefused, kVerifyAgain, kExists, kNotFound, kVoid };
  Status status = Status::kDone;
  std::string message;
  std::vector<std::string> refProblems;  // empty: all done; else one per update
  std::vector<std::string> refDetails;   // of refProblems, for people; empty: none
};
ApplyResult refused(ApplyResult::Status status, std::string message);
kj::Array<const kj::byte> encodeResult(const ApplyResult& result);
ApplyResult decodeResult(kj::ArrayPtr<const kj::byte> bytes);

}  // namespace packmoor::gitlayer
