#include "kv_repositories.h"

#include <sstream>

namespace packmoor::replicator {

std::string KvRepository::problem(const PruneGuard& guard, const KvRepositoryOperation& operation) {
  if (operation.prune) return guard.isVoid(operation.restsOn) ? "void" : "";
  return guard.mustVerifyAgain(operation.restsOn) ? "again" : "";
}

std::string KvRepository::apply(const KvRepositoryOperation& operation, RecordIndex index) {
  const std::string why = problem(guard, operation);
  if (!why.empty()) return why + " " + operation.repository;
  if (operation.prune) {
    std::istringstream list(operation.object);
    for (std::string object; std::getline(list, object, ',');) objects.erase(object);
    guard.lastPrune = index;
    return "ok " + operation.repository + " pruned";
  }
  if (operation.brings) objects.insert(operation.object);
  refs[operation.ref] = operation.object;
  guard.lastChange = index;
  return "ok " + operation.repository + " " + operation.object;
}

std::string KvRepository::brokenRef() const {
  for (const auto& [ref, object] : refs) {
    if (objects.count(object) == 0) return ref + " names " + object;
  }
  return "";
}

}  // namespace packmoor::replicator
