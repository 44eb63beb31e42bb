#include "state_tables.h"

#include "byte_codec.h"
#include "gitlayer/txn_id.h"

#include <gitlayer/git_state.pb.h>

#include <kj/debug.h>

namespace packmoor::gitlayer {

namespace {

constexpr uint8_t kRowFormat = 1;

std::string key(char table, std::string_view first, std::string_view second = {}) {
  std::string result;
  result.reserve(1 + first.size() + second.size());
  result.push_back(table);
  result.append(first);
  result.append(second);
  return result;
}

std::string bigEndian(uint64_t number) {
  std::string result;
  putBigU64(result, number);
  return result;
}

ByteReader rowReader(std::string_view row, const char* table) {
  ByteReader in(row);
  const uint8_t format = in.u8();
  KJ_REQUIRE(format == kRowFormat, "A row of the state store is of a later version or damaged.",
             table, format);
  return in;
}

}  // namespace

replicator::Uuid uuidOf(std::string_view bytes) {
  return replicator::Uuid::fromBytes(bytesOf(bytes));
}

std::string repositoryNameKey(std::string_view name) { return key('n', name); }
std::string formerNameKey(std::string_view name) { return key('o', name); }
std::string repositoryKey(const RepositoryId& id) { return key('r', textOf(id)); }
std::string refPrefix(const RepositoryId& id) { return key('f', textOf(id)); }
std::string refKey(const RepositoryId& id, std::string_view name) {
  return key('f', textOf(id), name);
}
std::string hotPrefix(const RepositoryId& id) { return key('h', textOf(id)); }
std::string hotKey(const RepositoryId& id, const ObjectId& object) {
  return key('h', textOf(id), textOf(object));
}
std::string packPrefix(const RepositoryId& id) { return key('p', textOf(id)); }
std::string packKey(const RepositoryId& id, const replicator::ExtentId& pack) {
  return key('p', textOf(id), textOf(pack));
}
std::string txnKey(const replicator::TxnId& txn) { return key('t', textOf(txn)); }
std::string txnBirthKey(uint64_t birth) {
  return key('t', std::string_view(bigEndian(birth)).substr(sizeof birth - kTxnBirthBytes));
}
std::string reflogPrefix(const RepositoryId& id) { return key('l', textOf(id)); }
std::string reflogKey(const RepositoryId& id, uint64_t number) {
  return key('l', textOf(id), bigEndian(number));
}

std::string RepositoryRow::encode() const {
  pb::RepositoryRow row;
  row.set_name(info.name);
  row.set_description(info.description);
  row.set_head(info.head);
  row.set_created_at_index(info.createdAtIndex);
  row.set_created_at_ms(info.createdAtMs);
  row.set_rewound(!info.appendOnly);
  row.set_rewound_at(info.rewoundAt);
  row.set_refs(statistics.refs);
  row.set_hot_objects(statistics.hotObjects);
  row.set_hot_bytes(statistics.hotBytes);
  row.set_packs(statistics.packs);
  row.set_pack_bytes(statistics.packBytes);
  row.set_packed_objects(statistics.packedObjects);
  row.set_last_transaction(lastTransaction);
  row.set_last_prune(lastPrune);
  row.set_last_settle(lastSettle);
  row.set_reflog_next(reflogNext);
  row.set_last_settings(lastSettings);
  row.set_discarded_at_index(info.discardedAtIndex);
  row.set_discarded_at_ms(info.discardedAtMs);
  for (const std::string& name : formerNames) row.add_former_names(name);
  if (!info.forkedFrom.isNull()) row.set_forked_from(std::string(textOf(info.forkedFrom)));
  row.set_forked_from_name(info.forkedFromName);
  for (const Setting& setting : info.settings.stored) {
    pb::StoredSetting& stored = *row.add_settings();
    stored.set_key(setting.key);
    for (const std::string& value : setting.values) stored.add_values(value);
  }
  row.set_last_repack(statistics.lastRepack);
  row.set_last_repack_ms(statistics.lastRepackMs);
  return row.SerializeAsString();
}

RepositoryRow RepositoryRow::decode(const RepositoryId& id, std::string_view bytes) {
  pb::RepositoryRow row;
  KJ_REQUIRE(row.ParseFromArray(bytes.data(), static_cast<int>(bytes.size())),
             "A repository's row in the state store is damaged.", id);
  RepositoryRow result;
  result.info.id = id;
  result.info.name = row.name();
  result.info.description = row.description();
  result.info.head = row.head();
  result.info.createdAtIndex = row.created_at_index();
  result.info.createdAtMs = row.created_at_ms();
  result.info.appendOnly = !row.rewound();
  result.info.rewoundAt = row.rewound_at();
  result.statistics.refs = row.refs();
  result.statistics.hotObjects = row.hot_objects();
  result.statistics.hotBytes = row.hot_bytes();
  result.statistics.packs = row.packs();
  result.statistics.packBytes = row.pack_bytes();
  result.statistics.packedObjects = row.packed_objects();
  result.lastTransaction = row.last_transaction();
  result.lastPrune = row.last_prune();
  result.lastSettle = row.last_settle();
  result.reflogNext = row.reflog_next();
  result.lastSettings = row.last_settings();
  result.info.discardedAtIndex = row.discarded_at_index();
  result.info.discardedAtMs = row.discarded_at_ms();
  result.formerNames.assign(row.former_names().begin(), row.former_names().end());
  if (!row.forked_from().empty()) result.info.forkedFrom = uuidOf(row.forked_from());
  result.info.forkedFromName = row.forked_from_name();
  if (row.settings_size() > 0) {
    Settings stored;
    for (const auto& setting : row.settings()) {
      stored.push_back({setting.key(), {setting.values().begin(), setting.values().end()}});
    }
    result.info.settings = RepositorySettings::of(std::move(stored));
  }
  result.statistics.lastRepack = row.last_repack();
  result.statistics.lastRepackMs = row.last_repack_ms();
  return result;
}

std::string encodeRef(const ObjectId& id, const ObjectId& peeled) {
  std::string row(textOf(id));
  if (!peeled.isZero()) row.append(textOf(peeled));
  return row;
}

RefIds decodeRefIds(std::string_view name, std::string_view row) {
  KJ_REQUIRE(row.size() == kOidBytes || row.size() == 2 * kOidBytes,
             "A ref's row in the state store is damaged.", std::string(name).c_str());
  RefIds ids{ObjectId::fromBytes(row.data()), {}};
  if (row.size() > kOidBytes) ids.peeled = ObjectId::fromBytes(row.data() + kOidBytes);
  return ids;
}

Ref decodeRef(std::string_view name, std::string_view row) {
  const RefIds ids = decodeRefIds(name, row);
  return {std::string(name), ids.id, ids.peeled};
}

std::string HotRow::encodeHead() const {
  std::string head;
  head.reserve(kHeadBytes);
  head.push_back(kRowFormat);
  head.push_back(static_cast<char>(type));
  putU64(head, appliedAt);
  putU64(head, bytes);
  return head;
}

HotRow HotRow::decode(std::string_view row) {
  ByteReader in = rowReader(row, "hot objects");
  HotRow result;
  result.type = static_cast<ObjectType>(in.u8());
  result.appliedAt = in.u64();
  result.bytes = in.u64();
  result.deflated = in.rest();
  return result;
}

std::string PackRow::encode() const {
  std::string row;
  row.push_back(kRowFormat);
  row.append(textOf(index));
  putU64(row, packBytes);
  putU32(row, objectCount);
  putU64(row, addedAt);
  return row;
}

PackRow PackRow::decode(std::string_view key, std::string_view row) {
  constexpr size_t kIdBytes = sizeof(replicator::Uuid);
  KJ_REQUIRE(key.size() == 1 + 2 * kIdBytes, "A pack's row in the state store is damaged.");
  ByteReader in = rowReader(row, "packs");
  PackRow result;
  result.pack = uuidOf(key.substr(1 + kIdBytes));
  result.index = uuidOf(in.bytes(kIdBytes));
  result.packBytes = in.u64();
  result.objectCount = in.u32();
  result.addedAt = in.u64();
  return result;
}

RepositoryId repositoryOfPackKey(std::string_view key) {
  return uuidOf(key.substr(1, sizeof(RepositoryId)));
}

std::string TxnRow::encode() const {
  std::string row;
  row.push_back(kRowFormat);
  putU64(row, index);
  row.append(result);
  return row;
}

TxnRow TxnRow::decode(std::string_view row) {
  ByteReader in = rowReader(row, "transactions");
  TxnRow result;
  result.index = in.u64();
  result.result = in.rest();
  return result;
}

std::string ReflogRow::encode() const {
  std::string row;
  row.push_back(kRowFormat);
  putU64(row, index);
  putU64(row, static_cast<uint64_t>(timeMs));
  row.append(textOf(oldId));
  row.append(textOf(newId));
  putText(row, ref);
  putText(row, principal);
  return row;
}

ReflogRow ReflogRow::decode(std::string_view row) {
  ByteReader in = rowReader(row, "reflog");
  ReflogRow result;
  result.index = in.u64();
  result.timeMs = static_cast<int64_t>(in.u64());
  result.oldId = ObjectId::fromBytes(in.bytes(kOidBytes).data());
  result.newId = ObjectId::fromBytes(in.bytes(kOidBytes).data());
  result.ref = in.text();
  result.principal = in.text();
  return result;
}

}  // namespace packmoor::gitlayer
