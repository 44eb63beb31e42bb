#include "discarded.h"

#include "gitlayer/txn_id.h"
#include "record_applier.h"

#include <kj/debug.h>

namespace packmoor::gitlayer {

Co<bool> dropDiscarded(kernelio::Env& env, replicator::Volume& volume, GitStateMachine& machine,
                       RepositoryId repository) {
  const auto row = findRepository(*machine.snapshot(), repository);
  if (!row.has_value() || row->info.discardedAtIndex == 0) co_return false;
  RepositoryDeleteRecord record;
  record.txn = makeTxnId(env.random, machine.applied().index);
  record.repository = repository;
  record.name = row->info.name;
  record.timeMs = env.clock.nowMs();
  record.discardedAtIndex = row->info.discardedAtIndex;  // one that is restored meanwhile stays
  replicator::Proposal proposal;
  proposal.txn = record.txn;
  proposal.kind = kRepositoryDelete;
  proposal.payload = encodeRepositoryDelete(record);
  auto proposed = volume.propose(kj::mv(proposal));
  auto answer = co_await kj::mv(proposed);
  if (decodeResult(answer.result).status != ApplyResult::Status::kDone) co_return false;
  KJ_LOG(INFO, "a deleted repository was kept for long enough and is gone", record.name.c_str(),
         repository, answer.index);
  co_return true;
}

}  // namespace packmoor::gitlayer
