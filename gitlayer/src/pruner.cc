#include "pruner.h"

#include "gitlayer/txn_id.h"
#include "prune_plan.h"

#include <kj/debug.h>

namespace packmoor::gitlayer {

namespace {

constexpr uint32_t kSliceObjects = 20'000;

Co<PrunePlan> makePlan(kernelio::Env& env, std::shared_ptr<PruneJob> job) {
  for (bool complete = false; !complete;) {
    auto working = env.workers.run([job]() { return job->step(kSliceObjects); });
    complete = co_await kj::mv(working);
  }
  co_return job->take();
}

void describe(const PrunePlan& plan, GitNode::Pruned& pruned) {
  pruned.index = replicator::RecordIndex(plan.computedAt);
  pruned.objects = plan.objects.size();
  pruned.objectBytes = plan.objectBytes;
  pruned.packs = plan.packs.size();
  pruned.packBytes = plan.packBytes;
  pruned.packedObjects = plan.packedObjects;
  pruned.kept = plan.kept;
}

replicator::Proposal proposalOf(kernelio::Env& env, const RepositoryId& repository,
                                PrunePlan plan) {
  PruneRecord record;
  record.txn = makeTxnId(env.random, replicator::RecordIndex(plan.computedAt));
  record.repository = repository;
  record.computedAt = plan.computedAt;
  record.objects = std::move(plan.objects);
  record.packs = std::move(plan.packs);
  replicator::Proposal proposal;
  proposal.txn = record.txn;
  proposal.kind = kPrune;
  proposal.payload = encodePrune(record);
  return proposal;
}

}  // namespace

Co<GitNode::Pruned> pruneRepository(kernelio::Env& env, replicator::Volume& volume,
                                    GitStateMachine& machine, GitNode::PruneRequest request) {
  GitNode::Pruned pruned;
  std::optional<int64_t> youngSinceMs;
  if (request.graceMs > 0) youngSinceMs = env.clock.nowMs() - request.graceMs;
  std::shared_ptr<PruneJob> job;
  while (pruned.attempts < kPruneAttemptsMax) {
    ++pruned.attempts;
    auto barrier = volume.readBarrier();
    co_await kj::mv(barrier);
    // One state for both: a record may be applied between two looks.
    auto state = machine.snapshot();
    auto found = machine.view(request.name, state);
    KJ_IF_MAYBE(view, found) {
      pruned.info = (*view)->info();
      if (job == nullptr) {
        job = std::make_shared<PruneJob>(std::move(state), kj::mv(*view), youngSinceMs);
      } else {
        job->renew(std::move(state), kj::mv(*view));
      }
      auto planning = makePlan(env, job);
      PrunePlan plan = co_await kj::mv(planning);
      describe(plan, pruned);
      if (request.dryRun || plan.empty()) co_return kj::mv(pruned);
      auto proposed = volume.propose(proposalOf(env, pruned.info.id, std::move(plan)));
      auto answer = co_await kj::mv(proposed);
      const ApplyResult result = decodeResult(answer.result);
      if (result.status == ApplyResult::Status::kDone) {
        pruned.index = answer.index;
        KJ_LOG(INFO, "a repository was pruned", request.name.c_str(), pruned.info.id, answer.index,
               pruned.objects, pruned.objectBytes, pruned.packs, pruned.packBytes, pruned.kept);
        co_return kj::mv(pruned);
      }
      if (result.status != ApplyResult::Status::kVoid) {
        kj::throwFatalException(KJ_EXCEPTION(FAILED, kj::str(result.message.c_str())));
      }
    } else {
      pruned.problem = RepositoryProblem::kNotFound;
      pruned.message = "there is no repository with the name '" + request.name + "' any more";
      co_return kj::mv(pruned);
    }
  }
  pruned.problem = RepositoryProblem::kBusy;
  pruned.message = kj::str("it was pushed to, or settled, each time while what may be dropped was "
                           "computed, ", pruned.attempts, " times").cStr();
  co_return kj::mv(pruned);
}

}  // namespace packmoor::gitlayer
