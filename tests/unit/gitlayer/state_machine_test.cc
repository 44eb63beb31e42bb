// Goal: records have the effects that they promise, once, the same on every member, also across
// a crash that forgets everything since the last flush; and what is judged in flight has the
// outcome that it was judged to have. Method: a log in memory, the simulator's store.
#include "state_machine_fixture.h"

namespace packmoor::gitlayer {
namespace {

using namespace test;
using Status = ApplyResult::Status;

TEST_F(StateMachineTest, CreatesPushesAndReads) {
  EXPECT_EQ(submit(createProposal(1, 1, "project")).status, Status::kDone);
  EXPECT_EQ(machine->repositoryCount(), 1u);
  auto txn = transaction(2, {update("refs/heads/main", 0, 1), update("refs/tags/v1", 0, 2)});
  txn.updates[1].peeled = oid(1);
  txn.objects.push_back(blob("hello\n"));
  const ObjectId hello = txn.objects[0].id;
  const auto result = push(std::move(txn));
  EXPECT_EQ(result.status, Status::kDone);
  EXPECT_TRUE(result.refProblems.empty());

  auto at = view();
  EXPECT_EQ(at->index().value, 2u);
  EXPECT_EQ(at->info().name, "project");
  EXPECT_TRUE(at->info().appendOnly);
  EXPECT_EQ(at->statistics().refs, 2u);
  EXPECT_EQ(at->statistics().hotObjects, 1u);
  std::vector<std::string> names;
  at->forEachRef("refs/", [&](const Ref& ref) {
    names.push_back(ref.name);
    return true;
  });
  EXPECT_EQ(names, (std::vector<std::string>{"refs/heads/main", "refs/tags/v1"}));
  EXPECT_EQ(at->ref("refs/tags/v1")->peeled, oid(1));
  names.clear();
  at->forEachRef("refs/", "refs/heads/main", [&](const Ref& ref) {
    names.push_back(ref.name);
    return true;
  });
  EXPECT_EQ(names, (std::vector<std::string>{"refs/tags/v1"}));

  EXPECT_TRUE(at->objects().exists(hello));
  EXPECT_FALSE(at->objects().exists(oid(1)));
  auto object = KJ_ASSERT_NONNULL(at->objects().read(hello));
  EXPECT_EQ(object.type, ObjectType::kBlob);
  EXPECT_EQ(textOf(object.data), "hello\n");
  EXPECT_EQ(KJ_ASSERT_NONNULL(at->objects().header(hello)).bytes, 6u);
  EXPECT_EQ(at->objects().hotObjects().size(), 1u);
}

TEST_F(StateMachineTest, ViewsStayAsTheyWere) {
  submit(createProposal(1, 1, "project"));
  push(transaction(2, {update("refs/heads/main", 0, 1)}));
  auto before = view();
  push(transaction(3, {update("refs/heads/main", 1, 2)}));
  EXPECT_EQ(before->ref("refs/heads/main")->id, oid(1));
  EXPECT_EQ(before->index().value, 2u);
  EXPECT_EQ(ref("refs/heads/main"), 2u);
}

TEST_F(StateMachineTest, RefusesWhatDoesNotFit) {
  submit(createProposal(1, 1, "project"));
  push(transaction(2, {update("refs/heads/main", 0, 1), update("refs/heads/x/y", 0, 1)}));
  auto problems = [&](uint64_t txn, std::vector<RefUpdate> updates, bool atomic = false) {
    return push(transaction(txn, std::move(updates), atomic)).refProblems;
  };
  // The one update is refused, and why.
  auto detail = [&](uint64_t txn, RefUpdate refused) {
    const auto result = push(transaction(txn, {std::move(refused)}));
    EXPECT_EQ(result.refProblems, std::vector<std::string>{"failed to update ref"});
    return result.refDetails.empty() ? "none" : result.refDetails[0];
  };
  using Problems = std::vector<std::string>;
  EXPECT_EQ(detail(3, update("refs/heads/main", 2, 3)),
            kj::str("cannot lock ref 'refs/heads/main': is at ", oid(1), " but expected ", oid(2)).cStr());
  EXPECT_EQ(detail(4, update("refs/heads/main", 0, 3)),
            "cannot lock ref 'refs/heads/main': reference already exists");
  EXPECT_EQ(detail(5, update("refs/heads/gone", 1, 0)),
            "cannot lock ref 'refs/heads/gone': unable to resolve reference 'refs/heads/gone'");
  EXPECT_EQ(detail(6, update("refs/heads/x", 0, 1)),
            "cannot lock ref 'refs/heads/x': 'refs/heads/x/y' exists; cannot create 'refs/heads/x'");
  EXPECT_EQ(detail(7, update("refs/heads/main/z", 0, 1)),
            "cannot lock ref 'refs/heads/main/z': 'refs/heads/main' exists; cannot create "
            "'refs/heads/main/z'");
  EXPECT_EQ(problems(8, {update("refs/heads/new", 0, 1), update("refs/heads/main", 2, 3)}, true),
            (Problems{"atomic transaction failed", "atomic transaction failed"}));
  EXPECT_EQ(ref("refs/heads/new"), 0u);
  EXPECT_EQ(log->last(), 2u) << "nothing of it was ordered";
  EXPECT_TRUE(view()->info().appendOnly);

  EXPECT_EQ(problems(9, {update("refs/heads/new", 0, 1), update("refs/heads/main", 2, 3)}),
            (Problems{"", "failed to update ref"}));
  EXPECT_EQ(ref("refs/heads/new"), 1u);
  EXPECT_EQ(ref("refs/heads/main"), 1u);
  EXPECT_EQ(problems(10, {update("refs/heads/x/y", 1, 0), update("refs/heads/x", 0, 4)}),
            Problems{});
  EXPECT_EQ(ref("refs/heads/x"), 4u);
  EXPECT_FALSE(view()->info().appendOnly);
}

TEST_F(StateMachineTest, JudgesBehindWhatIsInFlight) {
  submit(createProposal(1, 1, "project"));
  auto order = [&](PushTransaction txn) {
    return log->order(pushProposal(1, std::move(txn)));
  };
  EXPECT_TRUE(order(transaction(2, {update("refs/heads/main", 0, 1)})).accepted);
  auto lost = order(transaction(3, {update("refs/heads/main", 0, 2)}));
  EXPECT_FALSE(lost.accepted);
  EXPECT_EQ(lost.restsOn.value, 2u) << "it rests on the proposal in flight";
  EXPECT_TRUE(order(transaction(4, {update("refs/heads/main", 1, 2)})).accepted);
  EXPECT_FALSE(order(transaction(5, {update("refs/heads/main/x", 0, 1)})).accepted);
  EXPECT_TRUE(order(transaction(6, {update("refs/heads/main", 2, 0)})).accepted);
  EXPECT_TRUE(order(transaction(7, {update("refs/heads/main/x", 0, 3)})).accepted);
  EXPECT_FALSE(log->order(createProposal(8, 2, "project")).accepted);
  EXPECT_TRUE(log->order(deleteProposal(9, 1, "project")).accepted);
  EXPECT_FALSE(order(transaction(10, {update("refs/heads/new", 0, 1)})).accepted);
  EXPECT_TRUE(log->order(createProposal(11, 2, "project")).accepted);
  EXPECT_FALSE(log->order(deleteProposal(12, 1, "project")).accepted);
  for (auto& [index, result] : log->applyAll(loop.waitScope())) {
    const auto decoded = decodeResult(result);
    EXPECT_EQ(decoded.status, Status::kDone) << index;
    EXPECT_TRUE(decoded.refProblems.empty()) << index;
  }
  EXPECT_EQ(view()->info().id, repositoryId(2));
  EXPECT_EQ(view()->statistics().refs, 0u);
  // Nothing is left in flight: what is applied alone decides.
  auto late = log->order(createProposal(13, 3, "project"));
  EXPECT_FALSE(late.accepted);
  EXPECT_EQ(late.restsOn.value, log->last());
}

TEST_F(StateMachineTest, EndsSpeculation) {
  submit(createProposal(1, 1, "project"));
  log->order(pushProposal(1, transaction(2, {update("refs/heads/main", 0, 1)})));
  log->records.pop_back();  // the role was lost; another primary ordered nothing
  machine->endSpeculation();
  EXPECT_EQ(push(transaction(3, {update("refs/heads/main", 0, 2)})).status, Status::kDone);
  EXPECT_EQ(ref("refs/heads/main"), 2u);
}

TEST_F(StateMachineTest, OneTransactionOneResult) {
  submit(createProposal(1, 1, "project"));
  auto first = pushProposal(1, transaction(2, {update("refs/heads/main", 0, 1)}));
  auto done = log->submit(first, loop.waitScope());
  auto known = machine->findResult(txnId(2));
  EXPECT_EQ(KJ_ASSERT_NONNULL(known).index, done.index);
  EXPECT_EQ(KJ_ASSERT_NONNULL(known).result, done.result);
  EXPECT_TRUE(machine->findResult(txnId(3)) == nullptr);
  push(transaction(4, {update("refs/heads/main", 1, 2)}));
  // A repetition that got into the log changes nothing and has the first one's result.
  log->append(kRefTransaction, first.payload);
  auto again = log->applyAll(loop.waitScope());
  EXPECT_EQ(again.begin()->second, done.result);
  EXPECT_EQ(ref("refs/heads/main"), 2u);
}

TEST_F(StateMachineTest, ForgetsResultsByIndex) {
  submit(createProposal(1, 1, "project"));
  // Ids that were born at the first index and shortly before the last.
  replicator::TxnId early, late;
  early.bytes = {0, 0, 0, 0, 0, 1, 'e'};
  const uint64_t end = kTxnResultIndexes + kTxnExpiryStride + 10;
  late.bytes = {0, 0, static_cast<uint8_t>(end >> 24), static_cast<uint8_t>(end >> 16), 0, 0, 'l'};
  auto first = transaction(0, {update("refs/heads/main", 0, 1)});
  first.txn = early;
  push(std::move(first));
  auto second = transaction(0, {update("refs/heads/other", 0, 1)});
  second.txn = late;
  push(std::move(second));
  EXPECT_TRUE(machine->findResult(early) != nullptr);
  const size_t group = 5000;
  while (log->last() < end) {
    for (size_t i = 0; i < group; ++i) log->append(replicator::RecordKind::kEpochStart, nullptr);
    log->applyAll(loop.waitScope());
  }
  EXPECT_TRUE(machine->findResult(early) == nullptr);
  EXPECT_TRUE(machine->findResult(late) != nullptr);
  // An id that was born before the oldest result is refused.
  auto old = transaction(0, {update("refs/heads/main", 1, 2)});
  old.txn = replicator::Uuid();
  old.txn.bytes[15] = 1;  // birth index 0
  const auto refused = push(std::move(old));
  EXPECT_EQ(refused.status, Status::kRefused);
  EXPECT_NE(refused.message, "");
  EXPECT_EQ(ref("refs/heads/main"), 1u);
}

TEST_F(StateMachineTest, ComesBackFromACrash) {
  submit(createProposal(1, 1, "project"));
  auto txn = transaction(2, {update("refs/heads/main", 0, 1)});
  txn.objects.push_back(blob("one"));
  push(std::move(txn));
  EXPECT_GT(machine->unflushedBytes(), 0u);
  EXPECT_EQ(machine->flush().wait(loop.waitScope()).index.value, 2u);
  EXPECT_EQ(machine->unflushedBytes(), 0u);
  auto more = transaction(3, {update("refs/heads/main", 1, 2), update("refs/heads/b", 0, 1)});
  more.objects.push_back(blob("two"));
  push(std::move(more));
  submit(createProposal(4, 2, "other"));
  const std::string before = dump();
  crash();
  EXPECT_EQ(dump(), before);
  EXPECT_EQ(machine->repositoryCount(), 2u);
  EXPECT_EQ(ref("refs/heads/main"), 2u);
  // In groups or one by one, the state is the same.
  auto records = log->records;
  auto other = kj::heap<kernelio::SimStorage>(8);
  auto otherEnv = kj::heap<kernelio::SimEnv>(loop, *other, 1);
  PackStore otherPacks(otherEnv->env(), extents);
  GitStateMachine second(otherEnv->env(), extents, otherPacks, options, volumeId(), [this]() { ++settleWanted; });
  second.open().wait(loop.waitScope());
  for (const auto& record : records) second.apply({record}).wait(loop.waitScope());
  std::string oneByOne;
  second.snapshot()->scan("", "", [&](std::string_view key, std::string_view value) {
    oneByOne.append(key).append("=").append(value).append("\n");
    return true;
  });
  EXPECT_EQ(oneByOne, before);
}

TEST_F(StateMachineTest, DeletesARepositoryWhole) {
  submit(createProposal(1, 1, "project"));
  submit(createProposal(2, 2, "project2"));
  auto txn = transaction(3, {update("refs/heads/main", 0, 1)});
  txn.objects.push_back(blob("one"));
  txn.pack = PackExtents{txnId(70), txnId(71), 1000, 3};
  EXPECT_EQ(submit(pushProposal(1, std::move(txn))).status, Status::kDone);
  auto other = transaction(4, {update("refs/heads/main", 0, 1)});
  other.objects.push_back(blob("one"));
  submit(pushProposal(2, std::move(other)));
  EXPECT_EQ(extents.linked.size(), 2u);
  EXPECT_EQ(view()->statistics().packs, 1u);
  EXPECT_EQ(submit(deleteProposal(5, 2, "project")).status, Status::kNotFound);
  EXPECT_EQ(submit(deleteProposal(6, 1, "project")).status, Status::kDone);
  EXPECT_TRUE(machine->view("project") == nullptr);
  EXPECT_EQ(machine->repositoryCount(), 1u);
  EXPECT_EQ(extents.linked.size(), 2u) << "the deletion is not durable yet";
  machine->flush().wait(loop.waitScope());
  EXPECT_EQ(extents.linked.size(), 0u);
  EXPECT_EQ(view("project2")->objects().hotObjects().size(), 1u);
  const std::string prefix(textOf(repositoryId(1)));
  EXPECT_EQ(dump().find("f" + prefix), std::string::npos);
  EXPECT_EQ(dump().find("h" + prefix), std::string::npos);
  EXPECT_EQ(push(transaction(7, {update("refs/heads/main", 0, 1)})).status, Status::kNotFound);
}

TEST_F(StateMachineTest, LinksPacksAgainAtStart) {
  submit(createProposal(1, 1, "project"));
  auto txn = transaction(2, {update("refs/heads/main", 0, 1)});
  txn.pack = PackExtents{txnId(70), txnId(71), 1000, 3};
  push(std::move(txn));
  machine->flush().wait(loop.waitScope());
  crash();
  EXPECT_EQ(extents.linked, (std::set<replicator::ExtentId>{txnId(70), txnId(71)}));
}

TEST_F(StateMachineTest, StopsAtUnknownKinds) {
  log->append(replicator::RecordKind(4711), nullptr);
  auto error = kj::runCatchingExceptions([&]() { log->applyAll(loop.waitScope()); });
  EXPECT_NE(std::string(KJ_ASSERT_NONNULL(error).getDescription().cStr()).find("does not know"),
            std::string::npos);
}

TEST_F(StateMachineTest, RefusesMalformedProposals) {
  replicator::Proposal proposal;
  proposal.kind = kRefTransaction;
  proposal.payload = kj::heapArray<const kj::byte>({0x0a, 0x7f});
  EXPECT_EQ(submit(proposal).status, Status::kRefused);
  proposal.kind = replicator::RecordKind(4711);
  EXPECT_EQ(submit(proposal).status, Status::kRefused);
  submit(createProposal(1, 1, "project"));
  EXPECT_EQ(push(transaction(2, {update("refs/heads/a..b", 0, 1)})).status, Status::kRefused);
  EXPECT_EQ(submit(createProposal(3, 3, "../etc")).status, Status::kRefused);
}

TEST_F(StateMachineTest, ReflogKeepsTheNewest) {
  submit(createProposal(1, 1, "project"));
  uint64_t txn = 2;
  push(transaction(txn++, {update("refs/heads/main", 0, 1)}));
  std::vector<RefUpdate> many;
  for (uint64_t i = 0; i < kReflogEntriesMax + 5; ++i) {
    many.push_back(update("refs/many/" + std::to_string(i), 0, 1));
  }
  push(transaction(txn++, std::move(many)));
  push(transaction(txn++, {update("refs/heads/main", 1, 2)}));
  uint64_t entries = 0;
  std::string newest;
  machine->snapshot()->scan(reflogPrefix(repositoryId(1)), "",
                            [&](std::string_view, std::string_view value) {
                              ++entries;
                              newest = ReflogRow::decode(value).ref;
                              return true;
                            });
  EXPECT_EQ(entries, kReflogEntriesMax);
  EXPECT_EQ(newest, "refs/heads/main");
}

// A checkpoint of one machine becomes the state of another; the journal says which state there is.
TEST_F(StateMachineTest, ACheckpointIsInstalledByTheJournalsWord) {
  submit(createProposal(1, 1, "project"));
  push(transaction(2, {update("refs/heads/a", 0, 1)}));
  const replicator::LogPosition position = machine->applied();
  auto content = machine->makeCheckpoint("taken").wait(loop.waitScope());
  EXPECT_EQ(content.position, position);
  push(transaction(3, {update("refs/heads/a", 1, 2)}));
  const std::string newest = dump();
  auto records = log->records;

  // Another node: empty, then with the checkpoint staged.
  kernelio::SimStorage elsewhere{8};
  auto otherEnv = kj::heap<kernelio::SimEnv>(loop, elsewhere, 3);
  auto copyAcross = [&]() {
    auto bytes = kernelio::readWholeFile(env->env().disk, "taken/map", 1u << 20)
                     .wait(loop.waitScope());
    otherEnv->env().disk.makeFolders("files").wait(loop.waitScope());
    kernelio::replaceFile(otherEnv->env().disk, "files/map", KJ_ASSERT_NONNULL(bytes))
        .wait(loop.waitScope());
  };
  LinkedExtents otherExtents;
  PackStore otherPacks(otherEnv->env(), otherExtents);
  auto open = [&](replicator::LogPosition checkpoint) {
    auto other = kj::heap<GitStateMachine>(otherEnv->env(), otherExtents, otherPacks, options,
                                           volumeId(), []() {});
    other->journalCheckpoint(checkpoint);
    other->open().wait(loop.waitScope());
    return other;
  };
  copyAcross();
  auto other = open({});
  EXPECT_EQ(other->applied().index.value, 0u);
  other->stageCheckpoint("files", position).wait(loop.waitScope());
  EXPECT_EQ(other->applied().index.value, 0u);
  // A crash before the journal's entry: the old state, and nothing is left of the other.
  other = nullptr;
  other = open({});
  EXPECT_EQ(other->applied().index.value, 0u);
  copyAcross();
  other->stageCheckpoint("files", position).wait(loop.waitScope());
  other->switchToStaged(position).wait(loop.waitScope());
  EXPECT_EQ(other->applied(), position);
  EXPECT_EQ(other->repositoryCount(), 1u);
  EXPECT_TRUE(other->findByName("project").has_value());
  // It goes on from there, and comes to the same.
  std::vector<replicator::RecordRef> tail(records.begin() + position.index.value, records.end());
  other->apply(tail).wait(loop.waitScope());
  std::string others;
  other->snapshot()->scan("", "", [&](std::string_view key, std::string_view value) {
    others.append(key).append("=").append(value).append("\n");
    return true;
  });
  EXPECT_EQ(others, newest);
  // After a restart, the journal's checkpoint names the new state.
  other = nullptr;
  other = open(position);
  EXPECT_EQ(other->applied(), position);
}

// A damaged state is replaced by a checkpoint of the very record that it stands at, too; which of them
// there is after a crash, and that one was damaged, is known then.
TEST_F(StateMachineTest, ADamagedStateIsReplacedAtTheSameRecord) {
  submit(createProposal(1, 1, "project"));
  push(transaction(2, {update("refs/heads/a", 0, 1)}));
  const std::string newest = dump();
  const auto position = machine->flush().wait(loop.waitScope());
  auto fetchCopy = [&]() {
    env->env().disk.removeTree("taken").wait(loop.waitScope());
    machine->makeCheckpoint("taken").wait(loop.waitScope());
  };
  auto reopen = [&]() {
    log = nullptr;
    machine = nullptr;
    packs = kj::heap<PackStore>(env->env(), extents);
    machine = kj::heap<GitStateMachine>(env->env(), extents, *packs, options, volumeId(), []() {});
    machine->journalCheckpoint(position);
    return kj::runCatchingExceptions([&]() { machine->open().wait(loop.waitScope()); });
  };
  fetchCopy();
  const std::string folder = kj::str("volumes/", volumeId(), "/").cStr();
  storage.rot((folder + "state/map").c_str(), 40, 1);
  replicator::Pace pace = [](uint64_t) -> kj::Promise<void> { return kj::READY_NOW; };
  EXPECT_EQ(machine->damage(), "");
  for (const auto& file : machine->storedFiles().wait(loop.waitScope())) {
    machine->verifyStored(file.name, pace).wait(loop.waitScope());
  }
  EXPECT_NE(machine->damage(), "");
  machine->rememberDamage().wait(loop.waitScope());
  EXPECT_TRUE(machine->findByName("project").has_value());  // what is in memory is right

  EXPECT_TRUE(reopen() != nullptr);
  EXPECT_NE(machine->damage(), "");
  EXPECT_FALSE(machine->findByName("project").has_value());
  EXPECT_ANY_THROW(machine->view("project"));
  EXPECT_EQ(machine->storedFiles().wait(loop.waitScope()).size(), 0u);
  machine->stageCheckpoint("taken", position).wait(loop.waitScope());
  // A crash here leaves two states of that record, and the newer one is whole.
  EXPECT_TRUE(reopen() == nullptr);
  EXPECT_EQ(machine->damage(), "");
  EXPECT_EQ(dump(), newest);

  fetchCopy();
  machine->abandon("a test says so");
  EXPECT_EQ(machine->damage(), "a test says so");
  EXPECT_ANY_THROW(machine->view("project"));
  machine->stageCheckpoint("taken", position).wait(loop.waitScope());
  machine->switchToStaged(position).wait(loop.waitScope());
  EXPECT_EQ(machine->damage(), "");
  EXPECT_EQ(dump(), newest);
  EXPECT_TRUE(reopen() == nullptr);
  EXPECT_EQ(machine->damage(), "");
  EXPECT_EQ(dump(), newest);
}

}  // namespace
}  // namespace packmoor::gitlayer
