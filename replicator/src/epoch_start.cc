#include "epoch_start.h"

#include "kernelio/check.h"

#include <replicator/replicator_records.pb.h>

namespace packmoor::replicator {

namespace {

void encodeMember(const MemberIdentity& member, pb::Member& out) {
  out.set_node(member.node);
  out.set_journal(member.journal.bytes.data(), member.journal.bytes.size());
}

}  // namespace

kj::Array<const kj::byte> encodeEpochStart(const VolumeConfiguration& configuration) {
  pb::EpochStart message;
  message.set_epoch(configuration.epoch.value);
  message.set_nonce(configuration.nonce.bytes.data(), configuration.nonce.bytes.size());
  encodeMember(configuration.primary, *message.mutable_primary());
  for (const MemberIdentity& member : configuration.members) {
    encodeMember(member, *message.add_members());
  }
  for (const MemberIdentity& member : configuration.async) {
    encodeMember(member, *message.add_async());
  }
  message.set_write_quorum(configuration.writeQuorum);
  auto bytes = kj::heapArray<kj::byte>(message.ByteSizeLong());
  const bool encoded = message.SerializeToArray(bytes.begin(), static_cast<int>(bytes.size()));
  PACKMOOR_CHECK(encoded, "encoding an EpochStart record");
  return bytes;
}

}  // namespace packmoor::replicator
