#include "sim_pushers.h"

#include "replicator/outcome.h"

#include <kj/debug.h>

#include <iterator>

namespace packmoor::replicator {

namespace {
constexpr size_t kPushers = 2, kRepositories = 2, kRefs = 3, kAttemptsMax = 8, kVerifiedMax = 4;
constexpr uint64_t kPushPauseUsMax = 40'000, kPrunePauseUsMax = 60'000, kThinkUsMax = 20'000;

bool begins(const std::string& text, const char* with) { return text.rfind(with, 0) == 0; }
// Its answer is in the log, whether it counts or not.
bool inLog(const std::string& text) {
  return begins(text, "ok ") || begins(text, "again ") || begins(text, "void ");
}
bool mustVerifyAgain(const std::string& text) {
  return begins(text, "again ") || (begins(text, "lost ") && text.find(" again") != text.npos);
}
}  // namespace

SimPushers::SimPushers(SimCluster& cluster, SimChecker& checker, bool bound)
    : cluster_(cluster), checker_(checker), bound_(bound), random_(cluster.random().split()) {
  for (size_t i = 0; i < kPushers; ++i) tasks_.add(pusher());
  tasks_.add(pruner());
  running_ = kPushers + 1;
}

void SimPushers::taskFailed(kj::Exception&& exception) {
  checker_.finding(std::string("a pusher failed: ") + kj::str(exception).cStr());
}

std::string SimPushers::told() const {
  return std::to_string(pushed_) + " pushes, " + std::to_string(again_) + " verified again, " +
         std::to_string(pruned_) + " prunes, " + std::to_string(voided_) + " void";
}

kj::Promise<void> SimPushers::pause(uint64_t usMax) {
  return cluster_.timer().afterDelay(static_cast<int64_t>(random_.below(usMax) + 1) *
                                     kj::MICROSECONDS);
}

size_t SimPushers::anyNode() { return random_.below(cluster_.size()); }

size_t SimPushers::anyNode(const Checked& checked) {
  return bound_ ? checked.node : anyNode();
}

Co<void> SimPushers::pusher() {
  while (!stopping_) {
    co_await pause(kPushPauseUsMax);
    if (!stopping_) co_await push();
  }
  --running_;
}

Co<void> SimPushers::pruner() {
  while (!stopping_) {
    co_await pause(kPrunePauseUsMax);
    if (!stopping_) co_await prune();
  }
  --running_;
}

Co<void> SimPushers::push() {
  const std::string name = "p" + std::to_string(random_.below(kRepositories));
  std::string object;
  bool isNew = random_.chance(500'000);
  if (isNew) object = "o" + std::to_string(++objects_);
  for (size_t i = 0; i < kVerifiedMax && !stopping_; ++i) {
    const size_t node = anyNode();
    if (!cluster_.node(node).hasVolume()) co_return;
    const KvState& state = cluster_.node(node).kv().state();
    auto known = state.repositories.find(name);
    const bool empty = known == state.repositories.end() || known->second.objects.empty();
    if (object.empty()) {
      // Whatever is there still, named by a ref or not.
      if (empty) co_return;
      const auto& objects = known->second.objects;
      object = *std::next(objects.begin(), static_cast<ptrdiff_t>(random_.below(objects.size())));
    } else if (!isNew && (empty || known->second.objects.count(object) == 0)) {
      co_return;  // it was pruned: refused, as missing
    }
    const Checked checked{node, cluster_.node(node).lives()};
    const std::string index = std::to_string(state.applied.index.value);
    const std::string operation = "push " + name + " r" + std::to_string(random_.below(kRefs)) +
                                  " " + object + (isNew ? " new " : " known ") + index + " " + index;
    co_await pause(kThinkUsMax);
    auto answer = co_await propose(checked, operation);
    pushed_ += begins(answer, "ok ");
    if (!mustVerifyAgain(answer)) co_return;
    ++again_;
  }
}

Co<void> SimPushers::prune() {
  const std::string name = "p" + std::to_string(random_.below(kRepositories));
  const size_t node = anyNode();
  if (!cluster_.node(node).hasVolume()) co_return;
  const KvState& state = cluster_.node(node).kv().state();
  auto known = state.repositories.find(name);
  if (known == state.repositories.end()) co_return;
  std::set<std::string> unnamed = known->second.objects;
  for (const auto& [ref, object] : known->second.refs) unnamed.erase(object);
  if (unnamed.empty()) co_return;
  std::string list;
  for (const auto& object : unnamed) list += (list.empty() ? "" : ",") + object;
  const Checked checked{node, cluster_.node(node).lives()};
  const std::string index = std::to_string(state.applied.index.value);
  const std::string operation = "prune " + name + " " + list + " - " + index + " " + index;
  co_await pause(kThinkUsMax);
  auto answer = co_await propose(checked, operation);
  pruned_ += begins(answer, "ok ");
  voided_ += begins(answer, "void ") || begins(answer, "lost ");
}

bool SimPushers::mayPropose(const Checked& checked) {
  return !bound_ || cluster_.node(checked.node).lives() == checked.life;
}

Co<std::string> SimPushers::propose(Checked checked, std::string operation) {
  const TxnId txn = cluster_.newTxn();
  size_t node = checked.node;
  for (size_t i = 0; i < kAttemptsMax && !stopping_ && mayPropose(checked); ++i) {
    if (!cluster_.node(node).hasVolume()) {
      co_await pause(20'000);
      node = anyNode(checked);
      continue;
    }
    const auto began = checker_.readBegins();
    auto proposed = cluster_.node(node).volume().propose(kvProposal(txn, operation));
    auto outcome = co_await outcomeOf(kj::mv(proposed));
    if (outcome.ok()) {
      const std::string text = textOf(outcome.value->result);
      if (inLog(text)) {
        checker_.acknowledged(txn, outcome.value->index, text);
      } else {
        checker_.rejected(txn, began, outcome.value->index, text);
      }
      co_return text;
    }
    if (random_.chance(500'000)) node = anyNode(checked);
  }
  co_return std::string();
}

}  // namespace packmoor::replicator
