#include "rpc/etcd_memory.h"

#include <algorithm>
#include <charconv>

#include "json_read.h"
#include "rpc/etcd_records.h"

namespace packmoor::rpc {
namespace {

using nlohmann::json;

constexpr std::string_view kTitle = "packmoor-etcd-memory 1 ";
constexpr size_t kVolumesMax = 100'000, kNodesMax = 100'000;

std::string hashOf(std::string_view text) {
  return replicator::hashBytes(kj::arrayPtr(text.data(), text.size()).asBytes()).text().cStr();
}

uint64_t jsonCluster(const json& object) {
  uint64_t id = 0;
  if (!parseClusterId(jsonText(object, "cluster"), id)) {
    refuseJson("\"cluster\" is not a cluster id of 16 hex digits");
  }
  return id;
}

}  // namespace

std::string clusterIdText(uint64_t id) {
  char digits[17] = {};
  std::snprintf(digits, sizeof digits, "%016llx", static_cast<unsigned long long>(id));
  return digits;
}

bool parseClusterId(std::string_view text, uint64_t& id) {
  if (text.size() != 16) return false;
  auto parsed = std::from_chars(text.data(), text.data() + text.size(), id, 16);
  return parsed.ec == std::errc() && parsed.ptr == text.data() + text.size();
}

bool EtcdPastMarker::covers(const std::string& node, const EtcdMemory& memory) const {
  const bool asked = std::find(nodes.begin(), nodes.end(), node) != nodes.end();
  return std::any_of(continues.begin(), continues.end(), [&](const Continued& old) {
    return old.clusterId == memory.clusterId && old.past == memory.past &&
           (asked || memory.revision <= old.revision);
  });
}

std::string memoryToText(const EtcdMemory& memory) {
  json volumes = json::array();
  for (const auto& record : memory.volumes) {
    volumes.push_back({{"revision", modRevisionOf(record.revision)},
                       {"value", json::parse(volumeToJson(record))}});
  }
  json nodes = json::array();
  for (const auto& node : memory.nodes) nodes.push_back(json::parse(nodeToJson(node)));
  const std::string body = dumpJson({{"cluster", clusterIdText(memory.clusterId)},
                                     {"revision", memory.revision},
                                     {"listed", memory.listed},
                                     {"past", uuidText(memory.past)},
                                     {"doubt", memory.doubt},
                                     {"volumes", kj::mv(volumes)},
                                     {"nodes", kj::mv(nodes)}});
  return std::string(kTitle) + hashOf(body) + "\n" + body;
}

EtcdMemory memoryFromText(std::string_view text) {
  if (text.substr(0, kTitle.size()) != kTitle) refuseJson("it does not begin as such a file does");
  const size_t end = text.find('\n');
  if (end == std::string_view::npos) refuseJson("it ends early");
  const std::string_view body = text.substr(end + 1);
  if (text.substr(kTitle.size(), end - kTitle.size()) != hashOf(body)) {
    refuseJson("its checksum does not match");
  }
  auto parsed = json::parse(body.begin(), body.end(), nullptr, false);
  if (parsed.is_discarded()) refuseJson("it is not JSON");
  EtcdMemory memory;
  memory.clusterId = jsonCluster(parsed);
  memory.revision = jsonRevision(parsed, "revision");
  memory.listed = jsonRevision(parsed, "listed");
  memory.past = jsonUuid(parsed, "past");
  memory.doubt = jsonText(parsed, "doubt");
  for (auto& entry : jsonList(parsed, "volumes", kVolumesMax)) {
    memory.volumes.push_back(
        volumeFromJson(dumpJson(jsonMember(entry, "value")), jsonRevision(entry, "revision")));
  }
  for (auto& entry : jsonList(parsed, "nodes", kNodesMax)) {
    memory.nodes.push_back(nodeFromJson(dumpJson(entry)));
  }
  return memory;
}

std::string markerToJson(const EtcdPastMarker& marker) {
  json continues = json::array();
  for (const auto& old : marker.continues) {
    continues.push_back({{"cluster", clusterIdText(old.clusterId)},
                         {"past", uuidText(old.past)},
                         {"revision", old.revision}});
  }
  return dumpJson({{"schema", kEtcdSchema},
                   {"past", uuidText(marker.past)},
                   {"nodes", marker.nodes},
                   {"continues", kj::mv(continues)}});
}

EtcdPastMarker markerFromJson(std::string_view text) {
  if (text.size() > kEtcdValueBytesMax) refuseJson("the value is too large to be a marker");
  auto parsed = json::parse(text.begin(), text.end(), nullptr, false);
  if (parsed.is_discarded()) refuseJson("the value is not JSON");
  const uint64_t schema = jsonNumber(parsed, "schema");
  if (schema == 0 || schema > kEtcdSchema) {
    refuseJson("it has schema ", schema, ", and this version reads up to ", kEtcdSchema,
               "; upgrade this node");
  }
  EtcdPastMarker marker;
  marker.past = jsonUuid(parsed, "past");
  for (auto& entry : jsonList(parsed, "nodes", kEtcdMembersMax)) {
    if (!entry.is_string()) refuseJson("\"nodes\" holds what is not a node id");
    marker.nodes.push_back(entry.get<std::string>());
  }
  for (auto& entry : jsonList(parsed, "continues", kEtcdContinuedMax)) {
    marker.continues.push_back(
        {jsonCluster(entry), jsonUuid(entry, "past"), jsonRevision(entry, "revision")});
  }
  return marker;
}

}  // namespace packmoor::rpc
