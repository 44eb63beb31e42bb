// A block of an extent that reads bad here is fetched from another member.
#include "replicator_impl.h"

#include "replicator/outcome.h"

#include <kj/debug.h>

#include <set>

namespace packmoor::replicator {

namespace {

constexpr int64_t kBlockTimeoutMs = 10'000;

}  // namespace

// Which volume names the extent is not known here: every member of this node's volumes is asked.
Co<kernelio::IoBuffer> ReplicatorImpl::fetchBlock(ExtentId id, uint64_t block) {
  const auto checksums = parts_.extents.blockChecksums(id);
  KJ_REQUIRE(block < checksums.size(), "the extent has no such block here", id, block);
  std::set<NodeId> holders;
  for (auto& [name, volume] : volumes_) {
    const VolumeConfiguration& configuration = volume->configuration();
    for (const MemberIdentity& member : configuration.members) holders.insert(member.node);
    for (const MemberIdentity& member : configuration.async) holders.insert(member.node);
  }
  holders.erase(self_.node);
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

}  // namespace packmoor::replicator
