#include "sim_load.h"

#include "replicator/outcome.h"

#include <kj/debug.h>

namespace packmoor::replicator {

SimLoad::SimLoad(SimCluster& cluster, std::vector<size_t> nodesOfClients, int64_t pauseMsMax)
    : cluster_(cluster), pauseMsMax_(pauseMsMax), acknowledgedValue_(nodesOfClients.size(), 0) {
  for (size_t i = 0; i < nodesOfClients.size(); ++i) {
    tasks_.add(client(i, nodesOfClients[i]));
    tasks_.add(reader(i, nodesOfClients[i]));
    running_ += 2;
  }
}

void SimLoad::taskFailed(kj::Exception&& exception) {
  --running_;
  cluster_.failed(std::string("a client failed: ") + kj::str(exception).cStr());
}

void SimLoad::join() {
  stop();
  cluster_.until([this]() { return running_ == 0; }, 120'000, "the clients end");
}

Co<void> SimLoad::client(size_t number, size_t node) {
  const std::string key = "c" + std::to_string(number);
  uint64_t value = 0;
  std::string known = "-";
  while (!stopping_) {
    if (pauseMsMax_ > 0) {
      co_await cluster_.timer().afterDelay(
          static_cast<int64_t>(cluster_.random().below(1000 * pauseMsMax_)) * kj::MICROSECONDS);
    }
    if (!cluster_.node(node).hasVolume()) {
      co_await cluster_.timer().afterDelay(5 * kj::MILLISECONDS);
      continue;
    }
    const std::string next = std::to_string(++value);
    const int64_t sinceMs = cluster_.nowMs();
    auto outcome = co_await outcomeOf(
        cluster_.propose(node, "swap " + key + " " + known + " " + next).promise());
    longestMs = std::max(longestMs, cluster_.nowMs() - sinceMs);
    if (!outcome.ok()) {
      ++failed;
      KJ_IF_MAYBE(exception, outcome.exception) { lastFailure = exception->getDescription().cStr(); }
    } else if (textOf(outcome.value->result) == "ok " + key + " " + next) {
      ++done;
      known = next;
      acknowledgedValue_[number] = value;
      continue;
    } else {
      ++lost;
    }
    // The value is unknown now; look.
    while (!stopping_) {
      if (cluster_.node(node).hasVolume()) {
        auto read = co_await outcomeOf(cluster_.read(node, key).promise());
        if (read.ok()) {
          known = *read.value;
          break;
        }
      }
      co_await cluster_.timer().afterDelay(5 * kj::MILLISECONDS);
    }
  }
  --running_;
}

// Reads must see at least what was acknowledged before they began, at any node.
Co<void> SimLoad::reader(size_t number, size_t node) {
  const std::string key = "c" + std::to_string(number);
  while (!stopping_) {
    co_await cluster_.timer().afterDelay(
        static_cast<int64_t>(cluster_.random().below(20'000)) * kj::MICROSECONDS);
    node = cluster_.random().below(cluster_.size());
    if (!cluster_.node(node).hasVolume()) continue;
    const uint64_t before = acknowledgedValue_[number];
    auto read = co_await outcomeOf(cluster_.read(node, key).promise());
    if (!read.ok()) continue;
    ++reads;
    const uint64_t seen = *read.value == "-" ? 0 : std::stoull(*read.value);
    if (seen < before) {
      ++staleReads;
      cluster_.failed("a stale read of " + key + " at node " + std::to_string(node) + ": " +
                      std::to_string(seen) + " after " + std::to_string(before));
    }
  }
  --running_;
}

}  // namespace packmoor::replicator
