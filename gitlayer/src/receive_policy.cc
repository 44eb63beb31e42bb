#include "receive_policy.h"

#include "gitlayer/connectivity.h"
#include "ref_rules.h"

namespace packmoor::gitlayer {

namespace {

constexpr std::string_view kRefs = "refs/", kBranches = "refs/heads/";

bool isBranch(std::string_view name) { return name.substr(0, kBranches.size()) == kBranches; }

void refuse(ReceiveCommand& command, const char* reason, std::string detail = {}) {
  command.problem = reason;
  command.detail = std::move(detail);
}

void checkDelete(ReceiveCommand& command, const RepositorySettings& settings,
                 std::string_view head) {
  const std::string& name = command.update.name;
  if (settings.denyDeletes && isBranch(name)) {
    return refuse(command, "deletion prohibited", "denying ref deletion for " + name);
  }
  if (name != head) return;
  if (settings.denyDeleteCurrent == DeleteCurrent::kRefuse) {
    refuse(command, "deletion of the current branch prohibited",
           "refusing to delete the current branch: " + name);
  } else if (settings.denyDeleteCurrent == DeleteCurrent::kWarn) {
    command.warning = "deleting the current branch";
  }
}

void check(ReceiveCommand& command, const RepositoryInfo& info) {
  const RepositorySettings& settings = info.settings;
  const RefUpdate& update = command.update;
  if (isHiddenRef(settings.receiveHidden, update.name)) {
    return refuse(command, command.isDelete() ? "deny deleting a hidden ref"
                                              : "deny updating a hidden ref");
  }
  if (isFunnyRef(command)) {
    return refuse(command, "funny refname",
                  "refusing to create funny ref '" + shownText(update.name) + "' remotely");
  }
  if (command.isDelete()) {
    if (!update.oldId.isZero()) checkDelete(command, settings, info.head);
  } else if (settings.denyNonFastForwards && !update.forward && isBranch(update.name)) {
    refuse(command, "non-fast-forward",
           "denying non-fast-forward " + update.name + " (you should pull first)");
  }
}

}  // namespace

bool isFunnyRef(const ReceiveCommand& command) {
  const std::string_view name = command.update.name;
  return !isValidRefName(name) || name.find('/', kRefs.size()) == name.npos;
}

void applyPolicy(std::vector<ReceiveCommand>& commands, RepositoryView& view) {
  for (ReceiveCommand& command : commands) {
    command.warning.clear();
    if (command.problem.empty() || command.problem == kUpdateProblem) check(command, view.info());
  }
}

void refuseAtomic(std::vector<ReceiveCommand>& commands) {
  bool beforeRefs = false, atRefs = false;  // where git would have found the problems
  for (const auto& command : commands) {
    if (command.problem.empty()) continue;
    (command.problem == kUpdateProblem ? atRefs : beforeRefs) = true;
  }
  if (!beforeRefs && !atRefs) return;
  for (auto& command : commands) {
    if (command.problem.empty() || !beforeRefs) {
      // It does not come to a deletion of what is not there.
      if (command.isDelete() && command.update.oldId.isZero()) command.warning.clear();
      command.problem = beforeRefs ? "atomic push failure" : kAtomicFailure;
    }
  }
}

}  // namespace packmoor::gitlayer
