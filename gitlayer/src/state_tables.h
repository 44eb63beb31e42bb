// The tables of a volume's state: keys and rows.
//
// One letter names the table; ids are their bytes, numbers in keys big-endian:
//
//   A                              the applied position (state_store.h)
//   n <repository name>            repository id
//   o <repository name>            id of the repository that had the name last, and has it no more
//   r <repository id>              RepositoryRow (schema/git_state.proto)
//   f <repository id> <ref name>   object id, and the peeled id where it is a tag
//   h <repository id> <object id>  hot object: HotRow, then one zlib stream
//   p <repository id> <pack id>    PackRow; the key's id is the pack's extent
//   t <txn id>                     TxnRow: index, then the result; ids begin with their birth
//   l <repository id> <number>     ReflogRow
//
// Rows begin with a format byte except where said. A row that cannot be read is damage, thrown as
// a sentence.
#pragma once

#include "gitlayer/git_node.h"

#include <replicator/prune_guard.h>

#include <algorithm>
#include <string>
#include <string_view>
#include <vector>

namespace packmoor::gitlayer {

// Results of transactions are kept for this many indexes after the birth of their ids.
constexpr uint64_t kTxnResultIndexes = 200'000;
// They are removed in slices, whenever the index is a multiple of this.
constexpr uint64_t kTxnExpiryStride = 1024;
// Newest entries of a repository's reflog that are kept.
constexpr uint64_t kReflogEntriesMax = 10'000;
// Newest former names of a repository that are remembered.
constexpr size_t kFormerNamesMax = 16;

std::string repositoryNameKey(std::string_view name);
constexpr std::string_view kRepositoryNamePrefix = "n";
std::string formerNameKey(std::string_view name);
std::string repositoryKey(const RepositoryId& id);
constexpr std::string_view kRepositoryPrefix = "r";
std::string refPrefix(const RepositoryId& id);
std::string refKey(const RepositoryId& id, std::string_view name);
std::string hotPrefix(const RepositoryId& id);
std::string hotKey(const RepositoryId& id, const ObjectId& object);
std::string packPrefix(const RepositoryId& id);
std::string packKey(const RepositoryId& id, const replicator::ExtentId& pack);
constexpr std::string_view kPackTable = "p";
std::string txnKey(const replicator::TxnId& txn);
constexpr std::string_view kTxnPrefix = "t";
std::string txnBirthKey(uint64_t birth);  // not above the key of any id that was born then
std::string reflogPrefix(const RepositoryId& id);
std::string reflogKey(const RepositoryId& id, uint64_t number);

struct RepositoryRow {
  RepositoryInfo info;  // id and name included
  RepositoryStatistics statistics;
  uint64_t lastTransaction = 0, lastPrune = 0, lastSettle = 0, lastSettings = 0, reflogNext = 0;
  std::vector<std::string> formerNames;   // the newest last; one that it has again may be among them

  // Rule 21. A settle counts as a change, and so does a repack: it would put into another pack what a
  // prune that does not know of it means to drop, while what those objects name goes.
  replicator::PruneGuard pruneGuard() const {
    return {replicator::RecordIndex(lastPrune),
            replicator::RecordIndex(
                std::max({lastTransaction, lastSettle, statistics.lastRepack}))};
  }

  std::string encode() const;
  static RepositoryRow decode(const RepositoryId& id, std::string_view row);
};

// No format byte: 20 or 40 bytes.
std::string encodeRef(const ObjectId& id, const ObjectId& peeled);
struct RefIds {
  ObjectId id, peeled;
};
RefIds decodeRefIds(std::string_view name, std::string_view row);
Ref decodeRef(std::string_view name, std::string_view row);

struct HotRow {
  static constexpr size_t kHeadBytes = 1 + 1 + 8 + 8;
  ObjectType type = ObjectType::kNone;
  uint64_t appliedAt = 0;  // index of the record that brought it
  uint64_t bytes = 0;      // inflated
  std::string_view deflated;

  std::string encodeHead() const;
  static HotRow decode(std::string_view row);  // `deflated` points into `row`
};

struct PackRow {
  replicator::ExtentId pack, index;
  uint64_t packBytes = 0;
  uint32_t objectCount = 0;
  uint64_t addedAt = 0;    // index of the record that brought the newest of it

  std::string encode() const;
  static PackRow decode(std::string_view key, std::string_view row);
};
RepositoryId repositoryOfPackKey(std::string_view key);

// A pack and the repository that it belongs to.
struct PackLink {
  RepositoryId repository;
  PackRow row;
};

struct TxnRow {
  uint64_t index = 0;
  std::string_view result;

  std::string encode() const;
  static TxnRow decode(std::string_view row);
};

struct ReflogRow {
  uint64_t index = 0;
  int64_t timeMs = 0;
  ObjectId oldId, newId;
  std::string_view ref, principal;

  std::string encode() const;
  static ReflogRow decode(std::string_view row);
};

replicator::Uuid uuidOf(std::string_view bytes);  // exactly 16
inline std::string_view textOf(const replicator::Uuid& id) {
  return {reinterpret_cast<const char*>(id.bytes.data()), id.bytes.size()};
}
inline std::string_view textOf(const ObjectId& id) {
  return {reinterpret_cast<const char*>(id.bytes.data()), id.bytes.size()};
}
inline std::string_view textOf(kj::ArrayPtr<const kj::byte> bytes) {
  return {reinterpret_cast<const char*>(bytes.begin()), bytes.size()};
}
inline kj::ArrayPtr<const kj::byte> bytesOf(std::string_view text) {
  return kj::arrayPtr(reinterpret_cast<const kj::byte*>(text.data()), text.size());
}

}  // namespace packmoor::gitlayer
