#include "sim_clients.h"

#include "replicator/outcome.h"

#include <kj/debug.h>

namespace packmoor::replicator {

namespace {
constexpr size_t kAttemptsMax = 8;
constexpr size_t kReadsAsideMax = 24;
}  // namespace

SimClients::SimClients(SimCluster& cluster, SimChecker& checker, const SimClientOptions& options)
    : cluster_(cluster), checker_(checker), options_(options), random_(cluster.random().split()) {
  for (size_t i = 0; i < options.clients; ++i) {
    ++running_;
    tasks_.add(client(i));
  }
  for (size_t i = 0; i < options.readers; ++i) {
    ++running_;
    tasks_.add(reader());
  }
}

void SimClients::taskFailed(kj::Exception&& exception) {
  checker_.finding(std::string("a client failed: ") + kj::str(exception).cStr());
}

kj::Promise<void> SimClients::pause(int64_t usMax) {
  return cluster_.timer().afterDelay(static_cast<int64_t>(random_.below(usMax) + 1) *
                                     kj::MICROSECONDS);
}

kernelio::IoBuffer SimClients::extentContent(const ExtentId& id, size_t bytes) {
  auto data = kernelio::IoBuffer::allocate(bytes);
  for (size_t i = 0; i < bytes; ++i) {
    data.begin()[i] = static_cast<kj::byte>(id.bytes[i % 16] + i * 7 + i / 16);
  }
  return data;
}

Co<void> SimClients::client(size_t number) {
  size_t node = number % cluster_.size();
  while (!stopping_) {
    co_await pause(options_.pauseUsMax);
    if (random_.chance(100'000)) node = random_.below(cluster_.size());
    if (!serves(node)) {
      node = random_.below(cluster_.size());
      continue;
    }
    if (random_.chance(options_.extentReadPerMillion)) {
      co_await readExtent(node);
    } else if (random_.chance(options_.readPerMillion)) {
      co_await read(node);
    } else {
      co_await write(number, node);
    }
  }
  --running_;
}

SimClients::Transaction SimClients::begin(size_t node) {
  Transaction transaction;
  transaction.txn = cluster_.newTxn();
  const std::string key = "k" + std::to_string(random_.below(options_.keys));
  const std::string value = "v" + std::to_string(++values_);
  const KvState& state = cluster_.node(node).kv(checker_.volume()).state();
  transaction.operation = "put " + key + " " + value;
  if (random_.chance(200'000)) {
    auto known = state.values.find(key);
    transaction.operation = "swap " + key + " " +
                            (known == state.values.end() ? std::string("-") : known->second) + " " +
                            value;
  }
  // The birth index: known to be committed.
  transaction.operation += " " + std::to_string(state.applied.index.value);
  return transaction;
}

Proposal SimClients::proposalOf(const Transaction& transaction) {
  Proposal proposal = kvProposal(transaction.txn, transaction.operation);
  proposal.extents = transaction.extents;
  proposal.sealedOn = transaction.sealedOn;
  return proposal;
}

Co<ReplicatedExtentWriter::Sealed> SimClients::writeExtent(size_t node) {
  SimNode& at = cluster_.node(node);
  auto writer = co_await at.replicator().beginExtent(volumeAt(node));
  const size_t bytes = 100 + random_.below(kExtentBytesMax - 100);
  auto data = extentContent(writer->id(), bytes);
  co_await writer->writeBlock(0, kj::mv(data));
  auto sealed = co_await writer->seal(bytes);
  co_return sealed;
}

Co<void> SimClients::write(size_t number, size_t node) {
  Transaction transaction = begin(node);
  if (random_.chance(options_.extentPerMillion)) {
    auto written = co_await outcomeOf(cluster_.node(node).front(writeExtent(node).promise()));
    if (!written.ok() || stopping_) co_return;
    transaction.extents.push_back(written.value->info.id);
    transaction.sealedOn = written.value->sealedOn;
  }
  co_await attempt(number, node, kj::mv(transaction));
}

Co<void> SimClients::attempt(size_t number, size_t node, Transaction transaction) {
  for (size_t i = 0; i < kAttemptsMax && !stopping_; ++i) {
    if (!serves(node)) {
      co_await pause(20'000);
      node = random_.below(cluster_.size());
      continue;
    }
    const auto began = checker_.readBegins();
    auto proposed = volumeAt(node).propose(proposalOf(transaction));
    auto outcome = co_await outcomeOf(kj::mv(proposed));
    if (outcome.ok()) {
      const bool accepted = judge(transaction, began, *outcome.value);
      const bool onceMore = random_.chance(options_.againPerMillion);
      // A rejection is a read and is not kept: asked again, it may be accepted.
      if (accepted && onceMore) tasks_.add(again(kj::mv(transaction)));
      co_return;
    }
    ++failed;
    if (random_.chance(500'000)) node = random_.below(cluster_.size());
  }
}

bool SimClients::judge(const Transaction& transaction, SimChecker::Began began,
                       const ProposeOutcome& outcome) {
  const std::string text = textOf(outcome.result);
  const bool accepted = text.rfind("ok ", 0) == 0;
  if (accepted) {
    checker_.acknowledged(transaction.txn, outcome.index, text);
  } else {
    ++rejected;
    checker_.rejected(transaction.txn, began, outcome.index, text);
  }
  return accepted;
}

// What was answered is asked for once more.
Co<void> SimClients::again(Transaction transaction) {
  co_await pause(300'000);
  const size_t node = random_.below(cluster_.size());
  if (stopping_ || !serves(node)) co_return;
  auto proposed = volumeAt(node).propose(proposalOf(transaction));
  auto outcome = co_await outcomeOf(kj::mv(proposed));
  if (!outcome.ok()) co_return;
  const std::string text = textOf(outcome.value->result);
  if (text.rfind("ok ", 0) == 0) {
    checker_.acknowledged(transaction.txn, outcome.value->index, text);
  }
}

Co<void> SimClients::read(size_t node) {
  const auto began = checker_.readBegins();
  auto outcome = co_await outcomeOf(volumeAt(node).readBarrier());
  if (outcome.ok()) checker_.readEnds(cluster_.node(node), began, *outcome.value);
}

// What has rotted is mended on the way.
Co<void> SimClients::readExtent(size_t node) {
  const auto& extents = checker_.extents();
  if (extents.empty()) co_return;
  const ExtentId id = extents[random_.below(extents.size())];
  ExtentStore& store = cluster_.node(node).extents();
  if (!store.isSealed(id)) co_return;
  auto reading = cluster_.node(node).front(store.readBlock(id, 0));
  auto block = co_await outcomeOf(kj::mv(reading));
  if (!block.ok()) co_return;   // no other member can be reached
  auto content = extentContent(id, block.value->size());
  if (content.bytes() != block.value->bytes()) {
    checker_.finding("a read of an extent at " + cluster_.node(node).id() + " gives other bytes");
  }
}

// A read that hangs at one node must not keep it from asking another.
Co<void> SimClients::reader() {
  while (!stopping_) {
    co_await pause(options_.readPauseUsMax);
    const size_t node = random_.below(cluster_.size());
    if (serves(node) && readsAside_ < kReadsAsideMax) tasks_.add(readAside(node));
  }
  --running_;
}

Co<void> SimClients::readAside(size_t node) {
  ++readsAside_;
  co_await read(node);
  --readsAside_;
}

Co<bool> SimClients::writeAndRead(size_t node) {
  if (!serves(node)) co_return false;
  Transaction transaction = begin(node);
  transaction.operation = "put end v" + std::to_string(++values_);
  const auto began = checker_.readBegins();
  auto proposed = volumeAt(node).propose(proposalOf(transaction));
  auto outcome = co_await outcomeOf(kj::mv(proposed));
  if (!outcome.ok()) co_return false;
  judge(transaction, began, *outcome.value);
  if (!serves(node)) co_return false;
  const auto since = checker_.readBegins();
  auto read = co_await outcomeOf(volumeAt(node).readBarrier());
  if (!read.ok()) co_return false;
  checker_.readEnds(cluster_.node(node), since, *read.value);
  co_return true;
}

}  // namespace packmoor::replicator
