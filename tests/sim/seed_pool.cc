#include "seed_pool.h"

#include <fcntl.h>
#include <poll.h>
#include <sys/mman.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cstdio>
#include <cstring>
#include <map>
#include <stdexcept>

namespace packmoor::replicator {

namespace {

struct Shared {
  std::atomic<uint64_t> next;
  std::atomic<bool> stop;
};

struct Worker {
  int outcomes = -1, errors = -1;
  uint64_t seed = 0;       // under way, as last told
  std::string said;        // the end of what it wrote to standard error
  SeedOutcome partial;     // bytes of it read so far
  size_t partialBytes = 0;
};

constexpr size_t kSaidMax = 4096;

void writeAll(int fd, const void* data, size_t bytes) {
  auto at = static_cast<const char*>(data);
  while (bytes > 0) {
    const ssize_t n = write(fd, at, bytes);
    if (n <= 0) _exit(3);
    at += n;
    bytes -= static_cast<size_t>(n);
  }
}

// A worker says which seed it begins by an outcome without a trace and with found unset.
[[noreturn]] void work(const SeedSearch& search, Shared& shared, int outcomes) {
  for (;;) {
    if (shared.stop.load()) _exit(0);
    const uint64_t seed = shared.next.fetch_add(1);
    if (seed >= search.first + search.count) _exit(0);
    SeedOutcome outcome;
    outcome.seed = seed;
    writeAll(outcomes, &outcome, sizeof outcome);
    SimRunOptions options = search.options;
    options.seed = seed;
    const SimRunResult result = simRun(options);
    outcome.trace = result.trace;
    outcome.acknowledged = result.acknowledged;
    outcome.unknown = result.unknown;
    outcome.rejected = result.rejected;
    outcome.reads = result.reads;
    outcome.records = result.records;
    outcome.messages = result.messages;
    outcome.epochs = result.epochs;
    outcome.virtualMs = result.virtualMs;
    outcome.found = !result.findings.empty();
    if (outcome.found) {
      std::snprintf(outcome.finding, sizeof outcome.finding, "%s", result.findings[0].c_str());
    }
    writeAll(outcomes, &outcome, sizeof outcome);
  }
}

void start(const SeedSearch& search, Shared& shared, std::map<pid_t, Worker>& workers) {
  int outcomes[2], errors[2];
  if (pipe(outcomes) != 0 || pipe(errors) != 0) throw std::runtime_error("no pipes");
  const pid_t pid = fork();
  if (pid < 0) throw std::runtime_error("no process");
  if (pid == 0) {
    close(outcomes[0]);
    close(errors[0]);
    dup2(errors[1], STDERR_FILENO);
    work(search, shared, outcomes[1]);
  }
  close(outcomes[1]);
  close(errors[1]);
  Worker worker;
  worker.outcomes = outcomes[0];
  worker.errors = errors[0];
  workers.emplace(pid, std::move(worker));
}

// The line in which a check says what is broken.
std::string lastWords(const std::string& said) {
  size_t at = said.find("invariant broken");
  if (at == std::string::npos) at = said.find("broken");
  if (at == std::string::npos) at = 0;
  at = said.rfind('\n', at) == std::string::npos ? 0 : said.rfind('\n', at) + 1;
  return said.substr(at, said.find('\n', at) - at);
}

bool readErrors(Worker& worker) {
  char buffer[4096];
  const ssize_t n = read(worker.errors, buffer, sizeof buffer);
  if (n <= 0) return false;
  worker.said.append(buffer, static_cast<size_t>(n));
  if (worker.said.size() > kSaidMax) worker.said.erase(0, worker.said.size() - kSaidMax);
  return true;
}

}  // namespace

uint64_t searchSeeds(const SeedSearch& search,
                     const std::function<void(const SeedOutcome&)>& onOutcome) {
  void* memory = mmap(nullptr, sizeof(Shared), PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS,
                      -1, 0);
  if (memory == MAP_FAILED) throw std::runtime_error("no shared memory");
  auto& shared = *new (memory) Shared{{search.first}, {false}};
  std::map<pid_t, Worker> workers;
  for (unsigned i = 0; i < search.jobs; ++i) start(search, shared, workers);
  uint64_t findings = 0;
  auto ended = [&](SeedOutcome outcome) {
    if (search.safetyOnly && std::strncmp(outcome.finding, kNoProgress, strlen(kNoProgress)) == 0) {
      outcome.found = false;
    }
    if (outcome.found) {
      ++findings;
      if (search.stopAtFinding) shared.stop = true;
    }
    onOutcome(outcome);
  };
  while (!workers.empty()) {
    std::vector<pollfd> fds;
    std::vector<pid_t> pids;
    for (auto& [pid, worker] : workers) {
      fds.push_back({worker.errors, POLLIN, 0});
      fds.push_back({worker.outcomes, POLLIN, 0});
      pids.push_back(pid);
    }
    poll(fds.data(), fds.size(), -1);
    for (size_t i = 0; i < pids.size(); ++i) {
      Worker& worker = workers[pids[i]];
      if (fds[2 * i].revents & POLLIN) readErrors(worker);
      if (fds[2 * i + 1].revents == 0) continue;
      auto at = reinterpret_cast<char*>(&worker.partial) + worker.partialBytes;
      const ssize_t n = read(worker.outcomes, at, sizeof worker.partial - worker.partialBytes);
      if (n > 0) {
        worker.partialBytes += static_cast<size_t>(n);
        if (worker.partialBytes < sizeof worker.partial) continue;
        worker.partialBytes = 0;
        const SeedOutcome outcome = worker.partial;
        const bool begins = worker.seed != outcome.seed;
        worker.seed = begins ? outcome.seed : 0;
        if (begins) worker.said.clear();
        if (!begins) ended(outcome);
        continue;
      }
      while (readErrors(worker)) {}
      int status = 0;
      waitpid(pids[i], &status, 0);
      const Worker gone = std::move(worker);
      close(gone.outcomes);
      close(gone.errors);
      workers.erase(pids[i]);
      if (!WIFEXITED(status) || WEXITSTATUS(status) != 0) {
        SeedOutcome outcome;
        outcome.seed = gone.seed;
        outcome.found = outcome.died = true;
        std::snprintf(outcome.finding, sizeof outcome.finding, "aborted: %s",
                      lastWords(gone.said).c_str());
        ended(outcome);
        if (!shared.stop) start(search, shared, workers);
      }
    }
  }
  munmap(memory, sizeof(Shared));
  return findings;
}

}  // namespace packmoor::replicator
