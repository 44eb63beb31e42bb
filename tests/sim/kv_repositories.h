// KvRepositories: refs and objects in a KvState, pruned under rule 21 with the production guard.
//
// Operations, in text as the others (REPOSITORY counts as their key):
//   "push REPOSITORY REF OBJECT new|known VERIFIED": REF names OBJECT, which it brings, or which was there
//   at the index VERIFIED.
//   "prune REPOSITORY OBJECT,OBJECT... - COMPUTED": these objects go; no ref named them at that index.
// Answers of apply: "ok REPOSITORY ...", "again REPOSITORY" and "void REPOSITORY"; they are in the log.
#pragma once

#include "replicator/prune_guard.h"

#include <map>
#include <set>
#include <string>

namespace packmoor::replicator {

struct KvRepositoryOperation {
  bool prune = false;
  std::string repository, ref, object;  // of a prune: the list in `object`
  bool brings = false;
  RecordIndex restsOn;                  // VERIFIED or COMPUTED

  static bool is(const std::string& verb) { return verb == "push" || verb == "prune"; }
};

struct KvRepository {
  std::map<std::string, std::string> refs;
  std::set<std::string> objects;
  PruneGuard guard;

  std::string apply(const KvRepositoryOperation& operation, RecordIndex index);
  // Why the operation does not count, or empty.
  static std::string problem(const PruneGuard& guard, const KvRepositoryOperation& operation);
  // Invariant 10: a ref whose object is not there; empty: none.
  std::string brokenRef() const;
};

}  // namespace packmoor::replicator
