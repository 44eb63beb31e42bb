// A block of an extent that reads bad here is fetched from another member; so is an extent that is
// missing though the state names it.
#include "replicator_impl.h"

#include "replicator/outcome.h"

#include <kj/debug.h>

#include <set>

namespace packmoor::replicator {

namespace {

constexpr int64_t kBlockTimeoutMs = 10'000;
constexpr size_t kMissingFetchesMax = 4;  // at a time

}  // namespace

// Which volume names an extent is not known here: every member of this node's volumes is asked.
std::vector<NodeId> ReplicatorImpl::others() const {
  std::set<NodeId> nodes;
  for (auto& [name, volume] : volumes_) {
    const VolumeConfiguration& configuration = volume->configuration();
    for (const MemberIdentity& member : configuration.members) nodes.insert(member.node);
    for (const MemberIdentity& member : configuration.async) nodes.insert(member.node);
  }
  nodes.erase(self_.node);
  return {nodes.begin(), nodes.end()};
}

Co<kernelio::IoBuffer> ReplicatorImpl::fetchBlock(ExtentId id, uint64_t block) {
  const auto checksums = parts_.extents.blockChecksums(id);
  KJ_REQUIRE(block < checksums.size(), "the extent has no such block here", id, block);
  const std::vector<NodeId> holders = others();
  std::string reasons;
  for (const NodeId& holder : holders) {
    auto asked = parts_.env.timer.timeoutAfter(kBlockTimeoutMs * kj::MILLISECONDS,
                                               parts_.peers.peer(holder).readExtentBlock(id, block));
    auto reply = co_await outcomeOf(kj::mv(asked));
    KJ_IF_MAYBE(exception, reply.exception) {
      reasons += kj::str("; ", holder.c_str(), ": ", exception->getDescription()).cStr();
      continue;
    }
    if (hashBytes(reply.value->data.bytes()) == checksums[block]) co_return kj::mv(reply.value->data);
    reasons += "; " + holder + ": it has other bytes";
  }
  KJ_FAIL_REQUIRE("no other member gives the block", id, block, reasons);
}

// What the state names has been sealed here once (invariant 5), so what is missing was lost by the
// disk: its sidecar or its data is damaged or gone. Asked for about once a second, until it is here.
void ReplicatorImpl::fetchMissing() {
  for (const ExtentId& id : parts_.extents.missing()) {
    if (fetchingMissing_.size() >= kMissingFetchesMax) return;
    if (fetchingMissing_.insert(id).second) tasks_.add(fetchMissingExtent(id));
  }
}

Co<void> ReplicatorImpl::fetchMissingExtent(ExtentId id) {
  std::vector<ExtentId> wanted(1, id);
  auto fetched = exchange_.obtain(kj::mv(wanted), others());
  auto failure = co_await outcomeOf(kj::mv(fetched));
  fetchingMissing_.erase(id);
  KJ_IF_MAYBE(exception, failure) {
    if (toldMissing_.insert(id).second) {
      KJ_LOG(ERROR, "an extent is missing here and cannot be fetched; it is tried again", id,
             exception->getDescription());
    }
  } else {
    toldMissing_.erase(id);
    KJ_LOG(INFO, "an extent that was missing here is fetched from another member", id);
  }
}

}  // namespace packmoor::replicator
