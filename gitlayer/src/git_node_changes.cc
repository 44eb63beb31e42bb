#include "git_node_impl.h"

#include "gitlayer/txn_id.h"
#include "record_codec.h"

#include <algorithm>

namespace packmoor::gitlayer {

namespace {

constexpr size_t kDescriptionBytesMax = 4096;

GitNode::Changed problem(RepositoryProblem problem, std::string message) {
  GitNode::Changed changed;
  changed.problem = problem;
  changed.message = std::move(message);
  return changed;
}

GitNode::Changed exists(std::string_view name) {
  return problem(RepositoryProblem::kExists,
                 "a repository with the name " + quoted(name) + " exists");
}

replicator::Proposal proposalOf(replicator::RecordKind kind, replicator::TxnId txn,
                                kj::Array<const kj::byte> payload) {
  replicator::Proposal proposal;
  proposal.txn = txn;
  proposal.kind = kind;
  proposal.payload = kj::mv(payload);
  return proposal;
}

}  // namespace

Co<GitNode::Changed> GitNodeImpl::create(std::string name, std::string volumeName,
                                         std::string head, std::string description) {
  if (auto wrong = repositoryNameProblem(name)) {
    co_return problem(RepositoryProblem::kBadName, *wrong);
  }
  if (head.empty()) head = RepositoryInfo().head;
  if (!isValidRefName(head)) {
    co_return problem(RepositoryProblem::kBadName,
                      "HEAD must name a ref such as refs/heads/main, not " + quoted(head));
  }
  if (description.size() > kDescriptionBytesMax) {
    co_return problem(RepositoryProblem::kBadName, "the description is longer than 4096 bytes");
  }
  co_await replicator().whenReady(kVolumesReadyTimeoutMs);
  auto target = volumeName.empty() ? emptiestVolume()
                                   : replicator().findVolume(volumeName);
  auto existing = volumeWith(name);
  KJ_IF_MAYBE(volume, target) {
    if (existing != nullptr) {
      co_return exists(name);
    }
    RepositoryCreateRecord record;
    record.txn = makeTxnId(env_.random, machineOf(*volume).applied().index);
    env_.random.fill(kj::arrayPtr(record.repository.bytes.data(), record.repository.bytes.size()));
    record.name = name;
    record.description = description;
    record.head = head;
    record.timeMs = env_.clock.nowMs();
    RepositoryInfo made;
    made.id = record.repository;
    auto ordering =
        order(*volume, made, proposalOf(kRepositoryCreate, record.txn, encodeRepositoryCreate(record)));
    auto changed = co_await kj::mv(ordering);
    co_return kj::mv(changed);
  }
  co_return problem(RepositoryProblem::kNoVolume,
                    volumeName.empty() ? "this node has no volume"
                                       : "there is no volume " + quoted(volumeName));
}

// Resolves when this node shows the change.
Co<GitNode::Changed> GitNodeImpl::order(replicator::Volume& volume, RepositoryInfo repository,
                                        replicator::Proposal proposal) {
  const auto kind = proposal.kind;
  auto proposed = volume.propose(kj::mv(proposal));
  auto answer = co_await kj::mv(proposed);
  const ApplyResult result = decodeResult(answer.result);
  switch (result.status) {
    case ApplyResult::Status::kDone: break;
    case ApplyResult::Status::kExists: co_return problem(RepositoryProblem::kExists, result.message);
    case ApplyResult::Status::kNotFound:
      co_return problem(RepositoryProblem::kNotFound, result.message);
    default:
      co_return problem(kind == kRepositorySet ? RepositoryProblem::kBadSetting
                                               : RepositoryProblem::kBadName,
                        result.message);
  }
  co_await volume.whenApplied(answer.index);
  Changed changed;
  changed.index = answer.index;
  auto row = findRepository(*machineOf(volume).snapshot(), repository.id);
  if (row.has_value()) changed.statistics = row->statistics;
  changed.info = row.has_value() ? std::move(row->info) : std::move(repository);
  co_return kj::mv(changed);
}

Co<GitNodeImpl::Target> GitNodeImpl::find(std::string name) {
  auto finding = viewOf(name, true);
  auto found = co_await kj::mv(finding);
  auto holder = volumeWith(name);
  Target target;
  KJ_IF_MAYBE(view, found) {
    KJ_IF_MAYBE(volume, holder) {
      target.volume = volume;
      target.info = (*view)->info();
      target.txn = makeTxnId(env_.random, (*view)->index());
    }
  }
  co_return kj::mv(target);
}

Co<GitNodeImpl::Target> GitNodeImpl::findDiscarded(std::string name) {
  auto finding = viewOf(name, true);
  auto found = co_await kj::mv(finding);
  found = nullptr;
  auto listing = listDiscarded(SIZE_MAX);
  auto discarded = co_await kj::mv(listing);
  Target target;
  for (auto& info : discarded) {
    if (info.name != name) continue;
    auto holder = volumeOf(info.id);
    KJ_IF_MAYBE(volume, holder) {
      target.volume = volume;
      target.info = std::move(info);
      target.txn = makeTxnId(env_.random, machineOf(*volume).applied().index);
      break;
    }
  }
  co_return kj::mv(target);
}

GitNode::Changed GitNodeImpl::notFound(std::string_view name) {
  return problem(RepositoryProblem::kNotFound, missingText(name));
}

Co<GitNode::Changed> GitNodeImpl::remove(std::string name, bool forGood) {
  auto finding = find(name);
  auto target = co_await kj::mv(finding);
  if (target.volume == nullptr && forGood) {
    auto looking = findDiscarded(name);
    target = co_await kj::mv(looking);
  }
  if (target.volume == nullptr) co_return notFound(name);
  replicator::Proposal proposal;
  if (forGood) {
    RepositoryDeleteRecord record;
    record.txn = target.txn;
    record.repository = target.info.id;
    record.name = name;
    record.timeMs = env_.clock.nowMs();
    record.discardedAtIndex = target.info.discardedAtIndex;
    proposal = proposalOf(kRepositoryDelete, record.txn, encodeRepositoryDelete(record));
    target.info.discardedAtIndex = 0;  // nothing is kept
  } else {
    proposal = naming(kRepositoryDiscard, target, {});
  }
  auto ordering = order(*target.volume, target.info, kj::mv(proposal));
  auto changed = co_await kj::mv(ordering);
  co_return kj::mv(changed);
}

replicator::Proposal GitNodeImpl::naming(replicator::RecordKind kind, const Target& target,
                                         std::string to) {
  RepositoryNamingRecord record;
  record.txn = target.txn;
  record.repository = target.info.id;
  record.name = target.info.name;
  record.to = std::move(to);
  record.timeMs = env_.clock.nowMs();
  return proposalOf(kind, record.txn, encodeRepositoryNaming(record));
}

Co<GitNode::Changed> GitNodeImpl::rename(std::string name, std::string to) {
  if (auto wrong = repositoryNameProblem(to)) co_return problem(RepositoryProblem::kBadName, *wrong);
  auto finding = find(name);
  auto target = co_await kj::mv(finding);
  if (target.volume == nullptr) co_return notFound(name);
  // Another volume may hold the name; this one's primary knows of its own only.
  if (volumeWith(to) != nullptr) co_return exists(to);
  auto ordering = order(*target.volume, target.info, naming(kRepositoryRename, target, to));
  auto changed = co_await kj::mv(ordering);
  co_return kj::mv(changed);
}

Co<GitNode::Changed> GitNodeImpl::restore(std::string name, std::string to) {
  if (to.empty()) to = name;
  if (auto wrong = repositoryNameProblem(to)) co_return problem(RepositoryProblem::kBadName, *wrong);
  auto finding = findDiscarded(name);
  auto target = co_await kj::mv(finding);
  if (target.volume == nullptr) {
    co_return problem(RepositoryProblem::kNotFound,
                      "there is no deleted repository with the name " + quoted(name));
  }
  if (volumeWith(to) != nullptr) {
    co_return problem(RepositoryProblem::kExists,
                      "a repository with the name " + quoted(to) +
                          " exists by now, and is left alone: give the one that comes back another name "
                          "(`--as NAME`), or rename the other one first");
  }
  auto ordering = order(*target.volume, target.info, naming(kRepositoryRestore, target, to));
  auto changed = co_await kj::mv(ordering);
  co_return kj::mv(changed);
}

Co<GitNode::Changed> GitNodeImpl::fork(std::string parent, std::string name,
                                       bool defaultBranchOnly) {
  if (auto wrong = repositoryNameProblem(name)) {
    co_return problem(RepositoryProblem::kBadName, *wrong);
  }
  auto finding = find(parent);
  auto target = co_await kj::mv(finding);
  if (target.volume == nullptr) co_return notFound(parent);
  if (volumeWith(name) != nullptr) co_return exists(name);
  RepositoryForkRecord record;
  record.txn = target.txn;
  env_.random.fill(kj::arrayPtr(record.repository.bytes.data(), record.repository.bytes.size()));
  record.name = name;
  record.parent = target.info.id;
  record.parentName = target.info.name;
  record.defaultBranchOnly = defaultBranchOnly;
  record.timeMs = env_.clock.nowMs();
  RepositoryInfo made;
  made.id = record.repository;
  auto ordering = order(*target.volume, made,
                        proposalOf(kRepositoryFork, record.txn, encodeRepositoryFork(record)));
  auto changed = co_await kj::mv(ordering);
  co_return kj::mv(changed);
}

Co<GitNode::Changed> GitNodeImpl::set(std::string name, Settings changes) {
  if (changes.empty() || changes.size() > kSettingsMax) {
    co_return problem(RepositoryProblem::kBadSetting,
                      changes.empty() ? "no setting is given" : "too many settings at once");
  }
  for (Setting& change : changes) {
    if (auto wrong = normalizeSetting(change)) {
      co_return problem(RepositoryProblem::kBadSetting, *wrong);
    }
  }
  auto finding = find(name);
  auto target = co_await kj::mv(finding);
  if (target.volume == nullptr) co_return notFound(name);
  RepositorySetRecord record;
  record.txn = target.txn;
  record.repository = target.info.id;
  record.name = name;
  record.changes = std::move(changes);
  record.timeMs = env_.clock.nowMs();
  auto ordering = order(*target.volume, target.info,
                        proposalOf(kRepositorySet, record.txn, encodeRepositorySet(record)));
  auto changed = co_await kj::mv(ordering);
  co_return kj::mv(changed);
}

}  // namespace packmoor::gitlayer
