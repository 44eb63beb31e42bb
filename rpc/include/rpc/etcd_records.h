// The values that Packmoor keeps in etcd, as JSON text.
//
// Keys: /packmoor/<cluster>/volumes/<name> and /packmoor/<cluster>/nodes/<id>. Every value is an
// object with "schema", 1, or 2 where a loss was accepted. A reader refuses a greater one, since it must not write back what
// it did not understand; unknown members of a known schema are ignored. Identifiers are 32 hex
// digits.
//
//   volume: {"schema":1,"id":..,"name":..,"phase":"recovering"|"active",
//            "current":CONFIGURATION,"lastActive":CONFIGURATION or null,"generation":G, absent: 0,
//            "losses":[LOSS..], absent: none, "pair":..,"weight":..,"drained":[..],
//            "deleted":true, absent: false, "former":[volume..], absent: none}
//   LOSS: {"epoch":..,"adopted":{"index":..,"epoch":..,"hash":32 hex digits},"kept":[MEMBER..],
//          "ignored":[MEMBER..],"writeQuorum":..,"atMs":..,"by":..,"what":..,"acknowledged":..}
//   CONFIGURATION: {"epoch":1,"primary":MEMBER or null,"nonce":..,"members":[MEMBER..],
//                   "async":[MEMBER..],"writeQuorum":2}
//   MEMBER: {"node":..,"journal":..}
//   node: {"schema":1,"node":..,"journal":..,"rpc":"host:port","http":"host:port","version":..}
//
// A record's revision is etcd's mod_revision of the key, with the record's generation above it.
// Accepting a coordinator that was restored raises the generation (DESIGN rule 18), so that
// revisions of a record only grow although etcd's have gone back.
#pragma once

#include <replicator/coordinator.h>

#include <string>
#include <string_view>

namespace packmoor::rpc {

constexpr int kEtcdSchema = 2;       // the highest that is read
constexpr int kEtcdSchemaPlain = 1;  // of what older versions may write back
constexpr size_t kEtcdValueBytesMax = 1u << 20;  // etcd's own limit of a request is 1.5 MiB
constexpr size_t kEtcdMembersMax = 1024;         // of one configuration
constexpr uint64_t kEtcdWeightMax = 1'000'000;

constexpr int kEtcdRevisionBits = 44;                  // of mod_revision
constexpr int64_t kEtcdModRevisionMax = (int64_t{1} << kEtcdRevisionBits) - 1;
constexpr uint64_t kEtcdGenerationMax = 0x7ffff;       // what fits above it

constexpr uint64_t generationOf(int64_t revision) {
  return static_cast<uint64_t>(revision) >> kEtcdRevisionBits;
}
constexpr int64_t modRevisionOf(int64_t revision) { return revision & kEtcdModRevisionMax; }
int64_t revisionOf(uint64_t generation, int64_t modRevision);

// Readers throw a KJ exception that says what is wrong with the text.
std::string volumeToJson(const replicator::VolumeRecord& record);
replicator::VolumeRecord volumeFromJson(std::string_view text, int64_t modRevision);
std::string nodeToJson(const replicator::NodeRegistration& registration);
replicator::NodeRegistration nodeFromJson(std::string_view text);

}  // namespace packmoor::rpc
