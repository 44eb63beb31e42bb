// EtcdMemory: what a node durably remembers of etcd, and the marker by which a past is accepted.
//
// Why: a coordinator restored from a backup is a different past (DESIGN rule 18), and only somebody
// who remembers can tell. A node keeps etcd's cluster id, the highest revision that it has seen and
// the volumes' records, in one file of its data directory. The records also let it open its volumes
// and follow while etcd is away; they are never enough to lead.
//
// The file is text: a first line "packmoor-etcd-memory 1 HASH", where HASH is XXH3-128 of all that
// follows it, and JSON:
//   {"cluster":HEX64,"revision":120,"listed":118,"past":HEX128,"doubt":TEXT,
//    "volumes":[{"revision":97,"value":VOLUME}..],"nodes":[NODE..]}
// VOLUME and NODE are as in etcd_records.h.
//
// Revisions of volumes are etcd's mod_revision with the generation of the record above it (see
// etcd_records.h), so that they go on growing through an accepted step back.
//
// The marker is the key PREFIX/CLUSTER/past: written by `packmoorctl coordinator accept`, it says
// which pasts this etcd continues, so that nodes which were away need not be asked again:
//   {"schema":1,"past":HEX128,"nodes":["n1"..],
//    "continues":[{"cluster":HEX64,"past":HEX128,"revision":118}..]}
#pragma once

#include <replicator/coordinator.h>

#include <string>
#include <string_view>
#include <vector>

namespace packmoor::rpc {

constexpr size_t kEtcdMemoryBytesMax = 64u << 20;
constexpr size_t kEtcdContinuedMax = 1024;

struct EtcdMemory {
  uint64_t clusterId = 0;                      // 0: etcd has never answered
  int64_t revision = 0;                        // the highest that was seen
  int64_t listed = 0;                          // up to where all volumes were read
  replicator::Uuid past;                       // of the marker that was followed; zero: none
  std::string doubt;                           // a sentence; empty: none that outlives a restart
  std::vector<replicator::VolumeRecord> volumes;      // by name
  std::vector<replicator::NodeRegistration> nodes;    // by id
};

struct EtcdPastMarker {
  struct Continued {
    uint64_t clusterId = 0;
    replicator::Uuid past;
    int64_t revision = 0;                      // nodes that have seen no more are covered
  };
  replicator::Uuid past;
  std::vector<std::string> nodes;              // those that were asked; covered whatever they saw
  std::vector<Continued> continues;

  // True when a node with this memory may go on from here without being asked.
  bool covers(const std::string& node, const EtcdMemory& memory) const;
};

// Readers throw a KJ exception that says what is wrong with the text.
std::string memoryToText(const EtcdMemory& memory);
EtcdMemory memoryFromText(std::string_view text);
std::string markerToJson(const EtcdPastMarker& marker);
EtcdPastMarker markerFromJson(std::string_view text);

// Sixteen small hex digits, as etcdctl prints a cluster's id when asked for hex.
std::string clusterIdText(uint64_t id);
bool parseClusterId(std::string_view text, uint64_t& id);

}  // namespace packmoor::rpc
