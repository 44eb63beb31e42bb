#include "removal.h"

#include "configuration_change.h"

#include <algorithm>
#include <sstream>

namespace packmoor::replicator {

namespace {
constexpr const char* kTitle = "packmoor-removed";
}  // namespace

Standing standingOf(const VolumeRecord& record, const VolumeId& id, const NodeId& self) {
  if (record.id != id) {
    const auto& former = record.traits.former;
    return std::find(former.begin(), former.end(), id) != former.end() ? Standing::kDeleted
                                                                       : Standing::kUnknown;
  }
  if (record.traits.deleted) return Standing::kDeleted;
  if (namesNode(record.current, self)) return Standing::kMember;
  // Until the change is active, the last configuration may go on (rule 9).
  if (record.phase != VolumePhase::kActive) return Standing::kUnknown;
  return Standing::kRemoved;
}

std::string toText(const RemovalNote& note) {
  std::ostringstream out;
  out << kTitle << " 1 " << note.name << ' ' << note.sinceMs << ' '
      << (note.deleted ? "deleted" : "member") << ' ' << (note.discarding ? "discarding" : "kept")
      << '\n';
  return out.str();
}

bool parseRemovalNote(kj::StringPtr text, RemovalNote& note) {
  std::istringstream in(std::string(text.cStr(), text.size()));
  std::string title, what, state, rest;
  int version = 0;
  RemovalNote read;
  if (!(in >> title >> version >> read.name >> read.sinceMs >> what >> state) || in >> rest) return false;
  if (title != kTitle || version != 1 || !isValidNodeId(read.name.c_str())) return false;
  if ((what != "member" && what != "deleted") || (state != "kept" && state != "discarding")) return false;
  read.deleted = what == "deleted";
  read.discarding = state == "discarding";
  note = read;
  return true;
}

std::string removalNotePath(const VolumeId& id) {
  return kj::str(kRemovalFolder, "/", id).cStr();
}

}  // namespace packmoor::replicator
