// What a set of ref updates does to a repository: the rules, without a store.
//
// The primary asks them before it orders a transaction (against what is applied and in flight),
// and every member again when it applies it. Both must come to the same answers, so there is one
// function.
#pragma once

#include "record_codec.h"

#include <map>
#include <optional>
#include <string>
#include <vector>

namespace packmoor::gitlayer {

// The refs of one repository as they are before the updates.
class RefsBefore {
 public:
  virtual ~RefsBefore() noexcept(false) {}
  virtual std::optional<ObjectId> ref(std::string_view name) const = 0;
  // A ref whose name begins with `prefix` (which ends in '/') and for which `ignore` is false.
  using Ignore = kj::Function<bool(std::string_view name)>;
  virtual std::optional<std::string> anyBelow(std::string_view prefix, Ignore ignore) const = 0;
};

struct RefChange {
  std::optional<ObjectId> id;  // nullopt: deleted
  ObjectId peeled;
};

struct RefDecision {
  std::vector<std::string> problems;  // empty: none; else one per update, empty where it is done
  std::vector<std::string> details;   // as many as problems: more, in git's words, of the first ones
  size_t done = 0;                    // updates that take effect
  std::map<std::string, RefChange, std::less<>> changes;
  // Some ref was deleted or moved other than forward.
  bool rewound = false;
};

constexpr const char* kAtomicFailure = "atomic transaction failed";
// Details are kept with the result, so they are bounded.
constexpr size_t kRefDetailsMax = 100;

// Updates take effect one after the other. Atomic: all or none.
RefDecision decideRefs(const RefsBefore& before, const std::vector<RefUpdateView>& updates,
                       bool atomic);

}  // namespace packmoor::gitlayer
