// What a GitNode does for its fronts by way of what any of them does.
#include "gitlayer/git_node.h"

namespace packmoor::gitlayer {

kj::Promise<kj::Own<replicator::ReplicatedExtentWriter>> GitNode::beginExtent(
    RepositoryId repository) {
  KJ_IF_MAYBE(volume, volumeOf(repository)) { return replicator().beginExtent(*volume); }
  return kj::Exception(kj::Exception::Type::FAILED, __FILE__, __LINE__,
                       kj::str("this node does not hold the repository's volume"));
}

std::string GitNode::missingText(std::string_view name) {
  return formerText(name).value_or("there is no repository with the name '" + std::string(name) + "'");
}

}  // namespace packmoor::gitlayer
