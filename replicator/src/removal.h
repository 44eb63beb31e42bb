// What a node does with the data of volumes that it is to have no more.
//
// Why: a volume that was deleted, and a member that was removed, leave data behind. It goes only by what
// the coordinator says in a linearizable read, never by what it does not say: a coordinator that cannot
// be reached, that is in doubt (rule 18) or that has lost a record removes nothing.
//
//   - A volume is gone when its record says deleted, or when another volume has its name and says that
//     it comes after it. Its data goes at once.
//   - A member is removed when the active configuration does not name the node. Its data stays for a
//     while (removedDataKeepMs), open as before, in case that the node is added again.
//
// A node that forgets a volume that still exists keeps its promise of it (rule 3): a deposed primary
// that has not heard of anything since may yet count its acknowledgements.
//
// Durable: a note in removed/<volume>, written before anything is removed and removed when all is gone.
// A note that says discarding is carried out before the volume is opened here again. The note is one
// line: "packmoor-removed 1 NAME SINCE-MS member|deleted kept|discarding". Loop: the node's.
#pragma once

#include "replicator/coordinator.h"

namespace packmoor::replicator {

// What the record of `name` says of this node's part in the volume `id`.
enum class Standing : uint8_t {
  kUnknown,   // nothing, or nothing that is certain
  kMember,
  kRemoved,   // active without this node
  kDeleted,
};
Standing standingOf(const VolumeRecord& record, const VolumeId& id, const NodeId& self);

struct RemovalNote {
  std::string name;        // of the volume, for people
  int64_t sinceMs = 0;     // by the wall clock
  bool deleted = false, discarding = false;
  std::string problem = {};   // of the last attempt; not in the note
  bool running = false;       // likewise
};

std::string toText(const RemovalNote& note);
bool parseRemovalNote(kj::StringPtr text, RemovalNote& note);
std::string removalNotePath(const VolumeId& id);
constexpr kj::StringPtr kRemovalFolder = "removed"_kj;
constexpr size_t kRemovalNoteBytesMax = 4096;

}  // namespace packmoor::replicator
