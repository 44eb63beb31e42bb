#include "etcd_values.h"

#include <kj/encoding.h>

#include "etcd_client.h"
#include "rpc/etcd_records.h"

namespace packmoor::rpc {
namespace {

using nlohmann::json;

template <typename... Parts>
[[noreturn]] void fail(Parts&&... parts) {
  kj::throwFatalException(kj::Exception(kj::Exception::Type::FAILED, __FILE__, __LINE__,
                                        kj::str(kj::fwd<Parts>(parts)...)));
}

std::string unbase64(const json& object, const char* name) {
  if (!object.is_object()) fail("etcd's answer holds a key that is none.");
  auto found = object.find(name);
  if (found == object.end()) return {};
  if (found->is_string()) {
    const auto& text = found->get_ref<const std::string&>();
    auto bytes = kj::decodeBase64(kj::StringPtr(text.c_str(), text.size()));
    if (!bytes.hadErrors) return std::string(bytes.asChars().begin(), bytes.size());
  }
  fail("etcd's answer holds a ", name, " that is not base64.");
}

// Names the key in what is wrong with its value.
template <typename Func>
auto decode(const EtcdEntry& entry, Func func) {
  using Value = decltype(func());
  kj::Maybe<Value> value;
  KJ_IF_MAYBE(e, kj::runCatchingExceptions([&]() { value = func(); })) {
    fail("The value of ", entry.key.c_str(), " in etcd cannot be used: ", e->getDescription(), ".");
  }
  return kj::mv(KJ_ASSERT_NONNULL(value));
}

}  // namespace

std::string etcdBase64(const std::string& text) {
  return kj::encodeBase64(kj::StringPtr(text.c_str(), text.size()).asBytes(), false).cStr();
}

std::string endOfPrefix(std::string prefix) {
  ++prefix.back();  // ends in '/'
  return prefix;
}

std::string rangeBody(const std::string& key, const std::string& end) {
  json body = {{"key", etcdBase64(key)}};
  if (!end.empty()) body["range_end"] = etcdBase64(end);
  return body.dump();
}

std::string swapBody(const std::string& key, const std::string& value, int64_t revision) {
  const std::string encoded = etcdBase64(key);
  const json body = {
      {"compare",
       {{{"key", encoded},
         {"target", "MOD"},
         {"result", "EQUAL"},
         {"mod_revision", std::to_string(revision)}}}},
      {"success", {{{"request_put", {{"key", encoded}, {"value", etcdBase64(value)}}}}}}};
  return body.dump();
}

bool swapSucceeded(const json& answer) {
  auto succeeded = answer.find("succeeded");
  return succeeded != answer.end() && succeeded->is_boolean() && succeeded->get<bool>();
}

std::vector<EtcdEntry> entriesOf(const json& answer) {
  std::vector<EtcdEntry> entries;
  auto kvs = answer.find("kvs");
  if (kvs == answer.end()) return entries;
  if (!kvs->is_array()) fail("etcd's answer holds no list of keys.");
  for (auto& kv : *kvs) {
    entries.push_back({unbase64(kv, "key"), unbase64(kv, "value"), etcdInteger(kv, "mod_revision")});
  }
  return entries;
}

replicator::VolumeRecord volumeOf(const EtcdEntry& entry) {
  return decode(entry, [&]() { return volumeFromJson(entry.value, entry.revision); });
}

std::vector<replicator::VolumeRecord> volumesOf(const json& answer) {
  std::vector<replicator::VolumeRecord> records;
  for (auto& entry : entriesOf(answer)) records.push_back(volumeOf(entry));
  return records;
}

std::vector<replicator::NodeRegistration> nodesOf(const json& answer) {
  std::vector<replicator::NodeRegistration> nodes;
  for (auto& entry : entriesOf(answer)) {
    nodes.push_back(decode(entry, [&]() { return nodeFromJson(entry.value); }));
  }
  return nodes;
}

}  // namespace packmoor::rpc
