#include "peer_translate.h"

#include <kernelio/check.h>

#include <kj/debug.h>

#include <cstring>

namespace packmoor::rpc {
namespace {

using replicator::Epoch;
using replicator::MemberIdentity;
using replicator::RecordIndex;
using replicator::RecordRef;
using replicator::VolumeConfiguration;

constexpr size_t kWordBytes = sizeof(capnp::word);
constexpr size_t kMessageWords = 64;  // the fields of any message, without lists and data
constexpr size_t kRecordWords = 6;    // the fields of a record: 4 of data and 2 pointers

size_t wordsOf(size_t bytes) {
  return (bytes + kWordBytes - 1) / kWordBytes;
}

template <typename Enum>
Enum readEnum(uint8_t value, Enum last, const char* what) {
  KJ_REQUIRE(value <= static_cast<uint8_t>(last),
             "A node sent a value that this version does not know.", what, value);
  return static_cast<Enum>(value);
}

void writeMember(const MemberIdentity& member, wire::Member::Builder out) {
  out.setNode(asStringPtr(member.node));
  write(member.journal, out.initJournal());
}

MemberIdentity readMember(wire::Member::Reader in) {
  return {asString(in.getNode()), read(in.getJournal())};
}

void writeMembers(const std::vector<MemberIdentity>& members,
                  capnp::List<wire::Member>::Builder out) {
  for (size_t i = 0; i < members.size(); ++i) writeMember(members[i], out[i]);
}

std::vector<MemberIdentity> readMembers(capnp::List<wire::Member>::Reader in) {
  std::vector<MemberIdentity> members;
  members.reserve(in.size());
  for (auto member : in) members.push_back(readMember(member));
  return members;
}

void writeConfiguration(const VolumeConfiguration& configuration,
                        wire::Configuration::Builder out) {
  out.setEpoch(configuration.epoch.value);
  writeMember(configuration.primary, out.initPrimary());
  write(configuration.nonce, out.initNonce());
  writeMembers(configuration.members, out.initMembers(configuration.members.size()));
  writeMembers(configuration.async, out.initAsync(configuration.async.size()));
  out.setWriteQuorum(configuration.writeQuorum);
  writeMembers(configuration.joining, out.initJoining(configuration.joining.size()));
}

VolumeConfiguration readConfiguration(wire::Configuration::Reader in) {
  VolumeConfiguration configuration;
  configuration.epoch = Epoch(in.getEpoch());
  configuration.primary = readMember(in.getPrimary());
  configuration.nonce = read(in.getNonce());
  configuration.members = readMembers(in.getMembers());
  configuration.async = readMembers(in.getAsync());
  configuration.writeQuorum = in.getWriteQuorum();
  configuration.joining = readMembers(in.getJoining());
  return configuration;
}

template <typename Builder>
void writeExtents(const std::vector<replicator::ExtentId>& extents, Builder out) {
  if (extents.empty()) return;
  static_assert(sizeof(replicator::ExtentId) == 16);
  auto bytes = out.initExtents(extents.size() * sizeof(replicator::ExtentId));
  memcpy(bytes.begin(), extents.data(), bytes.size());
}

std::vector<replicator::ExtentId> readExtents(capnp::Data::Reader in) {
  KJ_REQUIRE(in.size() % sizeof(replicator::ExtentId) == 0,
             "A node sent a list of extents that does not consist of whole ids.", in.size());
  std::vector<replicator::ExtentId> extents(in.size() / sizeof(replicator::ExtentId));
  if (!extents.empty()) memcpy(extents.data(), in.begin(), in.size());
  return extents;
}

void writeRecords(const std::vector<RecordRef>& records,
                  capnp::List<wire::Record>::Builder out) {
  for (size_t i = 0; i < records.size(); ++i) {
    const replicator::Record& record = *records[i];
    PACKMOOR_CHECK(record.index.value == records[0]->index.value + i,
                   "records to send are not consecutive ", record.index, " at ", i);
    auto to = out[i];
    to.setEpoch(record.epoch.value);
    to.setKind(static_cast<uint16_t>(record.kind));
    write(record.hash, to.initHash());
    writeExtents(record.extents, to);
    if (record.payload.size() > 0) to.setPayload(record.payload);
  }
}

// `index` and `previousHash` are of the record before the first one.
std::vector<RecordRef> readRecords(capnp::List<wire::Record>::Reader in, RecordIndex index,
                                   replicator::Hash128 previousHash) {
  std::vector<RecordRef> records;
  records.reserve(in.size());
  for (auto from : in) {
    index = index.next();
    auto record = replicator::makeRecord(
        index, Epoch(from.getEpoch()), previousHash, replicator::RecordKind(from.getKind()),
        readExtents(from.getExtents()), copyBytes(from.getPayload()));
    KJ_REQUIRE(record->hash == read(from.getHash()),
               "A record arrived damaged: its bytes do not give the hash sent with it.", index);
    previousHash = record->hash;
    records.push_back(kj::mv(record));
  }
  return records;
}

size_t wordsOf(const std::vector<RecordRef>& records) {
  size_t words = records.empty() ? 0 : 1;
  for (auto& record : records) {
    words += kRecordWords + 2 + wordsOf(record->payload.size()) +
             wordsOf(record->extents.size() * sizeof(replicator::ExtentId));
  }
  return words;
}

}  // namespace

kj::Array<kj::byte> copyBytes(kj::ArrayPtr<const kj::byte> bytes) {
  auto copy = kj::heapArray<kj::byte>(bytes.size());
  if (bytes.size() > 0) memcpy(copy.begin(), bytes.begin(), bytes.size());
  return copy;
}

capnp::MessageSize sizeOf(const replicator::AppendRequest& request) {
  return {kMessageWords + wordsOf(request.records), 0};
}
capnp::MessageSize sizeOf(const replicator::FetchReply& reply) {
  return {kMessageWords + wordsOf(reply.records), 0};
}
capnp::MessageSize sizeOfBytes(size_t bytes) {
  return {kMessageWords + wordsOf(bytes), 0};
}

// Bytes in memory order are the little-endian halves on every machine that we build for.
static_assert(__BYTE_ORDER__ == __ORDER_LITTLE_ENDIAN__);

void write(const replicator::Uuid& id, wire::Uuid::Builder out) {
  uint64_t halves[2];
  static_assert(sizeof halves == sizeof id.bytes);
  memcpy(halves, id.bytes.data(), sizeof halves);
  out.setLow(halves[0]);
  out.setHigh(halves[1]);
}
replicator::Uuid read(wire::Uuid::Reader in) {
  const uint64_t halves[2] = {in.getLow(), in.getHigh()};
  replicator::Uuid id;
  memcpy(id.bytes.data(), halves, sizeof halves);
  return id;
}

void write(const replicator::Hash128& hash, wire::Hash::Builder out) {
  out.setLow(hash.low);
  out.setHigh(hash.high);
}
replicator::Hash128 read(wire::Hash::Reader in) {
  return {in.getLow(), in.getHigh()};
}

void write(const replicator::LogPosition& position, wire::Position::Builder out) {
  out.setIndex(position.index.value);
  out.setEpoch(position.epoch.value);
  write(position.hash, out.initHash());
}
replicator::LogPosition read(wire::Position::Reader in) {
  return {RecordIndex(in.getIndex()), Epoch(in.getEpoch()), read(in.getHash())};
}

void writeLoss(const replicator::AcceptedLoss& loss, wire::AcceptedLoss::Builder out) {
  out.setEpoch(loss.epoch.value);
  write(loss.adopted, out.initAdopted());
  writeMembers(loss.kept, out.initKept(loss.kept.size()));
  writeMembers(loss.ignored, out.initIgnored(loss.ignored.size()));
  out.setWriteQuorum(loss.writeQuorum);
  out.setAtMs(loss.atMs);
  out.setBy(asStringPtr(loss.by));
  out.setWhat(asStringPtr(loss.what));
  out.setAcknowledged(loss.acknowledged);
}
replicator::AcceptedLoss readLoss(wire::AcceptedLoss::Reader in) {
  return {Epoch(in.getEpoch()),      read(in.getAdopted()), readMembers(in.getKept()),
          readMembers(in.getIgnored()), in.getWriteQuorum(),   in.getAtMs(),
          asString(in.getBy()),      asString(in.getWhat()), in.getAcknowledged()};
}

void write(const replicator::VolumeRecord& record, wire::VolumeRecord::Builder out) {
  write(record.id, out.initId());
  out.setName(asStringPtr(record.name));
  writeConfiguration(record.current, out.initCurrent());
  out.setActive(record.phase == replicator::VolumePhase::kActive);
  if (record.lastActive) writeConfiguration(*record.lastActive, out.initLastActive());
  out.setRevision(record.revision);
  out.setPair(record.traits.pair);
  out.setWeight(record.traits.weight);
  auto drained = out.initDrained(record.traits.drained.size());
  for (size_t i = 0; i < record.traits.drained.size(); ++i) {
    drained.set(i, asStringPtr(record.traits.drained[i]));
  }
  auto losses = out.initLosses(record.losses.size());
  for (size_t i = 0; i < record.losses.size(); ++i) writeLoss(record.losses[i], losses[i]);
}
replicator::VolumeRecord read(wire::VolumeRecord::Reader in) {
  replicator::VolumeRecord record;
  record.id = read(in.getId());
  record.name = asString(in.getName());
  record.current = readConfiguration(in.getCurrent());
  record.phase =
      in.getActive() ? replicator::VolumePhase::kActive : replicator::VolumePhase::kRecovering;
  if (in.hasLastActive()) record.lastActive = readConfiguration(in.getLastActive());
  record.revision = in.getRevision();
  record.traits.pair = in.getPair();
  record.traits.weight = in.getWeight();
  for (auto node : in.getDrained()) record.traits.drained.push_back(asString(node));
  for (auto loss : in.getLosses()) record.losses.push_back(readLoss(loss));
  return record;
}

void write(const replicator::AppendRequest& request, wire::AppendRequest::Builder out) {
  write(request.volume, out.initVolume());
  out.setEpoch(request.epoch.value);
  write(request.nonce, out.initNonce());
  writeMember(request.primary, out.initPrimary());
  write(request.member, out.initMember());
  write(request.previous, out.initPrevious());
  if (!request.records.empty()) {
    PACKMOOR_CHECK(request.records[0]->index == request.previous.index.next(),
                   "records do not follow the previous one");
    writeRecords(request.records, out.initRecords(request.records.size()));
    out.setLossEpoch(request.lossEpoch.value);
}
  out.setCommitted(request.committed.value);
  out.setEverywhere(request.everywhere.value);
  if (request.behind.has_value()) write(*request.behind, out.initBehind());
}
replicator::AppendRequest read(wire::AppendRequest::Reader in) {
  replicator::AppendRequest request;
  request.volume = read(in.getVolume());
  request.epoch = Epoch(in.getEpoch());
  request.nonce = read(in.getNonce());
  request.primary = readMember(in.getPrimary());
  request.member = read(in.getMember());
  request.previous = read(in.getPrevious());
  request.records =
      readRecords(in.getRecords(), request.previous.index, request.previous.hash);
  request.committed = RecordIndex(in.getCommitted());
  request.everywhere = RecordIndex(in.getEverywhere());
  if (in.hasBehind()) request.behind = read(in.getBehind());
  request.lossEpoch = Epoch(in.getLossEpoch());
  return request;
}

void write(const replicator::AppendReply& reply, wire::AppendReply::Builder out) {
  out.setOutcome(static_cast<uint8_t>(reply.outcome));
  out.setEpoch(reply.epoch.value);
  out.setPromised(reply.promised.value);
  write(reply.position, out.initPosition());
}
replicator::AppendReply read(wire::AppendReply::Reader in) {
  replicator::AppendReply reply;
  reply.outcome = readEnum(in.getOutcome(), replicator::AppendReply::Outcome::kNotMember,
                           "outcome of an append");
  reply.epoch = Epoch(in.getEpoch());
  reply.promised = Epoch(in.getPromised());
  reply.position = read(in.getPosition());
  return reply;
}

void write(const replicator::FenceReply& reply, wire::FenceReply::Builder out) {
  out.setPromised(reply.promised);
  out.setRepairing(reply.repairing);
  out.setHighest(reply.highest.value);
  writeMember(reply.member, out.initMember());
  write(reply.last, out.initLast());
  out.setBase(reply.base.value);
}
replicator::FenceReply read(wire::FenceReply::Reader in) {
  replicator::FenceReply reply;
  reply.promised = in.getPromised();
  reply.repairing = in.getRepairing();
  reply.highest = Epoch(in.getHighest());
  reply.member = readMember(in.getMember());
  reply.last = read(in.getLast());
  reply.base = RecordIndex(in.getBase());
  return reply;
}

void write(const replicator::FetchReply& reply, wire::FetchReply::Builder out) {
  if (reply.records.empty()) return;
  out.setFirstIndex(reply.records[0]->index.value);
  write(reply.records[0]->previousHash, out.initPreviousHash());
  writeRecords(reply.records, out.initRecords(reply.records.size()));
}
replicator::FetchReply read(wire::FetchReply::Reader in) {
  replicator::FetchReply reply;
  if (in.getRecords().size() == 0) return reply;
  KJ_REQUIRE(in.getFirstIndex() > 0, "A node sent a record with index 0.");
  reply.records = readRecords(in.getRecords(), RecordIndex(in.getFirstIndex() - 1),
                              read(in.getPreviousHash()));
  return reply;
}

void write(const replicator::ProposeRequest& request, wire::ProposeRequest::Builder out) {
  write(request.volume, out.initVolume());
  write(request.txn, out.initTxn());
  out.setKind(static_cast<uint16_t>(request.kind));
  writeExtents(request.extents, out);
  auto sealedOn = out.initSealedOn(request.sealedOn.size());
  for (size_t i = 0; i < request.sealedOn.size(); ++i) {
    sealedOn.set(i, asStringPtr(request.sealedOn[i]));
  }
  out.setPayload(request.payload);
}
replicator::ProposeRequest read(wire::ProposeRequest::Reader in) {
  replicator::ProposeRequest request;
  request.volume = read(in.getVolume());
  request.txn = read(in.getTxn());
  request.kind = replicator::RecordKind(in.getKind());
  request.extents = readExtents(in.getExtents());
  for (auto node : in.getSealedOn()) request.sealedOn.push_back(asString(node));
  request.payload = copyBytes(in.getPayload());
  return request;
}

void write(const replicator::ProposeReply& reply, wire::ProposeReply::Builder out) {
  out.setOutcome(static_cast<uint8_t>(reply.outcome));
  out.setIndex(reply.index.value);
  out.setResult(reply.result);
  out.setPrimary(asStringPtr(reply.primary));
  out.setReason(asStringPtr(reply.reason));
}
replicator::ProposeReply read(wire::ProposeReply::Reader in) {
  replicator::ProposeReply reply;
  reply.outcome = readEnum(in.getOutcome(), replicator::ProposeReply::Outcome::kUnknown,
                           "outcome of a proposal");
  reply.index = RecordIndex(in.getIndex());
  reply.result = copyBytes(in.getResult());
  reply.primary = asString(in.getPrimary());
  reply.reason = asString(in.getReason());
  return reply;
}

void write(const replicator::ReadIndexRequest& request, wire::ReadIndexRequest::Builder out) {
  write(request.volume, out.initVolume());
  write(request.member, out.initMember());
  out.setFollows(request.follows.value);
  write(request.nonce, out.initNonce());
  out.setRepairs(request.repairs);
}
replicator::ReadIndexRequest read(wire::ReadIndexRequest::Reader in) {
  return {read(in.getVolume()), read(in.getMember()), Epoch(in.getFollows()), read(in.getNonce()),
          in.getRepairs()};
}

void write(const replicator::ReadIndexReply& reply, wire::ReadIndexReply::Builder out) {
  out.setOk(reply.ok);
  out.setEpoch(reply.epoch.value);
  out.setCommitted(reply.committed.value);
  out.setPrimary(asStringPtr(reply.primary));
  out.setReason(asStringPtr(reply.reason));
  out.setLast(reply.last.value);
}
replicator::ReadIndexReply read(wire::ReadIndexReply::Reader in) {
  return {in.getOk(), Epoch(in.getEpoch()), RecordIndex(in.getCommitted()),
          asString(in.getPrimary()), asString(in.getReason()), RecordIndex(in.getLast())};
}

void write(const replicator::ConsentRequest& request, wire::ConsentRequest::Builder out) {
  write(request.volume, out.initVolume());
  writeMember(request.candidate, out.initCandidate());
  out.setEpoch(request.epoch.value);
  write(request.last, out.initLast());
  out.setHandOver(request.handOver);
}
replicator::ConsentRequest read(wire::ConsentRequest::Reader in) {
  return {read(in.getVolume()), readMember(in.getCandidate()), Epoch(in.getEpoch()),
          read(in.getLast()), in.getHandOver()};
}

void write(const replicator::ConsentReply& reply, wire::ConsentReply::Builder out) {
  out.setConsents(reply.consents);
  writeMember(reply.member, out.initMember());
  out.setPromised(reply.promised.value);
  write(reply.last, out.initLast());
  out.setReason(asStringPtr(reply.reason));
}
replicator::ConsentReply read(wire::ConsentReply::Reader in) {
  return {in.getConsents(), readMember(in.getMember()), Epoch(in.getPromised()),
          read(in.getLast()), asString(in.getReason())};
}

void write(const replicator::ConfirmReply& reply, wire::ConfirmReply::Builder out) {
  out.setFollows(reply.follows);
  out.setRound(reply.round);
  out.setPromised(reply.promised.value);
}
replicator::ConfirmReply read(wire::ConfirmReply::Reader in) {
  return {in.getFollows(), in.getRound(), Epoch(in.getPromised())};
}

}  // namespace packmoor::rpc
