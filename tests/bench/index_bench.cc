// index_bench PACK INDEX --threads N: indexes a pack as a large push is, and writes its index.
//
// One thread feeds the pack in blocks, as a push comes in; N threads resolve deltas; then every link, and
// every file that git itself reads, is looked at. Prints one JSON object. `tools/dev bench index` runs it
// beside git index-pack.
#include "gitlayer/indexer.h"
#include "delta_plan.h"
#include "index_table.h"
#include "link_set.h"
#include "pack_bytes.h"
#include "pack_parser.h"
#include "special_files.h"

#include <replicator/extent_store.h>

#include <kj/debug.h>
#include <kj/io.h>

#include <fcntl.h>
#include <sys/resource.h>

#include <chrono>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <thread>

namespace packmoor::gitlayer {
namespace {

using Clock = std::chrono::steady_clock;
constexpr size_t kSliceBytes = 16u << 20;

double secondsSince(Clock::time_point begin) {
  return std::chrono::duration<double>(Clock::now() - begin).count();
}

kj::AutoCloseFd openFile(const char* path, int flags) {
  int raw;
  KJ_SYSCALL(raw = open(path, flags | O_CLOEXEC, 0600), path);
  return kj::AutoCloseFd(raw);
}

void require(const Indexer& indexer) {
  KJ_REQUIRE(!indexer.refused(), "the pack is refused", indexer.problem());
}

void feedAll(Indexer& indexer, const char* path) {
  auto file = openFile(path, O_RDONLY);
  kj::FdInputStream in(file.get());
  auto block = kj::heapArray<kj::byte>(replicator::kBlockBytes);
  while (size_t got = in.tryRead(block.begin(), block.size(), block.size())) {
    if (!indexer.feed(block.slice(0, got))) break;
  }
  indexer.end();
  require(indexer);
}

void resolveAll(Indexer& indexer, const PackBytes& bytes, size_t threads) {
  indexer.beginDeltas(bytes);
  std::vector<std::thread> running;
  for (size_t i = 0; i < threads; ++i) {
    running.emplace_back([&indexer]() {
      auto lane = indexer.makeLane();
      while (indexer.resolve(*lane, kSliceBytes)) {
      }
    });
  }
  for (auto& thread : running) thread.join();
  indexer.finish();
  require(indexer);
}

void checkLinks(const Indexer& indexer) {
  const auto& table = indexer.table();
  indexer.links().forEach([&](const ObjectLink& link) {
    uint32_t number = table.find(link.id);
    KJ_REQUIRE(number != kNoEntry, "the pack names an object that it lacks", link.id);
    KJ_REQUIRE(table[number].type == link.type, "the pack names an object as another type", link.id);
    if (link.special == 0) return;
    const char* problem = checkSpecialFile(link.special, link.type, indexer.read(number));
    KJ_REQUIRE(problem == nullptr, problem, link.id);
  });
}

void writeIndex(const Indexer& indexer, const char* path) {
  auto file = openFile(path, O_WRONLY | O_CREAT | O_TRUNC);
  kj::FdOutputStream out(file.get());
  IndexStream stream(indexer.table(), indexer.trailer());
  auto block = kj::heapArray<kj::byte>(replicator::kBlockBytes);
  while (size_t filled = stream.fill(block)) out.write(block.begin(), filled);
}

int run(const char* pack, const char* index, size_t threads) {
  auto begin = Clock::now();
  Indexer indexer{PackLimits()};
  feedAll(indexer, pack);
  double fed = secondsSince(begin);
  FilePackBytes bytes(pack);
  resolveAll(indexer, bytes, threads);
  double resolved = secondsSince(begin);
  checkLinks(indexer);
  writeIndex(indexer, index);
  rusage usage = {};
  getrusage(RUSAGE_SELF, &usage);
  std::printf("{\"objects\":%u,\"names\":%zu,\"seconds\":%.3f,\"fedSeconds\":%.3f,"
              "\"resolvedSeconds\":%.3f,\"peakBytes\":%lld}\n",
              indexer.objectCount(), indexer.links().size(), secondsSince(begin), fed, resolved,
              static_cast<long long>(usage.ru_maxrss) * 1024);
  return 0;
}

}  // namespace
}  // namespace packmoor::gitlayer

int main(int argc, char** argv) {
  if (argc != 5 || std::strcmp(argv[3], "--threads") != 0) {
    std::fprintf(stderr, "usage: index_bench PACK INDEX --threads N\n");
    return 2;
  }
  size_t threads = std::strtoul(argv[4], nullptr, 10);
  auto failed = kj::runCatchingExceptions(
      [&]() { packmoor::gitlayer::run(argv[1], argv[2], threads > 0 ? threads : 1); });
  KJ_IF_MAYBE(exception, failed) {
    std::fprintf(stderr, "index_bench: %s\n", exception->getDescription().cStr());
    return 1;
  }
  return 0;
}
