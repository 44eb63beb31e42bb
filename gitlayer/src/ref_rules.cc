#include "ref_rules.h"

#include <kj/string.h>

namespace packmoor::gitlayer {

namespace {

// git's words in report-status, as its client shows them; why stands in the details.
constexpr const char* kNotUpdated = "failed to update ref";

std::string quoted(std::string_view name) { return "'" + std::string(name) + "'"; }

class Decider {
 public:
  Decider(const RefsBefore& before, RefDecision& decision)
      : before_(before), decision_(decision) {}

  // Why the update cannot take effect; empty when it does.
  std::string decide(const RefUpdateView& update) {
    const std::optional<ObjectId> now = current(update.name);
    if (update.oldId.isZero() ? now.has_value() : now != update.oldId) {
      return lockText(update.name) + mismatchText(update, now);
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

  static std::string lockText(std::string_view name) {
    return "cannot lock ref " + quoted(name) + ": ";
  }
  static std::string mismatchText(const RefUpdateView& update, const std::optional<ObjectId>& now) {
    if (!now.has_value()) return "unable to resolve reference " + quoted(update.name);
    if (update.oldId.isZero()) return "reference already exists";
    return kj::str("is at ", *now, " but expected ", update.oldId).cStr();
  }
  static std::string conflictText(std::string_view name, std::string_view other) {
    return lockText(name) + quoted(other) + " exists; cannot create " + quoted(name);
  }

  const RefsBefore& before_;
  RefDecision& decision_;
};

}  // namespace

RefDecision decideRefs(const RefsBefore& before, const std::vector<RefUpdateView>& updates,
                       bool atomic) {
  RefDecision decision;
  Decider decider(before, decision);
  size_t told = 0;
  for (size_t i = 0; i < updates.size(); ++i) {
    std::string detail = decider.decide(updates[i]);
    if (detail.empty()) {
      ++decision.done;
      continue;
    }
    decision.problems.resize(updates.size());
    decision.details.resize(updates.size());
    decision.problems[i] = kNotUpdated;
    if (++told <= kRefDetailsMax) decision.details[i] = std::move(detail);
    if (atomic) break;
  }
  if (atomic && !decision.problems.empty()) {
    for (auto& problem : decision.problems) problem = kAtomicFailure;
    decision.changes.clear();
    decision.done = 0;
    decision.rewound = false;
  }
  return decision;
}

}  // namespace packmoor::gitlayer
