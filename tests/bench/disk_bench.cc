// What a durable write costs through kernelio, beside the cheapest way that the kernel offers.
//
//   disk_bench FOLDER [BYTES] [COUNT]
//
// Overwrites blocks of BYTES (4096) in a pre-written file of 64 MiB in FOLDER, COUNT (2000) times
// each way, one write at a time: a bare pwrite on O_DIRECT|O_DSYNC, the ring disk, and the thread
// disk. The ways take turns every 100 writes, so that a busy machine slows all of them alike.
// Prints percentiles in microseconds and each way's median as a multiple of the bare one.
#include "kernelio/co.h"
#include "kernelio/ring_disk.h"

#include <kj/async-io.h>
#include <kj/debug.h>

#include <fcntl.h>
#include <unistd.h>

#include <algorithm>
#include <chrono>
#include <cstdio>
#include <cstdlib>
#include <functional>
#include <string>
#include <vector>

namespace packmoor::kernelio {
namespace {

constexpr uint64_t kFileBytes = 64 << 20;
constexpr size_t kTurn = 100;

using Clock = std::chrono::steady_clock;

struct Way {
  std::string name;
  std::function<void(uint64_t offset)> write;
  std::vector<double> microseconds;
};

double percentile(const std::vector<double>& sorted, double part) {
  return sorted[std::min(sorted.size() - 1, static_cast<size_t>(sorted.size() * part))];
}

kj::Own<File> openDirect(kj::AsyncIoContext& io, Disk& disk) {
  return disk.open("bench.dat", {.write = true, .create = true, .direct = true})
      .wait(io.waitScope);
}

int run(const char* folder, size_t bytes, size_t count) {
  auto io = kj::setupAsyncIo();
  auto ringDisk = makeDisk(io.unixEventPort, DiskBackend::kAuto, folder);
  auto threadDisk = makeThreadDisk(io.unixEventPort, folder);
  auto ringFile = openDirect(io, *ringDisk.disk);
  auto threadFile = openDirect(io, *threadDisk);
  IoBuffer mebibyte = IoBuffer::allocate(1 << 20);
  std::fill(mebibyte.begin(), mebibyte.begin() + mebibyte.size(), 0x5a);
  for (uint64_t at = 0; at < kFileBytes; at += mebibyte.size()) {
    ringFile->write(at, mebibyte, WriteMode::kBuffered).wait(io.waitScope);
  }
  ringFile->sync().wait(io.waitScope);

  IoBuffer data = mebibyte.slice(0, bytes);
  int fd;
  std::string path = std::string(folder) + "/bench.dat";
  KJ_SYSCALL(fd = ::open(path.c_str(), O_RDWR | O_DIRECT | O_DSYNC | O_CLOEXEC), path.c_str());
  kj::AutoCloseFd owned(fd);
  std::vector<Way> ways;
  ways.push_back({"bare pwrite", [&](uint64_t at) {
                    ssize_t put = ::pwrite(fd, data.begin(), bytes, at);
                    KJ_ASSERT(put == static_cast<ssize_t>(bytes));
                  }, {}});
  ways.push_back({std::string("disk on ") + ringDisk.disk->backend().cStr(), [&](uint64_t at) {
                    ringFile->write(at, data, WriteMode::kDurable).wait(io.waitScope);
                  }, {}});
  ways.push_back({"disk on threads", [&](uint64_t at) {
                    threadFile->write(at, data, WriteMode::kDurable).wait(io.waitScope);
                  }, {}});

  uint64_t at = 0;
  for (size_t done = 0; done < count; done += kTurn) {
    for (Way& way : ways) {
      for (size_t i = 0; i < kTurn; ++i) {
        auto start = Clock::now();
        way.write(at);
        way.microseconds.push_back(
            std::chrono::duration<double, std::micro>(Clock::now() - start).count());
        at = (at + bytes) % (kFileBytes - bytes) / kIoAlignment * kIoAlignment;
      }
    }
  }
  std::printf("%zu durable overwrites of %zu bytes each way, microseconds\n", count, bytes);
  double bare = 0;
  for (Way& way : ways) {
    std::sort(way.microseconds.begin(), way.microseconds.end());
    double median = percentile(way.microseconds, 0.5);
    if (bare == 0) bare = median;
    std::printf("%-18s median %7.0f  p90 %7.0f  p99 %7.0f  %.2f times bare\n", way.name.c_str(),
                median, percentile(way.microseconds, 0.9), percentile(way.microseconds, 0.99),
                median / bare);
  }
  ::unlink(path.c_str());
  return 0;
}

}  // namespace
}  // namespace packmoor::kernelio

int main(int argc, char** argv) {
  if (argc < 2 || argc > 4) {
    std::fprintf(stderr, "usage: disk_bench FOLDER [BYTES] [COUNT]\n");
    return 2;
  }
  size_t bytes = argc > 2 ? std::strtoull(argv[2], nullptr, 10) : 4096;
  size_t count = argc > 3 ? std::strtoull(argv[3], nullptr, 10) : 2000;
  if (bytes == 0 || bytes % 4096 != 0 || bytes > (1 << 20) || count == 0) {
    std::fprintf(stderr, "disk_bench: BYTES is a multiple of 4096 up to 1048576, COUNT above 0\n");
    return 2;
  }
  try {
    return packmoor::kernelio::run(argv[1], bytes, count);
  } catch (kj::Exception& e) {
    std::fprintf(stderr, "disk_bench: %s\n", e.getDescription().cStr());
    return 1;
  }
}
