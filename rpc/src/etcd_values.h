// What the gateway's JSON says of keys and values, and the bodies of requests. Keys and values travel
// in base64; a mistake in an answer is a KJ exception with a sentence.
#pragma once

#include <replicator/coordinator.h>

#include <nlohmann/json.hpp>

#include <string>
#include <vector>

namespace packmoor::rpc {

struct EtcdEntry {
  std::string key, value;
  int64_t revision = 0;
};

std::string etcdBase64(const std::string& text);
// The end of the range of keys that begin with `prefix`, which ends in '/'.
std::string endOfPrefix(std::string prefix);
// The body of a range request; an empty `end`: of one key.
std::string rangeBody(const std::string& key, const std::string& end = {});
// Of a transaction: puts `value` when the key's mod_revision is `revision` (0: it is absent).
std::string swapBody(const std::string& key, const std::string& value, int64_t revision);
bool swapSucceeded(const nlohmann::json& answer);

std::vector<EtcdEntry> entriesOf(const nlohmann::json& answer);
// Throws a sentence that names the key when the value cannot be used.
replicator::VolumeRecord volumeOf(const EtcdEntry& entry);
std::vector<replicator::VolumeRecord> volumesOf(const nlohmann::json& answer);
std::vector<replicator::NodeRegistration> nodesOf(const nlohmann::json& answer);

}  // namespace packmoor::rpc
