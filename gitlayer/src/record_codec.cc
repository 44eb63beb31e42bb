#include "record_codec.h"

#include "kernelio/check.h"
#include "record_messages.h"
#include "state_tables.h"
#include "wire_reader.h"

#include <gitlayer/git_records.pb.h>

#include <kj/debug.h>

namespace packmoor::gitlayer {

static_assert(static_cast<int>(kRefTransaction) == pb::REF_TRANSACTION);
static_assert(static_cast<int>(kSettle) == pb::SETTLE);
static_assert(static_cast<int>(kVerify) == pb::VERIFY);
static_assert(static_cast<int>(kPrune) == pb::PRUNE);
static_assert(kPruneObjectsMax * kOidBytes + kPrunePacksMax * sizeof(replicator::Uuid) + 1024 <
              replicator::kRecordPayloadBytesMax);

namespace {

// Field numbers of the messages that are read and written here by hand.
namespace field {
constexpr uint32_t kUpdateName = 1, kUpdateOld = 2, kUpdateNew = 3, kUpdatePeeled = 4,
                   kUpdateForward = 5;
constexpr uint32_t kHotId = 1, kHotType = 2, kHotSize = 3, kHotDeflated = 4;
constexpr uint32_t kPackPack = 1, kPackIndex = 2, kPackBytes = 3, kPackObjects = 4;
constexpr uint32_t kTxn = 1, kRepository = 2, kUpdates = 3, kObjects = 4, kPack = 5,
                   kVerifiedAt = 6, kAtomic = 7, kPrincipal = 8, kTime = 9, kPushOptions = 10,
                   kClient = 11;
}  // namespace field

ObjectId oidField(std::string_view bytes) {
  if (bytes.empty()) return ObjectId();
  KJ_REQUIRE(bytes.size() == kOidBytes, "malformed record: object name", bytes.size());
  return ObjectId::fromBytes(bytes.data());
}
std::string_view oidBytes(const ObjectId& id) {
  return id.isZero() ? std::string_view() : textOf(id);
}

RefUpdateView decodeUpdate(std::string_view message) {
  RefUpdateView update;
  WireReader in(message);
  for (WireField f; in.next(f);) {
    switch (f.number) {
      case field::kUpdateName: update.name = f.asBytes(); break;
      case field::kUpdateOld: update.oldId = oidField(f.asBytes()); break;
      case field::kUpdateNew: update.newId = oidField(f.asBytes()); break;
      case field::kUpdatePeeled: update.peeled = oidField(f.asBytes()); break;
      case field::kUpdateForward: update.forward = f.asNumber() != 0; break;
      default: break;
    }
  }
  return update;
}

HotObjectView decodeHot(std::string_view message) {
  HotObjectView object;
  WireReader in(message);
  for (WireField f; in.next(f);) {
    switch (f.number) {
      case field::kHotId: object.id = oidField(f.asBytes()); break;
      case field::kHotType: object.type = static_cast<ObjectType>(f.asNumber()); break;
      case field::kHotSize: object.bytes = f.asNumber(); break;
      case field::kHotDeflated: object.deflated = f.asBytes(); break;
      default: break;
    }
  }
  KJ_REQUIRE(!object.id.isZero() && object.type >= ObjectType::kCommit &&
                 object.type <= ObjectType::kTag,
             "malformed record: object");
  return object;
}

PackExtents decodePack(std::string_view message) {
  PackExtents pack;
  WireReader in(message);
  for (WireField f; in.next(f);) {
    switch (f.number) {
      case field::kPackPack: pack.pack = uuidField(f.asBytes()); break;
      case field::kPackIndex: pack.index = uuidField(f.asBytes()); break;
      case field::kPackBytes: pack.packBytes = f.asNumber(); break;
      case field::kPackObjects: pack.objectCount = static_cast<uint32_t>(f.asNumber()); break;
      default: break;
    }
  }
  KJ_REQUIRE(!pack.pack.isNull() && !pack.index.isNull(), "malformed record: pack without ids");
  return pack;
}

template <typename Sink>
void writeUpdate(Sink& sink, const RefUpdate& update) {
  sink.bytes(field::kUpdateName, update.name);
  sink.bytes(field::kUpdateOld, oidBytes(update.oldId));
  sink.bytes(field::kUpdateNew, oidBytes(update.newId));
  sink.bytes(field::kUpdatePeeled, oidBytes(update.peeled));
  sink.number(field::kUpdateForward, update.forward);
}

template <typename Sink>
void writeObject(Sink& sink, const NewObject& object) {
  sink.bytes(field::kHotId, oidBytes(object.id));
  sink.number(field::kHotType, static_cast<uint64_t>(object.type));
  sink.number(field::kHotSize, object.bytes);
  sink.bytes(field::kHotDeflated, textOf(object.deflated));
}

template <typename Sink>
void writePack(Sink& sink, const PackExtents& pack) {
  sink.bytes(field::kPackPack, textOf(pack.pack));
  sink.bytes(field::kPackIndex, textOf(pack.index));
  sink.number(field::kPackBytes, pack.packBytes);
  sink.number(field::kPackObjects, pack.objectCount);
}

template <typename T>
size_t measured(void (*write)(WireMeasure&, const T&), const T& value) {
  WireMeasure measure;
  write(measure, value);
  return measure.size();
}

// An embedded message, measured or written.
template <typename T>
void writeMessage(WireMeasure& sink, uint32_t number, const T& value,
                  void (*measure)(WireMeasure&, const T&), void (*)(WireWriter&, const T&)) {
  sink.element(number, measured(measure, value));
}
template <typename T>
void writeMessage(WireWriter& sink, uint32_t number, const T& value,
                  void (*measure)(WireMeasure&, const T&), void (*write)(WireWriter&, const T&)) {
  sink.begin(number, measured(measure, value));
  write(sink, value);
}

template <typename Sink>
void writeTransaction(Sink& sink, const RepositoryId& repository, const PushTransaction& push,
                      int64_t timeMs) {
  if (!push.txn.isNull()) sink.bytes(field::kTxn, textOf(push.txn));
  sink.bytes(field::kRepository, textOf(repository));
  for (const auto& update : push.updates) {
    writeMessage(sink, field::kUpdates, update, &writeUpdate<WireMeasure>,
                 &writeUpdate<WireWriter>);
  }
  for (const auto& object : push.objects) {
    writeMessage(sink, field::kObjects, object, &writeObject<WireMeasure>,
                 &writeObject<WireWriter>);
  }
  if (push.pack.has_value()) {
    writeMessage(sink, field::kPack, *push.pack, &writePack<WireMeasure>, &writePack<WireWriter>);
  }
  sink.number(field::kVerifiedAt, push.verifiedAt.value);
  sink.number(field::kAtomic, push.atomic);
  sink.bytes(field::kPrincipal, push.principal);
  sink.number(field::kTime, static_cast<uint64_t>(timeMs));
  for (const auto& option : push.pushOptions) {
    if constexpr (std::is_same_v<Sink, WireMeasure>) {
      sink.element(field::kPushOptions, option.size());
    } else {
      sink.element(field::kPushOptions, option);
    }
  }
  sink.bytes(field::kClient, push.client);
}

std::string pbHash(const replicator::Hash128& hash) {
  static_assert(sizeof hash == 16);
  return {reinterpret_cast<const char*>(&hash), sizeof hash};
}
std::vector<replicator::ExtentId> idList(std::string_view bytes) {
  constexpr size_t kIdBytes = sizeof(replicator::Uuid);
  KJ_REQUIRE(bytes.size() % kIdBytes == 0, "malformed record: packs", bytes.size());
  std::vector<replicator::ExtentId> ids;
  for (size_t at = 0; at < bytes.size(); at += kIdBytes) {
    ids.push_back(uuidOf(bytes.substr(at, kIdBytes)));
  }
  return ids;
}

replicator::Hash128 hashField(const std::string& bytes) {
  replicator::Hash128 hash;
  KJ_REQUIRE(bytes.size() == sizeof hash, "malformed record: root", bytes.size());
  std::memcpy(&hash, bytes.data(), sizeof hash);
  return hash;
}

}  // namespace

RefTransactionView decodeRefTransaction(kj::ArrayPtr<const kj::byte> payload) {
  RefTransactionView result;
  WireReader in(textOf(payload));
  for (WireField f; in.next(f);) {
    switch (f.number) {
      case field::kTxn: result.txn = uuidField(f.asBytes()); break;
      case field::kRepository: result.repository = uuidField(f.asBytes()); break;
      case field::kUpdates: result.updates.push_back(decodeUpdate(f.asBytes())); break;
      case field::kObjects: result.objects.push_back(decodeHot(f.asBytes())); break;
      case field::kPack: result.pack = decodePack(f.asBytes()); break;
      case field::kVerifiedAt: result.verifiedAt = f.asNumber(); break;
      case field::kAtomic: result.atomic = f.asNumber() != 0; break;
      case field::kPrincipal: result.principal = f.asBytes(); break;
      case field::kTime: result.timeMs = static_cast<int64_t>(f.asNumber()); break;
      case field::kPushOptions: result.pushOptions.push_back(f.asBytes()); break;
      case field::kClient: result.client = f.asBytes(); break;
      default: break;
    }
  }
  KJ_REQUIRE(!result.repository.isNull(), "malformed record: no repository");
  return result;
}

kj::Array<const kj::byte> encodeRefTransaction(const RepositoryId& repository,
                                               const PushTransaction& transaction,
                                               int64_t timeMs) {
  WireMeasure measure;
  writeTransaction(measure, repository, transaction, timeMs);
  auto payload = kj::heapArray<kj::byte>(measure.size());
  WireWriter writer(payload);
  writeTransaction(writer, repository, transaction, timeMs);
  PACKMOOR_CHECK(writer.isFull(), "writing a ref transaction");
  return payload;
}

SettleRecord decodeSettle(kj::ArrayPtr<const kj::byte> payload) {
  auto message = parse<pb::Settle>(payload, "settle");
  SettleRecord record;
  record.txn = uuidField(message.txn());
  record.repository = uuidField(message.repository());
  record.upto = message.upto();
  record.computedAt = message.computed_at();
  record.packRoot = hashField(message.pack_root());
  record.indexRoot = hashField(message.index_root());
  record.objectCount = message.object_count();
  record.packBytes = message.pack_bytes();
  record.pack = uuidField(message.pack());
  record.index = uuidField(message.index());
  KJ_REQUIRE(!record.repository.isNull() && !record.pack.isNull() && !record.index.isNull(),
             "malformed record: settle without ids");
  KJ_REQUIRE(message.order() <= static_cast<uint32_t>(SettleOrder::kTime),
             "A settle record orders its objects in a way that this version does not know. Install the "
             "version that the other nodes run.", message.order());
  record.order = static_cast<SettleOrder>(message.order());
  return record;
}

kj::Array<const kj::byte> encodeSettle(const SettleRecord& record) {
  pb::Settle message;
  message.set_order(static_cast<uint32_t>(record.order));
  message.set_txn(pbBytes(record.txn));
  message.set_repository(pbBytes(record.repository));
  message.set_upto(record.upto);
  message.set_computed_at(record.computedAt);
  message.set_pack_root(pbHash(record.packRoot));
  message.set_index_root(pbHash(record.indexRoot));
  message.set_object_count(record.objectCount);
  message.set_pack_bytes(record.packBytes);
  message.set_pack(pbBytes(record.pack));
  message.set_index(pbBytes(record.index));
  return serialize(message);
}

PruneRecord decodePrune(kj::ArrayPtr<const kj::byte> payload) {
  auto message = parse<pb::Prune>(payload, "prune");
  PruneRecord record;
  record.txn = uuidField(message.txn());
  record.repository = uuidField(message.repository());
  record.computedAt = message.computed_at();
  KJ_REQUIRE(!record.repository.isNull(), "malformed record: no repository");
  const std::string_view objects = message.objects();
  KJ_REQUIRE(objects.size() % kOidBytes == 0, "malformed record: what is pruned", objects.size());
  for (size_t at = 0; at < objects.size(); at += kOidBytes) {
    record.objects.push_back(ObjectId::fromBytes(objects.data() + at));
  }
  record.packs = idList(message.packs());
  return record;
}

kj::Array<const kj::byte> encodePrune(const PruneRecord& record) {
  pb::Prune message;
  message.set_txn(pbBytes(record.txn));
  message.set_repository(pbBytes(record.repository));
  message.set_computed_at(record.computedAt);
  for (const auto& id : record.objects) message.mutable_objects()->append(textOf(id));
  for (const auto& id : record.packs) message.mutable_packs()->append(textOf(id));
  return serialize(message);
}

RepackRecord decodeRepack(kj::ArrayPtr<const kj::byte> payload) {
  auto message = parse<pb::Repack>(payload, "repack");
  RepackRecord record;
  record.txn = uuidField(message.txn());
  record.repository = uuidField(message.repository());
  record.replaced = idList(message.replaced());
  record.pack.pack = uuidField(message.pack().pack());
  record.pack.index = uuidField(message.pack().index());
  record.pack.packBytes = message.pack().pack_bytes();
  record.pack.objectCount = message.pack().object_count();
  record.packRoot = hashField(message.pack_root());
  record.indexRoot = hashField(message.index_root());
  record.computedAt = message.computed_at();
  record.timeMs = message.time_ms();
  KJ_REQUIRE(!record.repository.isNull() && !record.pack.pack.isNull() &&
                 !record.pack.index.isNull(),
             "malformed record: repack without ids");
  const auto& replaced = record.replaced;
  KJ_REQUIRE(!replaced.empty() && replaced.size() <= kRepackPacksMax,
             "malformed record: number of packs", replaced.size());
  for (size_t i = 0; i < replaced.size(); ++i) {
    KJ_REQUIRE((i == 0 || replaced[i - 1] < replaced[i]) && replaced[i] != record.pack.pack,
               "malformed record: packs that are replaced", i);
  }
  return record;
}

kj::Array<const kj::byte> encodeRepack(const RepackRecord& record) {
  pb::Repack message;
  message.set_txn(pbBytes(record.txn));
  message.set_repository(pbBytes(record.repository));
  for (const auto& id : record.replaced) message.mutable_replaced()->append(textOf(id));
  auto& pack = *message.mutable_pack();
  pack.set_pack(pbBytes(record.pack.pack));
  pack.set_index(pbBytes(record.pack.index));
  pack.set_pack_bytes(record.pack.packBytes);
  pack.set_object_count(record.pack.objectCount);
  message.set_pack_root(pbHash(record.packRoot));
  message.set_index_root(pbHash(record.indexRoot));
  message.set_computed_at(record.computedAt);
  message.set_time_ms(record.timeMs);
  return serialize(message);
}

kj::Array<const kj::byte> encodeVerify(const replicator::TxnId& txn) {
  pb::Verify message;
  message.set_txn(pbBytes(txn));
  return serialize(message);
}

replicator::TxnId txnOf(const replicator::Record& record) {
  // The txn id is field 1 of every kind.
  if (static_cast<uint16_t>(record.kind) < replicator::kStateMachineKindMin) return {};
  WireReader in(textOf(record.payload));
  for (WireField f; in.next(f);) {
    if (f.number == field::kTxn) return uuidField(f.asBytes());
  }
  return {};
}

ApplyResult refused(ApplyResult::Status status, std::string message) {
  ApplyResult result;
  result.status = status;
  result.message = std::move(message);
  return result;
}

kj::Array<const kj::byte> encodeResult(const ApplyResult& result) {
  pb::Result message;
  message.set_format(1);
  message.set_status(static_cast<pb::Result::Status>(result.status));
  message.set_message(result.message);
  for (const auto& problem : result.refProblems) message.add_ref_problems(problem);
  for (const auto& detail : result.refDetails) message.add_ref_details(detail);
  return serialize(message);
}

ApplyResult decodeResult(kj::ArrayPtr<const kj::byte> bytes) {
  auto message = parse<pb::Result>(bytes, "result");
  KJ_REQUIRE(message.format() == 1, "A transaction's result is of a later version or damaged.",
             message.format());
  ApplyResult result;
  result.status = static_cast<ApplyResult::Status>(message.status());
  result.message = message.message();
  for (const auto& problem : message.ref_problems()) result.refProblems.push_back(problem);
  for (const auto& detail : message.ref_details()) result.refDetails.push_back(detail);
  return result;
}

}  // namespace packmoor::gitlayer
