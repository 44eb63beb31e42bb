#include "json_read.h"

#include <limits>

namespace packmoor::rpc {

using nlohmann::json;

const json& jsonMember(const json& object, const char* name) {
  if (!object.is_object()) refuseJson("there is no object around \"", name, "\"");
  auto found = object.find(name);
  if (found == object.end()) refuseJson("\"", name, "\" is missing");
  return *found;
}

std::string jsonText(const json& object, const char* name) {
  auto& value = jsonMember(object, name);
  if (!value.is_string()) refuseJson("\"", name, "\" is not a string");
  return value.get<std::string>();
}

uint64_t jsonNumber(const json& object, const char* name) {
  auto& value = jsonMember(object, name);
  if (!value.is_number_unsigned()) refuseJson("\"", name, "\" is not a number");
  return value.get<uint64_t>();
}

int64_t jsonRevision(const json& object, const char* name) {
  const uint64_t value = jsonNumber(object, name);
  if (value > static_cast<uint64_t>(std::numeric_limits<int64_t>::max())) {
    refuseJson("\"", name, "\" is out of range");
  }
  return static_cast<int64_t>(value);
}

replicator::Uuid jsonUuid(const json& object, const char* name) {
  const std::string value = jsonText(object, name);
  replicator::Uuid id;
  if (!replicator::Uuid::parse(kj::StringPtr(value.c_str(), value.size()), id)) {
    refuseJson("\"", name, "\" is not an identifier of 32 hex digits");
  }
  return id;
}

std::string jsonNodeId(const json& object, const char* name) {
  std::string value = jsonText(object, name);
  if (!replicator::isValidNodeId(kj::StringPtr(value.c_str(), value.size()))) {
    refuseJson("\"", name, "\" is not a node id");
  }
  return value;
}

const json& jsonList(const json& object, const char* name, size_t most) {
  auto& list = jsonMember(object, name);
  if (!list.is_array() || list.size() > most) refuseJson("\"", name, "\" is not a list of members");
  return list;
}

std::string dumpJson(const json& value) {
  return value.dump(-1, ' ', false, json::error_handler_t::replace);
}

}  // namespace packmoor::rpc
