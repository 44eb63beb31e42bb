#include "repacker.h"

#include "git_pack_stream.h"
#include "git_state_machine.h"
#include "gitlayer/txn_id.h"
#include "repack_plan.h"

#include <replicator/outcome.h>

#include <kj/debug.h>

#include <algorithm>

namespace packmoor::gitlayer {

namespace {

// All deltas are looked for anew, at some MiB a second, while no pack is larger: a larger one was pushed as
// it is, or made of smaller ones that way.
constexpr uint64_t kAllDeltasPackBytesMax = 128ull << 20;

// What the receiver of packs asks for. A merged pack needs nothing beside itself, and has no refs.
class MergeView final : public RepositoryView {
 public:
  MergeView(std::shared_ptr<PackMerge> merge, RepositoryInfo info)
      : merge_(std::move(merge)), info_(std::move(info)) {
    info_.settings.fsckObjects = false;   // what is here may have come under laxer ones
  }
  replicator::RecordIndex index() override { return replicator::RecordIndex(); }
  const RepositoryInfo& info() override { return info_; }
  std::optional<Ref> ref(std::string_view) override { return std::nullopt; }
  void forEachRef(std::string_view, std::string_view, kj::FunctionParam<bool(const Ref&)>) override {}
  ObjectSource& objects() override { return merge_->objects(); }
  RepositoryStatistics statistics() override { return {}; }

 private:
  std::shared_ptr<PackMerge> merge_;
  RepositoryInfo info_;
};

RepackRecord recordOf(kernelio::Env& env, const StateReader& state, const RepositoryId& repository,
                      const std::vector<PackRow>& packs) {
  RepackRecord record;
  std::string position;
  if (state.get(kPositionKey, position)) {
    record.computedAt = decodePosition(position).index.value;
  }
  record.txn = makeTxnId(env.random, replicator::RecordIndex(record.computedAt));
  record.repository = repository;
  for (const auto& pack : packs) record.replaced.push_back(pack.pack);
  std::sort(record.replaced.begin(), record.replaced.end());
  return record;
}

replicator::Hash128 rootIn(replicator::ExtentStore& extents, const replicator::ExtentId& id) {
  auto info = extents.info(id);
  return KJ_REQUIRE_NONNULL(info, "a merged pack is not here any more", id).root;
}

}  // namespace

bool Repacker::choose() {
  auto holder = node_.replicator().findVolume(volume_);
  KJ_IF_MAYBE(volume, holder) {
    auto& machine = kj::downcast<GitStateMachine>(volume->stateMachine());
    const auto state = machine.snapshot();
    const GitOptions& options = node_.options();
    const auto row = findRepository(*state, repository_);
    if (!row.has_value()) return false;
    info_ = row->info;
    packs_ =
        chooseRepack(packRows(*state, repository_),
                     {options.repackPacks, std::min(options.repackBytesMax, options.packBytesMax)});
    if (packs_.empty()) return false;
    record_ = recordOf(node_.env(), *state, repository_, packs_);
    merge_ = std::make_shared<PackMerge>(repository_, machine.openPacks(packs_));
    return true;
  }
  return false;
}

Co<bool> Repacker::build() {
  if (!choose()) co_return false;
  auto receiving = receive();
  co_await kj::mv(receiving);
  KJ_REQUIRE(!pack_->indexer.refused(), "Packs could not be merged: what came of it is no whole pack.",
             repository_, pack_->indexer.problem().c_str());
  auto comparing = node_.env().workers.run(
      [merge = merge_, pack = pack_]() { return merge->isSame(pack->indexer.table()); });
  const bool same = co_await kj::mv(comparing);
  KJ_REQUIRE(same, "Packs could not be merged: what came of it holds other objects.", repository_);
  // Durable: pack and index, on W members. What they replace stays until the record's apply is durable.
  auto sealing = receiver_->seal();
  co_await kj::mv(sealing);
  record_.pack = pack_->extents;
  record_.packRoot = rootIn(extents_, record_.pack.pack);
  record_.indexRoot = rootIn(extents_, record_.pack.index);
  co_return true;
}

Co<kj::Own<kj::AsyncInputStream>> Repacker::merge() {
  auto& env = node_.env();
  const uint64_t rate = node_.options().repackBytesPerSecond;
  const std::string root = env.disk.root().cStr();
  if (!root.empty()) {
    GitPackStream::Request request;
    request.folder = root + "/repack";
    request.bytesPerSecond = rate;
    request.allDeltas = true;
    for (const auto& pack : packs_) {
      if (pack.packBytes > kAllDeltasPackBytesMax) request.allDeltas = false;
      request.packs.push_back({pack.pack, root + "/" + extents_.path(pack.pack).cStr(),
                               root + "/" + extents_.path(pack.index).cStr()});
    }
    auto starting = replicator::outcomeOf(GitPackStream::start(env, std::move(request)).promise());
    auto started = co_await kj::mv(starting);
    KJ_IF_MAYBE(failure, started.exception) {
      KJ_LOG(WARNING, failure->getDescription());
    } else {
      kj::Own<GitPackStream> stream = kj::mv(*started.value);
      // Members are not kept waiting for what git takes to find deltas.
      auto writing = stream->whenWriting();
      co_await kj::mv(writing);
      kj::Own<kj::AsyncInputStream> result = kj::mv(stream);
      co_return kj::mv(result);
    }
  }
  kj::Own<kj::AsyncInputStream> result = kj::heap<MergeStream>(env, merge_, rate);
  co_return kj::mv(result);
}

Co<void> Repacker::receive() {
  auto merging = merge();
  auto stream = co_await kj::mv(merging);
  SharedView view = std::make_shared<MergeView>(merge_, info_);
  PktReader reader(*stream);
  receiver_ = kj::heap<LargeReceiver>(
      node_, repository_, node_.options().packBytesMax,
      [view]() -> kj::Promise<SharedView> { return SharedView(view); });
  auto receiving = receiver_->receive(reader, nullptr, view);
  auto pack = co_await kj::mv(receiving);
  pack_ = std::move(pack);
}

Co<bool> Repacker::propose() {
  auto holder = node_.replicator().findVolume(volume_);
  if (holder == nullptr) co_return false;
  auto& volume = KJ_REQUIRE_NONNULL(holder);
  record_.timeMs = node_.env().clock.nowMs();
  replicator::Proposal proposal;
  proposal.txn = record_.txn;
  proposal.kind = kRepack;
  proposal.extents = {record_.pack.pack, record_.pack.index};
  proposal.sealedOn = pack_->sealedOn;
  proposal.payload = encodeRepack(record_);
  auto proposed = volume.propose(kj::mv(proposal));
  auto answer = co_await kj::mv(proposed);
  const ApplyResult result = decodeResult(answer.result);
  if (result.status != ApplyResult::Status::kDone) {
    KJ_LOG(INFO, "merged packs are not used", repository_, result.message.c_str());
    co_return false;
  }
  KJ_LOG(INFO, "packs of a repository were merged", repository_, answer.index,
         record_.replaced.size(), record_.pack.packBytes, record_.pack.objectCount);
  co_return true;
}

Co<bool> repackRepository(GitNode& node, replicator::ExtentStore& extents, std::string volume,
                          RepositoryId repository) {
  Repacker repacker(node, extents, std::move(volume), repository);
  auto building = repacker.build();
  const bool built = co_await kj::mv(building);
  if (!built) co_return false;
  auto proposing = repacker.propose();
  const bool done = co_await kj::mv(proposing);
  co_return done;
}

}  // namespace packmoor::gitlayer
