#include "settler.h"

#include "gitlayer/txn_id.h"
#include "settle.h"

namespace packmoor::gitlayer {

namespace {

replicator::Uuid randomId(kernelio::Random& random) {
  replicator::Uuid id;
  random.fill(kj::arrayPtr(id.bytes.data(), id.bytes.size()));
  return id;
}

struct Built {
  uint64_t upto = 0, computedAt = 0;
  SettledPack pack;
};

Built build(const StateReader& state, const RepositoryId& repository) {
  Built built;
  built.upto = settleUpto(state, repository);
  std::string position;
  if (state.get(kPositionKey, position)) {
    built.computedAt = decodePosition(position).index.value;
  }
  if (built.upto != 0) built.pack = buildSettledPack(state, repository, built.upto);
  return built;
}

// Holds a sealed extent until the record that names it has been decided.
class Pin {
 public:
  Pin(replicator::ExtentStore& extents, const replicator::ExtentId& id)
      : extents_(extents), id_(id) {}
  ~Pin() noexcept(false) { extents_.unpin(id_); }
  KJ_DISALLOW_COPY(Pin);

 private:
  replicator::ExtentStore& extents_;
  replicator::ExtentId id_;
};

}  // namespace

Co<bool> settleRepository(kernelio::Env& env, replicator::ExtentStore& extents,
                          replicator::Volume& volume, GitStateMachine& machine,
                          RepositoryId repository) {
  auto state = machine.snapshot();
  auto building = env.workers.run([state, repository]() { return build(*state, repository); });
  auto built = co_await kj::mv(building);
  state = nullptr;
  if (built.upto == 0) co_return false;

  SettleRecord record;
  record.txn = makeTxnId(env.random, replicator::RecordIndex(built.computedAt));
  record.repository = repository;
  record.upto = built.upto;
  record.computedAt = built.computedAt;
  record.packRoot = built.pack.packRoot;
  record.indexRoot = built.pack.indexRoot;
  record.objectCount = static_cast<uint32_t>(built.pack.objects.size());
  record.packBytes = built.pack.pack.size();
  record.pack = randomId(env.random);
  record.index = randomId(env.random);

  auto packSealed = sealExtent(extents, record.pack, built.pack.pack, record.packRoot);
  co_await kj::mv(packSealed);
  Pin packPin(extents, record.pack);
  auto indexSealed = sealExtent(extents, record.index, built.pack.index, record.indexRoot);
  co_await kj::mv(indexSealed);
  Pin indexPin(extents, record.index);
  machine.builtAhead(record.pack, std::move(built.pack.objects));
  built = Built();  // its memory is not needed while waiting

  replicator::Proposal proposal;
  proposal.txn = record.txn;
  proposal.kind = kSettle;
  proposal.payload = encodeSettle(record);
  auto proposed = volume.propose(kj::mv(proposal));
  auto answer = co_await kj::mv(proposed);
  co_return decodeResult(answer.result).status == ApplyResult::Status::kDone;
}

}  // namespace packmoor::gitlayer
