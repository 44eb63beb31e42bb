#include "rpc/etcd_records.h"

#include <kj/debug.h>

#include <nlohmann/json.hpp>

namespace packmoor::rpc {
namespace {

using nlohmann::json;
using replicator::MemberIdentity;
using replicator::Uuid;
using replicator::VolumeConfiguration;

template <typename... Parts>
[[noreturn]] void refuse(Parts&&... parts) {
  kj::throwFatalException(kj::Exception(kj::Exception::Type::FAILED, __FILE__, __LINE__,
                                        kj::str(kj::fwd<Parts>(parts)...)));
}

const json& member(const json& object, const char* name) {
  if (!object.is_object()) refuse("there is no object around \"", name, "\"");
  auto found = object.find(name);
  if (found == object.end()) refuse("\"", name, "\" is missing");
  return *found;
}

std::string text(const json& object, const char* name) {
  auto& value = member(object, name);
  if (!value.is_string()) refuse("\"", name, "\" is not a string");
  return value.get<std::string>();
}

uint64_t number(const json& object, const char* name) {
  auto& value = member(object, name);
  if (!value.is_number_unsigned()) refuse("\"", name, "\" is not a number");
  return value.get<uint64_t>();
}

Uuid uuid(const json& object, const char* name) {
  const std::string value = text(object, name);
  Uuid id;
  if (!Uuid::parse(kj::StringPtr(value.c_str(), value.size()), id)) {
    refuse("\"", name, "\" is not an identifier of 32 hex digits");
  }
  return id;
}

std::string nodeId(const json& object, const char* name) {
  std::string value = text(object, name);
  if (!replicator::isValidNodeId(kj::StringPtr(value.c_str(), value.size()))) {
    refuse("\"", name, "\" is not a node id");
  }
  return value;
}

std::string hex(const Uuid& id) {
  return id.text().cStr();
}

json parse(std::string_view value, const char* what) {
  if (value.size() > kEtcdValueBytesMax) refuse("the value is too large to be ", what);
  auto parsed = json::parse(value.begin(), value.end(), nullptr, false);
  if (parsed.is_discarded()) refuse("the value is not JSON");
  const uint64_t schema = number(parsed, "schema");
  if (schema == 0 || schema > kEtcdSchema) {
    refuse("it has schema ", schema, ", and this version reads up to ", kEtcdSchema,
           "; upgrade this node");
  }
  return parsed;
}

json toJson(const MemberIdentity& identity) {
  return {{"node", identity.node}, {"journal", hex(identity.journal)}};
}
MemberIdentity memberFrom(const json& object) {
  return {nodeId(object, "node"), uuid(object, "journal")};
}

json toJson(const std::vector<MemberIdentity>& members) {
  json list = json::array();
  for (auto& identity : members) list.push_back(toJson(identity));
  return list;
}
std::vector<MemberIdentity> membersFrom(const json& object, const char* name) {
  auto& list = member(object, name);
  if (!list.is_array() || list.size() > kEtcdMembersMax) {
    refuse("\"", name, "\" is not a list of members");
  }
  std::vector<MemberIdentity> members;
  for (auto& entry : list) members.push_back(memberFrom(entry));
  return members;
}

json toJson(const VolumeConfiguration& configuration) {
  // Nobody has led before the first takeover.
  const bool led = !configuration.primary.node.empty();
  return {{"epoch", configuration.epoch.value},
          {"primary", led ? toJson(configuration.primary) : json(nullptr)},
          {"nonce", hex(configuration.nonce)},
          {"members", toJson(configuration.members)},
          {"async", toJson(configuration.async)},
          {"writeQuorum", configuration.writeQuorum}};
}
VolumeConfiguration configurationFrom(const json& object) {
  VolumeConfiguration configuration;
  configuration.epoch = replicator::Epoch(number(object, "epoch"));
  auto& primary = member(object, "primary");
  if (!primary.is_null()) configuration.primary = memberFrom(primary);
  configuration.nonce = uuid(object, "nonce");
  configuration.members = membersFrom(object, "members");
  configuration.async = membersFrom(object, "async");
  const uint64_t quorum = number(object, "writeQuorum");
  if (quorum > kEtcdMembersMax) refuse("\"writeQuorum\" is out of range");
  configuration.writeQuorum = static_cast<uint32_t>(quorum);
  return configuration;
}

}  // namespace

std::string volumeToJson(const replicator::VolumeRecord& record) {
  const json value = {
      {"schema", kEtcdSchema},
      {"id", hex(record.id)},
      {"name", record.name},
      {"phase", record.phase == replicator::VolumePhase::kActive ? "active" : "recovering"},
      {"current", toJson(record.current)},
      {"lastActive", record.lastActive ? toJson(*record.lastActive) : json(nullptr)}};
  return value.dump(-1, ' ', false, json::error_handler_t::replace);
}

replicator::VolumeRecord volumeFromJson(std::string_view value, int64_t revision) {
  const json object = parse(value, "a volume's record");
  replicator::VolumeRecord record;
  record.id = uuid(object, "id");
  record.name = nodeId(object, "name");  // the same grammar
  const std::string phase = text(object, "phase");
  if (phase == "active") {
    record.phase = replicator::VolumePhase::kActive;
  } else if (phase == "recovering") {
    record.phase = replicator::VolumePhase::kRecovering;
  } else {
    refuse("\"phase\" is neither \"recovering\" nor \"active\"");
  }
  record.current = configurationFrom(member(object, "current"));
  auto& lastActive = member(object, "lastActive");
  if (!lastActive.is_null()) record.lastActive = configurationFrom(lastActive);
  record.revision = revision;
  return record;
}

std::string nodeToJson(const replicator::NodeRegistration& registration) {
  const json value = {{"schema", kEtcdSchema},
                      {"node", registration.node},
                      {"journal", hex(registration.journal)},
                      {"rpc", registration.rpcAddress},
                      {"http", registration.httpAddress},
                      {"version", registration.version}};
  return value.dump(-1, ' ', false, json::error_handler_t::replace);
}

replicator::NodeRegistration nodeFromJson(std::string_view value) {
  const json object = parse(value, "a node's registration");
  replicator::NodeRegistration registration;
  registration.node = nodeId(object, "node");
  registration.journal = uuid(object, "journal");
  registration.rpcAddress = text(object, "rpc");
  registration.httpAddress = text(object, "http");
  registration.version = text(object, "version");
  return registration;
}

}  // namespace packmoor::rpc
