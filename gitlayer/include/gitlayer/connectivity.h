// Connectivity: what a push brings, joined to what the repository has, is complete.
//
// Every object that a new object names is new too or in the repository, with the type that its
// name was given with. Whatever is in the repository is complete already, because it came
// through the same check; so the cost grows with the push and not with history. Submodule
// commits (mode 160000) are elsewhere and not followed.
//
// Threads: these run on the loop or on a worker, one at a time for one set of new objects.
#pragma once

#include "gitlayer/git_node.h"
#include "gitlayer/object_check.h"

#include <string>
#include <unordered_set>
#include <vector>

namespace packmoor::gitlayer {

// The objects of one push, before they are part of the repository.
class NewObjects {
 public:
  virtual ~NewObjects() noexcept(false) {}
  virtual ObjectType typeOf(const ObjectId& id) = 0;  // kNone: not among them
  // Of an object that is among them.
  virtual kj::Array<const kj::byte> read(const ObjectId& id) = 0;
};

// The links of `links` that lead nowhere, or to an object of another type, without repeats.
std::vector<ObjectLink> brokenLinks(NewObjects& added, ObjectSource& source,
                                    kj::ArrayPtr<const ObjectLink> links);
// The same for links that are known to lead out of the push.
std::vector<ObjectLink> brokenOutside(ObjectSource& source, std::vector<ObjectLink> links);

// git's reason for refusing a ref whose objects are not all there.
constexpr const char* kMissingObjects = "missing necessary objects";
// Its reason for a value that a ref may not have.
constexpr const char* kUpdateProblem = "failed to update ref";

struct TipProblem {
  std::string reason;   // for the report's "ng <ref> <reason>"; empty: none
  std::string detail;   // more, for the person at the terminal; may be empty
};
// Checks that the new value of a ref is there and may be this ref's value, and fills in `peeled`
// and `forward`. Whether it is a step forward is answered with a bounded effort, else with no: as much as
// is cheap, or `exact`, as much as any history that people make asks for.
TipProblem completeUpdate(RefUpdate& update, NewObjects& added, ObjectSource& source,
                          bool exact = false);

// Whether one of the commits `targets`, which are among `added`, is reached from a new tip.
bool reachesAdded(const ObjectId& tip, NewObjects& added, ObjectSource& source,
                  const std::unordered_set<ObjectId>& targets);

constexpr size_t kTagDepthMax = 1000;             // tags of tags
constexpr size_t kAddedWalkMax = 1'000'000;       // commits of the push looked at by one search
constexpr size_t kForwardReadsMax = 2000;         // commits of the repository, for `forward`
constexpr size_t kForwardReadsExactMax = 1'000'000;   // likewise, exact

}  // namespace packmoor::gitlayer
