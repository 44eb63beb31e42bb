#include "fetches.h"

#include <atomic>
#include <chrono>
#include <stdexcept>
#include <thread>

namespace packmoor::bench {
namespace {

using Clock = std::chrono::steady_clock;

double microseconds(Clock::duration d) {
  return std::chrono::duration<double, std::micro>(d).count();
}

uint64_t fetchOnce(HttpClient& client, const Url& url, const FetchLoad& load) {
  HttpAnswer answer = load.target.empty()
                          ? client.post(url.path + "/git-upload-pack",
                                        "application/x-git-upload-pack-request", load.body)
                          : client.get(url.path + load.target);
  // A flush packet ends every answer that is whole.
  if (answer.status != 200 || answer.body.size() < 4 ||
      answer.body.compare(answer.body.size() - 4, 4, "0000") != 0)
    throw std::runtime_error("fetch answered " + std::to_string(answer.status) + ", which ends in: " +
                             answer.body);
  return answer.bytes;
}

}  // namespace

FetchResult runFetches(const FetchLoad& load) {
  std::atomic<size_t> begun = 0;
  std::atomic<uint64_t> bytes = 0;
  std::vector<std::vector<double>> latencies(load.connections);
  std::vector<std::string> errors(load.connections);
  std::vector<std::thread> threads;
  const auto start = Clock::now();
  for (size_t c = 0; c < load.connections; ++c) {
    threads.emplace_back([&, c]() {
      try {
        const Url& url = load.urls[c % load.urls.size()];
        HttpClient client(url);
        client.keepBody = false;
        if (load.target.empty()) client.gitProtocol = "version=2";
        while (begun++ < load.requests) {
          const auto from = Clock::now();
          bytes += fetchOnce(client, url, load);
          latencies[c].push_back(microseconds(Clock::now() - from));
        }
      } catch (const std::exception& e) {
        errors[c] = e.what();
      }
    });
  }
  for (auto& thread : threads) thread.join();
  for (const std::string& error : errors) {
    if (!error.empty()) throw std::runtime_error(error);
  }
  FetchResult result;
  result.seconds = microseconds(Clock::now() - start) / 1e6;
  result.bytes = bytes;
  for (auto& part : latencies) {
    result.latenciesUs.insert(result.latenciesUs.end(), part.begin(), part.end());
  }
  return result;
}

}  // namespace packmoor::bench
