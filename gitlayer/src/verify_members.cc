#include "verify_members.h"

#include "gitlayer/txn_id.h"
#include "record_codec.h"

#include <gitlayer/git_queries.pb.h>
#include <kernelio/co.h>

#include <kj/debug.h>

namespace packmoor::gitlayer {

namespace {

constexpr kj::Duration kPollInterval = 100 * kj::MILLISECONDS;
constexpr uint32_t kAttemptsUnreachable = 5;  // in a row

kj::Promise<kj::Array<kj::byte>> ask(replicator::Replicator& replicator,
                                     replicator::Volume& volume, const replicator::NodeId& node,
                                     kj::Array<const kj::byte> question) {
  if (node == replicator.peers().self()) {
    return volume.stateMachine().query("digest", kj::mv(question));
  }
  return replicator.peers().peer(node).query(volume.id(), "digest", kj::mv(question));
}

kj::Array<const kj::byte> questionFor(replicator::RecordIndex index) {
  pb::DigestQuestion message;
  message.set_index(index.value);
  auto bytes = kj::heapArray<kj::byte>(message.ByteSizeLong());
  message.SerializeToArray(bytes.begin(), static_cast<int>(bytes.size()));
  return bytes;
}

// False: not ready yet.
bool take(const pb::DigestAnswer& answer, GitNode::Digest& digest) {
  switch (answer.state()) {
    case pb::DigestAnswer::DONE:
      digest.refs = answer.refs();
      digest.repositories = answer.repositories();
      digest.objects = answer.objects();
      digest.refCount = answer.ref_count();
      digest.repositoryCount = answer.repository_count();
      digest.objectCount = answer.object_count();
      digest.problem = answer.problem();
      return true;
    case pb::DigestAnswer::FORGOTTEN:
      digest.problem = "the node was restarted, or there were too many verifications at once";
      return true;
    default:
      return false;
  }
}

Co<GitNode::Digest> digestOf(kernelio::Env& env, replicator::Replicator& replicator,
                             replicator::Volume& volume, replicator::NodeId node,
                             replicator::RecordIndex index) {
  GitNode::Digest digest;
  digest.node = node;
  digest.index = index;
  const auto deadline = env.timer.now() + kDigestTimeout;
  uint32_t failures = 0;
  while (env.timer.now() < deadline) {
    pb::DigestAnswer answer;
    std::string failure;
    kj::Promise<kj::Array<kj::byte>> asked =
        kj::evalNow([&]() { return ask(replicator, volume, node, questionFor(index)); });
    auto bytes = co_await asked.catch_([&failure](kj::Exception&& exception) {
      failure = exception.getDescription().cStr();
      return kj::Array<kj::byte>();
    });
    if (!failure.empty()) {
      if (++failures == kAttemptsUnreachable) {
        digest.problem = "the node cannot be asked: " + failure;
        co_return digest;
      }
    } else {
      failures = 0;
      KJ_REQUIRE(answer.ParseFromArray(bytes.begin(), static_cast<int>(bytes.size())),
                 "A node's digest cannot be read.", node.c_str());
      if (take(answer, digest)) co_return digest;
    }
    co_await env.timer.afterDelay(kPollInterval);
  }
  digest.problem = "the node did not finish in time";
  co_return digest;
}

Co<std::vector<GitNode::Digest>> verify(kernelio::Env& env, replicator::Replicator& replicator,
                                        std::string name) {
  auto found = replicator.findVolume(name);
  auto& volume = KJ_REQUIRE_NONNULL(found, "There is no such volume on this node.", name.c_str());
  replicator::Proposal proposal;
  proposal.txn = makeTxnId(env.random, volume.stateMachine().applied().index);
  proposal.kind = kVerify;
  proposal.payload = encodeVerify(proposal.txn);
  auto proposed = volume.propose(kj::mv(proposal));
  auto answer = co_await kj::mv(proposed);
  kj::Vector<kj::Promise<GitNode::Digest>> asked;
  for (const auto& member : volume.status().members) {
    asked.add(digestOf(env, replicator, volume, member.node, answer.index));
  }
  auto all = co_await kj::joinPromises(asked.releaseAsArray());
  std::vector<GitNode::Digest> digests;
  for (auto& digest : all) digests.push_back(std::move(digest));
  co_return digests;
}

}  // namespace

kj::Promise<std::vector<GitNode::Digest>> verifyMembers(kernelio::Env& env,
                                                        replicator::Replicator& replicator,
                                                        std::string volume) {
  return verify(env, replicator, std::move(volume));
}

}  // namespace packmoor::gitlayer
