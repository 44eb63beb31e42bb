// What the payloads of records that are protobuf messages share.
#pragma once

#include "state_tables.h"

#include <gitlayer/git_records.pb.h>

#include <kj/debug.h>

#include <string>

namespace packmoor::gitlayer {

template <typename Message>
kj::Array<const kj::byte> serialize(const Message& message) {
  auto bytes = kj::heapArray<kj::byte>(message.ByteSizeLong());
  message.SerializeToArray(bytes.begin(), static_cast<int>(bytes.size()));
  return bytes;
}

template <typename Message>
Message parse(kj::ArrayPtr<const kj::byte> payload, const char* what) {
  Message message;
  KJ_REQUIRE(message.ParseFromArray(payload.begin(), static_cast<int>(payload.size())),
             "malformed record", what);
  return message;
}

// None: empty.
inline std::string pbBytes(const replicator::Uuid& id) {
  return id.isNull() ? std::string() : std::string(textOf(id));
}

inline replicator::Uuid uuidField(std::string_view bytes) {
  if (bytes.empty()) return replicator::Uuid();
  KJ_REQUIRE(bytes.size() == sizeof(replicator::Uuid), "malformed record: id", bytes.size());
  return uuidOf(bytes);
}

}  // namespace packmoor::gitlayer
