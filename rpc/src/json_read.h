// Strict reading of JSON that stands in etcd or in a file: every mistake is a KJ exception that says
// which member is wrong and how. Sources: json_read.cc.
#pragma once

#include <replicator/types.h>

#include <kj/exception.h>
#include <kj/string.h>

#include <nlohmann/json.hpp>

#include <string>
#include <string_view>

namespace packmoor::rpc {

template <typename... Parts>
[[noreturn]] void refuseJson(Parts&&... parts) {
  kj::throwFatalException(kj::Exception(kj::Exception::Type::FAILED, __FILE__, __LINE__,
                                        kj::str(kj::fwd<Parts>(parts)...)));
}

const nlohmann::json& jsonMember(const nlohmann::json& object, const char* name);
std::string jsonText(const nlohmann::json& object, const char* name);
uint64_t jsonNumber(const nlohmann::json& object, const char* name);
int64_t jsonRevision(const nlohmann::json& object, const char* name);  // not negative
replicator::Uuid jsonUuid(const nlohmann::json& object, const char* name);
std::string jsonNodeId(const nlohmann::json& object, const char* name);
// A list of at most `most` entries.
const nlohmann::json& jsonList(const nlohmann::json& object, const char* name, size_t most);

inline std::string uuidText(const replicator::Uuid& id) { return id.text().cStr(); }
// Text that is not UTF-8 is written with replacement characters.
std::string dumpJson(const nlohmann::json& value);

}  // namespace packmoor::rpc
