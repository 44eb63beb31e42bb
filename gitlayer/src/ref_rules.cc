#include "ref_rules.h"

#include <kj/string.h>

namespace packmoor::gitlayer {

namespace {

// git's words in report-status, as its client shows them.
constexpr const char* kLostUpdate = "failed to update ref";
constexpr const char* kExists = "reference already exists";
constexpr const char* kAtomic = "atomic push failure";

std::string quoted(std::string_view name) { return "'" + std::string(name) + "'"; }

class Decider {
 public:
  Decider(const RefsBefore& before, RefDecision& decision)
      : before_(before), decision_(decision) {}

  // Empty when the update takes effect.
  std::string decide(const RefUpdateView& update) {
    const std::optional<ObjectId> now = current(update.name);
    if (update.oldId.isZero() ? now.has_value() : now != update.oldId) {
      return update.oldId.isZero() && !update.newId.isZero() ? kExists : kLostUpdate;
    }
    if (update.newId.isZero()) {
      if (!now.has_value()) return {};  // there is nothing to delete
      change(update.name, RefChange{});
      decision_.rewound = true;
      return {};
    }
    if (!now.has_value()) {
      std::string problem = nameConflict(update.name);
      if (!problem.empty()) return problem;
    } else if (!update.forward) {
      decision_.rewound = true;
    }
    change(update.name, RefChange{update.newId, update.peeled});
    return {};
  }

 private:
  std::optional<ObjectId> current(std::string_view name) const {
    auto change = decision_.changes.find(name);
    return change != decision_.changes.end() ? change->second.id : before_.ref(name);
  }

  void change(std::string_view name, RefChange change) {
    decision_.changes[std::string(name)] = change;
  }

  // A ref may not be what a folder is for another: "a" excludes "a/b".
  std::string nameConflict(std::string_view name) const {
    constexpr std::string_view kRoot = "refs/";
    for (size_t slash = name.find('/', kRoot.size()); slash != std::string_view::npos;
         slash = name.find('/', slash + 1)) {
      const std::string_view above = name.substr(0, slash);
      if (current(above).has_value()) return conflictText(name, above);
    }
    const std::string below = std::string(name) + "/";
    auto& changes = decision_.changes;
    for (auto change = changes.lower_bound(below);
         change != changes.end() && change->first.compare(0, below.size(), below) == 0; ++change) {
      if (change->second.id.has_value()) return conflictText(name, change->first);
    }
    auto found = before_.anyBelow(below, [&](std::string_view other) {
      return changes.find(other) != changes.end();
    });
    return found.has_value() ? conflictText(name, *found) : std::string();
  }

  static std::string conflictText(std::string_view name, std::string_view other) {
    return "cannot lock ref " + quoted(name) + ": " + quoted(other) + " exists; cannot create " +
           quoted(name);
  }

  const RefsBefore& before_;
  RefDecision& decision_;
};

}  // namespace

RefDecision decideRefs(const RefsBefore& before, const std::vector<RefUpdateView>& updates,
                       bool atomic) {
  RefDecision decision;
  Decider decider(before, decision);
  for (size_t i = 0; i < updates.size(); ++i) {
    std::string problem = decider.decide(updates[i]);
    if (problem.empty()) {
      ++decision.done;
      continue;
    }
    decision.problems.resize(updates.size());
    decision.problems[i] = std::move(problem);
    if (atomic) break;
  }
  if (atomic && !decision.problems.empty()) {
    for (auto& problem : decision.problems) {
      if (problem.empty()) problem = kAtomic;
    }
    decision.changes.clear();
    decision.done = 0;
    decision.rewound = false;
  }
  return decision;
}

}  // namespace packmoor::gitlayer
