// packmoor-bench: the load generator behind `tools/dev bench`.
//
//   packmoor-bench push --url URL [--url URL ...] --connections N --pushes M --run NAME
//                       [--advertisement no]
//       N connections, spread over the URLs, push M commits in all, each with the two requests
//       of a stock client (GET info/refs, POST git-receive-pack), each connection to a branch
//       of its own. Without the advertisement only the second request is sent. Prints one JSON object:
//       pushes, seconds, latency percentiles.
//   packmoor-bench fetch --url URL [--url URL ...] --body FILE --connections N --requests M
//       N connections send the body to git-upload-pack, M times in all, and throw the answers away.
//       Prints one JSON object: requests, seconds, bytes, latency percentiles.
//   packmoor-bench get --url URL [--url URL ...] --target PATH --connections N --requests M
//       The same with GET of the path below the URL: "info/refs?service=git-upload-pack".
//   packmoor-bench raw-write --file PATH --bytes B --count N
//       Overwrites a pre-written file with O_DIRECT|O_DSYNC writes of B bytes, one at a time:
//       what the disk itself can do. Prints one JSON object.
//
// It talks to loopback addresses only, and it stops by itself.
#include "fetches.h"
#include "http_client.h"
#include "pushes.h"

#include <fcntl.h>
#include <unistd.h>

#include <algorithm>
#include <atomic>
#include <chrono>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <fstream>
#include <iterator>
#include <map>
#include <stdexcept>
#include <thread>

