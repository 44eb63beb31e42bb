// How much processor time one committed proposal costs in the replicator, journal included: three
// nodes in one process on simulated disks and a simulated network, so that nothing waits for
// hardware. Prints microseconds of processor time for each proposal, all three nodes together.
//
//   volume_bench [CLIENTS [PROPOSALS [PAYLOAD-BYTES]]]
#include "sim_cluster.h"

#include <sys/resource.h>

#include <cstdio>
#include <cstdlib>

namespace packmoor::replicator {

void simFailed(const std::string& finding) {
  std::fprintf(stderr, "%s\n", finding.c_str());
  std::exit(1);
}

namespace {

double processorSeconds() {
  rusage usage;
  getrusage(RUSAGE_SELF, &usage);
  auto seconds = [](const timeval& t) { return t.tv_sec + t.tv_usec / 1e6; };
  return seconds(usage.ru_utime) + seconds(usage.ru_stime);
}

Co<void> client(SimCluster& cluster, size_t number, uint64_t proposals, std::string value) {
  const std::string key = "k" + std::to_string(number);
  for (uint64_t i = 0; i < proposals; ++i) {
    const TxnId txn = cluster.newTxn();
    auto outcome = co_await cluster.node(0).volume().propose(
        kvProposal(txn, "put " + key + " " + value));
    KJ_REQUIRE(outcome.index.value > 0);
  }
}

Co<void> reader(SimCluster& cluster, size_t node, uint64_t reads) {
  for (uint64_t i = 0; i < reads; ++i) co_await cluster.node(node).volume().readBarrier();
}

template <typename Work>
void measure(SimCluster& cluster, const char* what, uint64_t count, Work work) {
  const double before = processorSeconds();
  const auto virtualBefore = cluster.loop().elapsed();
  const uint64_t messages = cluster.network().messages();
  cluster.loop().wait(work());
  const double used = processorSeconds() - before;
  const double virtualSeconds = (cluster.loop().elapsed() - virtualBefore) / kj::MICROSECONDS / 1e6;
  std::printf("%-28s %8.1f us each, %6.2f messages each, %9.0f per virtual second\n", what,
              used / static_cast<double>(count) * 1e6,
              static_cast<double>(cluster.network().messages() - messages) /
                  static_cast<double>(count),
              static_cast<double>(count) / virtualSeconds);
}

int run(size_t clients, uint64_t proposals, size_t payloadBytes) {
  ReplicatorOptions options;
  SimCluster cluster(1, 3, options);
  cluster.begin(2);
  const std::string value(payloadBytes, 'x');
  measure(cluster, "proposals at the primary", proposals, [&]() {
    auto all = kj::Vector<kj::Promise<void>>();
    for (size_t i = 0; i < clients; ++i) {
      all.add(client(cluster, i, proposals / clients, value));
    }
    return kj::joinPromises(all.releaseAsArray());
  });
  for (size_t node : {0, 1}) {
    measure(cluster, node == 0 ? "reads at the primary" : "reads at a standby", proposals, [&]() {
      auto all = kj::Vector<kj::Promise<void>>();
      for (size_t i = 0; i < clients; ++i) all.add(reader(cluster, node, proposals / clients));
      return kj::joinPromises(all.releaseAsArray());
    });
  }
  return 0;
}

}  // namespace
}  // namespace packmoor::replicator

int main(int argc, char** argv) {
  const size_t clients = argc > 1 ? std::strtoul(argv[1], nullptr, 10) : 8;
  const uint64_t proposals = argc > 2 ? std::strtoul(argv[2], nullptr, 10) : 20'000;
  const size_t payload = argc > 3 ? std::strtoul(argv[3], nullptr, 10) : 300;
  return packmoor::replicator::run(clients, proposals, payload);
}
