#include "rpc/etcd_records.h"

#include "json_read.h"

namespace packmoor::rpc {
namespace {

using nlohmann::json;
using replicator::MemberIdentity;
using replicator::VolumeConfiguration;

json parse(std::string_view value, const char* what) {
  if (value.size() > kEtcdValueBytesMax) refuseJson("the value is too large to be ", what);
  auto parsed = json::parse(value.begin(), value.end(), nullptr, false);
  if (parsed.is_discarded()) refuseJson("the value is not JSON");
  const uint64_t schema = jsonNumber(parsed, "schema");
  if (schema == 0 || schema > kEtcdSchema) {
    refuseJson("it has schema ", schema, ", and this version reads up to ", kEtcdSchema,
           "; upgrade this node");
  }
  return parsed;
}

json toJson(const MemberIdentity& identity) {
  return {{"node", identity.node}, {"journal", uuidText(identity.journal)}};
}
MemberIdentity memberFrom(const json& object) {
  return {jsonNodeId(object, "node"), jsonUuid(object, "journal")};
}

json toJson(const std::vector<MemberIdentity>& members) {
  json list = json::array();
  for (auto& identity : members) list.push_back(toJson(identity));
  return list;
}
std::vector<MemberIdentity> membersFrom(const json& object, const char* name) {
  auto& list = jsonList(object, name, kEtcdMembersMax);
  std::vector<MemberIdentity> members;
  for (auto& entry : list) members.push_back(memberFrom(entry));
  return members;
}

json toJson(const VolumeConfiguration& configuration) {
  // Nobody has led before the first takeover.
  const bool led = !configuration.primary.node.empty();
  return {{"epoch", configuration.epoch.value},
          {"primary", led ? toJson(configuration.primary) : json(nullptr)},
          {"nonce", uuidText(configuration.nonce)},
          {"members", toJson(configuration.members)},
          {"async", toJson(configuration.async)},
          {"joining", toJson(configuration.joining)},
          {"writeQuorum", configuration.writeQuorum}};
}
VolumeConfiguration configurationFrom(const json& object) {
  VolumeConfiguration configuration;
  configuration.epoch = replicator::Epoch(jsonNumber(object, "epoch"));
  auto& primary = jsonMember(object, "primary");
  if (!primary.is_null()) configuration.primary = memberFrom(primary);
  configuration.nonce = jsonUuid(object, "nonce");
  configuration.members = membersFrom(object, "members");
  configuration.async = membersFrom(object, "async");
  if (object.contains("joining")) configuration.joining = membersFrom(object, "joining");
  const uint64_t quorum = jsonNumber(object, "writeQuorum");
  if (quorum > kEtcdMembersMax) refuseJson("\"writeQuorum\" is out of range");
  configuration.writeQuorum = static_cast<uint32_t>(quorum);
  return configuration;
}

json toJson(const replicator::AcceptedLoss& loss) {
  return {{"epoch", loss.epoch.value},
          {"adopted", {{"index", loss.adopted.index.value},
                       {"epoch", loss.adopted.epoch.value},
                       {"hash", std::string(loss.adopted.hash.text().cStr())}}},
          {"kept", toJson(loss.kept)},
          {"ignored", toJson(loss.ignored)},
          {"writeQuorum", loss.writeQuorum},
          {"atMs", loss.atMs},
          {"by", loss.by},
          {"what", loss.what},
          {"acknowledged", loss.acknowledged}};
}

replicator::Hash128 hashFrom(const json& object, const char* name) {
  const std::string text = jsonText(object, name);
  replicator::Hash128 hash;
  const bool digits = text.size() == 32 &&
                      text.find_first_not_of("0123456789abcdef") == std::string::npos;
  if (!digits) refuseJson("\"", name, "\" is not a hash of 32 hex digits");
  hash.high = std::stoull(text.substr(0, 16), nullptr, 16);
  hash.low = std::stoull(text.substr(16), nullptr, 16);
  return hash;
}

replicator::AcceptedLoss lossFrom(const json& object) {
  replicator::AcceptedLoss loss;
  loss.epoch = replicator::Epoch(jsonNumber(object, "epoch"));
  auto& adopted = jsonMember(object, "adopted");
  loss.adopted.index = replicator::RecordIndex(jsonNumber(adopted, "index"));
  loss.adopted.epoch = replicator::Epoch(jsonNumber(adopted, "epoch"));
  loss.adopted.hash = hashFrom(adopted, "hash");
  loss.kept = membersFrom(object, "kept");
  loss.ignored = membersFrom(object, "ignored");
  const uint64_t quorum = jsonNumber(object, "writeQuorum");
  if (quorum < 1 || quorum > kEtcdMembersMax) refuseJson("\"writeQuorum\" is out of range");
  loss.writeQuorum = static_cast<uint32_t>(quorum);
  loss.atMs = jsonRevision(object, "atMs");
  loss.by = jsonText(object, "by");
  loss.what = jsonText(object, "what");
  auto& acknowledged = jsonMember(object, "acknowledged");
  if (!acknowledged.is_boolean()) refuseJson("\"acknowledged\" is neither true nor false");
  loss.acknowledged = acknowledged.get<bool>();
  return loss;
}

}  // namespace

int64_t revisionOf(uint64_t generation, int64_t modRevision) {
  return static_cast<int64_t>(generation << kEtcdRevisionBits) | modRevision;
}

std::string volumeToJson(const replicator::VolumeRecord& record) {
  json value = {
      {"schema", record.losses.empty() ? kEtcdSchemaPlain : kEtcdSchema},
      {"id", uuidText(record.id)},
      {"name", record.name},
      {"phase", record.phase == replicator::VolumePhase::kActive ? "active" : "recovering"},
      {"current", toJson(record.current)},
      {"lastActive", record.lastActive ? toJson(*record.lastActive) : json(nullptr)},
      {"pair", record.traits.pair},
      {"weight", record.traits.weight},
      {"drained", record.traits.drained}};
  if (record.traits.deleted) value["deleted"] = true;
  for (const auto& former : record.traits.former) value["former"].push_back(uuidText(former));
  const uint64_t generation = generationOf(record.revision);
  if (generation > 0) value["generation"] = generation;
  for (auto& loss : record.losses) value["losses"].push_back(toJson(loss));
  return dumpJson(value);
}

replicator::VolumeRecord volumeFromJson(std::string_view value, int64_t modRevision) {
  const json object = parse(value, "a volume's record");
  replicator::VolumeRecord record;
  record.id = jsonUuid(object, "id");
  record.name = jsonNodeId(object, "name");  // the same grammar
  const std::string phase = jsonText(object, "phase");
  if (phase == "active") {
    record.phase = replicator::VolumePhase::kActive;
  } else if (phase == "recovering") {
    record.phase = replicator::VolumePhase::kRecovering;
  } else {
    refuseJson("\"phase\" is neither \"recovering\" nor \"active\"");
  }
  record.current = configurationFrom(jsonMember(object, "current"));
  auto& lastActive = jsonMember(object, "lastActive");
  if (!lastActive.is_null()) record.lastActive = configurationFrom(lastActive);
  uint64_t generation = 0;
  if (object.contains("generation")) generation = jsonNumber(object, "generation");
  if (generation > kEtcdGenerationMax) refuseJson("\"generation\" is out of range");
  if (modRevision < 0 || modRevision > kEtcdModRevisionMax) {
    refuseJson("its revision is out of range");
  }
  record.revision = revisionOf(generation, modRevision);
  // Not in records of versions before these.
  if (object.contains("drained")) {
    auto& drained = object["drained"];
    if (!drained.is_array() || drained.size() > kEtcdMembersMax) {
      refuseJson("\"drained\" is not a list of nodes");
    }
    for (auto& node : drained) {
      if (!node.is_string() || !replicator::isValidNodeId(node.get<std::string>().c_str())) {
        refuseJson("\"drained\" is not a list of nodes");
      }
      record.traits.drained.push_back(node.get<std::string>());
    }
  }
  if (object.contains("losses")) {
    for (auto& loss : jsonList(object, "losses", replicator::kAcceptedLossesMax)) {
      record.losses.push_back(lossFrom(loss));
    }
  }
  if (object.contains("pair")) {
    if (!object["pair"].is_boolean()) refuseJson("\"pair\" is neither true nor false");
    record.traits.pair = object["pair"].get<bool>();
  }
  if (object.contains("deleted")) {
    if (!object["deleted"].is_boolean()) refuseJson("\"deleted\" is neither true nor false");
    record.traits.deleted = object["deleted"].get<bool>();
  }
  if (object.contains("former")) {
    for (auto& former : jsonList(object, "former", kEtcdMembersMax)) {
      replicator::VolumeId id;
      if (!former.is_string() ||
          !replicator::Uuid::parse(former.get_ref<const std::string&>().c_str(), id)) {
        refuseJson("\"former\" is not a list of volumes");
      }
      record.traits.former.push_back(id);
    }
  }
  if (object.contains("weight")) {
    const uint64_t weight = jsonNumber(object, "weight");
    if (weight > kEtcdWeightMax) refuseJson("\"weight\" is out of range");
    record.traits.weight = static_cast<uint32_t>(weight);
  }
  return record;
}

std::string nodeToJson(const replicator::NodeRegistration& registration) {
  const json value = {{"schema", kEtcdSchemaPlain},
                      {"node", registration.node},
                      {"journal", uuidText(registration.journal)},
                      {"rpc", registration.rpcAddress},
                      {"http", registration.httpAddress},
                      {"version", registration.version}};
  return dumpJson(value);
}

replicator::NodeRegistration nodeFromJson(std::string_view value) {
  const json object = parse(value, "a node's registration");
  replicator::NodeRegistration registration;
  registration.node = jsonNodeId(object, "node");
  registration.journal = jsonUuid(object, "journal");
  registration.rpcAddress = jsonText(object, "rpc");
  registration.httpAddress = jsonText(object, "http");
  registration.version = jsonText(object, "version");
  return registration;
}

}  // namespace packmoor::rpc