namespace packmoor::bench {
namespace {

using Clock = std::chrono::steady_clock;
constexpr size_t kPushesMax = 200'000;
constexpr size_t kConnectionsMax = 256;

double microseconds(Clock::duration d) {
  return std::chrono::duration<double, std::micro>(d).count();
}

void printResult(double seconds, std::vector<double> latenciesUs, uint64_t bytes = 0) {
  size_t count = latenciesUs.size();
  std::sort(latenciesUs.begin(), latenciesUs.end());
  auto at = [&](double share) {
    return latenciesUs.empty() ? 0.0 : latenciesUs[std::min(latenciesUs.size() - 1,
                                                            size_t(share * latenciesUs.size()))];
  };
  std::printf(
      "{\"count\":%zu,\"seconds\":%.6f,\"perSecond\":%.2f,\"p50Us\":%.1f,\"p90Us\":%.1f,"
      "\"p99Us\":%.1f,\"maxUs\":%.1f,\"bytes\":%llu}\n",
      count, seconds, count / seconds, at(0.5), at(0.9), at(0.99), at(1),
      static_cast<unsigned long long>(bytes));
}

struct PushLoad {
  std::vector<Url> urls;
  size_t connections = 8, pushes = 800;
  std::string run = "run";
  bool advertisement = true;
};

void readAdvertisement(HttpClient& client, const Url& url) {
  client.keepBody = false;
  HttpAnswer refs = client.get(url.path + "/info/refs?service=git-receive-pack");
  client.keepBody = true;
  if (refs.status != 200)
    throw std::runtime_error("info/refs answered " + std::to_string(refs.status) + ": " + refs.body);
}

void pushOnce(HttpClient& client, const Url& url, const std::string& branch, const Push& push) {
  HttpAnswer done = client.post(url.path + "/git-receive-pack",
                                "application/x-git-receive-pack-request", push.body);
  if (done.status != 200 || done.body.find("unpack ok") == std::string::npos ||
      done.body.find("ok " + branch) == std::string::npos)
    throw std::runtime_error("push answered " + std::to_string(done.status) + ": " + done.body);
}

int runPushes(const PushLoad& load) {
  std::vector<std::vector<Push>> chains;
  std::vector<std::string> branches;
  for (size_t c = 0; c < load.connections; ++c) {
    branches.push_back("refs/heads/" + load.run + "-" + std::to_string(c));
    size_t share = load.pushes / load.connections + (c < load.pushes % load.connections ? 1 : 0);
    chains.push_back(makePushChain(branches[c], share, std::hash<std::string>()(branches[c])));
  }
  std::atomic<bool> go = false, failed = false;
  std::vector<std::vector<double>> latencies(load.connections);
  std::vector<std::string> errors(load.connections);
  std::vector<std::thread> threads;
  for (size_t c = 0; c < load.connections; ++c) {
    threads.emplace_back([&, c]() {
      try {
        const Url& url = load.urls[c % load.urls.size()];
        HttpClient client(url);
        while (!go) std::this_thread::yield();
        for (const Push& push : chains[c]) {
          if (failed) return;
          auto start = Clock::now();
          if (load.advertisement) readAdvertisement(client, url);
          pushOnce(client, url, branches[c], push);
          latencies[c].push_back(microseconds(Clock::now() - start));
        }
      } catch (const std::exception& e) {
        errors[c] = e.what();
        failed = true;
      }
    });
  }
  auto start = Clock::now();
  go = true;
  for (auto& thread : threads) thread.join();
  double seconds = microseconds(Clock::now() - start) / 1e6;
  for (const std::string& error : errors) {
    if (error.empty()) continue;
    std::fprintf(stderr, "packmoor-bench: %s\n", error.c_str());
    return 1;
  }
  std::vector<double> all;
  for (auto& part : latencies) all.insert(all.end(), part.begin(), part.end());
  printResult(seconds, std::move(all));
  return 0;
}

int rawWrite(const std::string& path, size_t bytes, size_t count) {
  constexpr size_t kFileBytes = 64u << 20;
  int fd = open(path.c_str(), O_RDWR | O_CREAT | O_TRUNC | O_CLOEXEC, 0600);
  if (fd < 0) throw std::runtime_error("cannot create " + path + ": " + std::strerror(errno));
  std::vector<char> zeros(1u << 20);
  for (size_t at = 0; at < kFileBytes; at += zeros.size())
    if (write(fd, zeros.data(), zeros.size()) != ssize_t(zeros.size()))
      throw std::runtime_error(std::string("pre-writing failed: ") + std::strerror(errno));
  fsync(fd);
  close(fd);
  fd = open(path.c_str(), O_WRONLY | O_DIRECT | O_DSYNC | O_CLOEXEC);
  if (fd < 0) throw std::runtime_error(std::string("O_DIRECT|O_DSYNC: ") + std::strerror(errno));
  void* buffer = nullptr;
  if (posix_memalign(&buffer, 4096, bytes) != 0) throw std::bad_alloc();
  std::memset(buffer, 0x5a, bytes);
  std::vector<double> latencies;
  auto start = Clock::now();
  for (size_t i = 0; i < count; ++i) {
    auto begin = Clock::now();
    off_t at = (i * bytes) % (kFileBytes - bytes);
    if (pwrite(fd, buffer, bytes, at / 4096 * 4096) != ssize_t(bytes))
      throw std::runtime_error(std::string("write failed: ") + std::strerror(errno));
    latencies.push_back(microseconds(Clock::now() - begin));
  }
  double seconds = microseconds(Clock::now() - start) / 1e6;
  free(buffer);
  close(fd);
  unlink(path.c_str());
  printResult(seconds, std::move(latencies));
  return 0;
}

size_t number(const std::string& option, const std::string& text, size_t max) {
  char* end = nullptr;
  unsigned long long value = std::strtoull(text.c_str(), &end, 10);
  if (text.empty() || *end != 0 || value == 0 || value > max)
    throw std::runtime_error(option + " takes a number from 1 to " + std::to_string(max));
  return value;
}

std::string readFile(const std::string& path) {
  std::ifstream file(path, std::ios::binary);
  std::string text((std::istreambuf_iterator<char>(file)), std::istreambuf_iterator<char>());
  if (!file) throw std::runtime_error("cannot read " + path);
  return text;
}

int usage() {
  std::fprintf(stderr,
               "usage: packmoor-bench push --url URL [--url URL ...] --connections N --pushes M "
               "--run NAME [--advertisement no]\n"
               "       packmoor-bench fetch --url URL [--url URL ...] --body FILE --connections N "
               "--requests M\n"
               "       packmoor-bench get --url URL [--url URL ...] --target PATH --connections N "
               "--requests M\n"
               "       packmoor-bench raw-write --file PATH --bytes B --count N\n");
  return 2;
}

int run(int argc, char** argv) {
  if (argc < 2 || argc % 2 != 0) return usage();
  std::string verb = argv[1];
  std::multimap<std::string, std::string> options;
  for (int i = 2; i + 1 < argc; i += 2) options.emplace(argv[i], argv[i + 1]);
  auto one = [&](const std::string& name, const std::string& otherwise) {
    auto found = options.find(name);
    return found == options.end() ? otherwise : found->second;
  };
  if (verb == "push") {
    PushLoad load;
    auto [begin, end] = options.equal_range("--url");
    for (auto it = begin; it != end; ++it) load.urls.push_back(parseUrl(it->second));
    if (load.urls.empty()) return usage();
    load.connections = number("--connections", one("--connections", "8"), kConnectionsMax);
    load.pushes = number("--pushes", one("--pushes", "800"), kPushesMax);
    load.run = one("--run", "run");
    load.advertisement = one("--advertisement", "yes") != "no";
    return runPushes(load);
  }
  if (verb == "fetch" || verb == "get") {
    FetchLoad load;
    auto [begin, end] = options.equal_range("--url");
    for (auto it = begin; it != end; ++it) load.urls.push_back(parseUrl(it->second));
    if (load.urls.empty()) return usage();
    load.connections = number("--connections", one("--connections", "1"), kConnectionsMax);
    load.requests = number("--requests", one("--requests", "1"), kPushesMax);
    if (verb == "get") {
      load.target = "/" + one("--target", "");
    } else {
      load.body = readFile(one("--body", ""));
    }
    FetchResult result = runFetches(load);
    printResult(result.seconds, std::move(result.latenciesUs), result.bytes);
    return 0;
  }
  if (verb == "raw-write") {
    return rawWrite(one("--file", "raw-write.tmp"), number("--bytes", one("--bytes", "4096"), 1 << 20),
                    number("--count", one("--count", "500"), 100'000));
  }
  return usage();
}

}  // namespace
}  // namespace packmoor::bench

int main(int argc, char** argv) {
  try {
    return packmoor::bench::run(argc, argv);
  } catch (const std::exception& e) {
    std::fprintf(stderr, "packmoor-bench: %s\n", e.what());
    return 1;
  }
}
