#include "git_pack_stream.h"

#include <kj/debug.h>

#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <spawn.h>
#include <sys/resource.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cstring>
#include <filesystem>
#include <fstream>
#include <sstream>

namespace packmoor::gitlayer {

namespace {

constexpr auto kPollInterval = 10 * kj::MILLISECONDS;
constexpr int kNice = 10;
constexpr int kPipeBytes = 1 << 20;
constexpr size_t kComplaintBytesMax = 500;
constexpr const char* kArguments[] = {
    "git", "-c", "pack.threads=1", "-c", "pack.windowMemory=64m", "-c", "pack.deltaCacheSize=16m",
    "-c", "core.bigFileThreshold=8m", "-c", "core.packedGitLimit=256m", "pack-objects",
    "--stdin-packs", "--delta-base-offset", "--stdout", "-q"};

// A repository that has the packs, and the list of them for git's standard input.
void layOut(const std::string& folder, const std::vector<GitPackStream::Pack>& packs) {
  namespace fs = std::filesystem;
  fs::remove_all(folder);
  fs::create_directories(folder + "/objects/pack");
  fs::create_directories(folder + "/refs");
  std::ofstream(folder + "/HEAD") << "ref: refs/heads/none\n";
  std::ofstream list(folder + "/packs");
  for (const auto& pack : packs) {
    const std::string name = kj::str("pack-", pack.id).cStr();
    fs::create_symlink(pack.pack, folder + "/objects/pack/" + name + ".pack");
    fs::create_symlink(pack.index, folder + "/objects/pack/" + name + ".idx");
    list << name << ".pack\n";
  }
  KJ_REQUIRE(list.flush().good(), "The list of packs for git cannot be written.", folder.c_str());
}

class FileActions {
 public:
  FileActions() { posix_spawn_file_actions_init(&actions); }
  ~FileActions() { posix_spawn_file_actions_destroy(&actions); }
  KJ_DISALLOW_COPY(FileActions);
  posix_spawn_file_actions_t actions;
};

std::string complaintOf(const std::string& folder) {
  std::ifstream in(folder + "/stderr");
  std::stringstream text;
  text << in.rdbuf();
  std::string all = text.str();
  if (all.size() > kComplaintBytesMax) all = all.substr(all.size() - kComplaintBytesMax);
  while (!all.empty() && all.back() == '\n') all.pop_back();
  return all;
}

}  // namespace

GitPackStream::Process GitPackStream::spawn(const Request& request) {
  const std::string& folder = request.folder;
  layOut(folder, request.packs);
  int ends[2];
  KJ_SYSCALL(pipe2(ends, O_CLOEXEC));
  kj::AutoCloseFd out(ends[0]), in(ends[1]);
  const std::string list = folder + "/packs", complaints = folder + "/stderr";
  FileActions files;
  posix_spawn_file_actions_addopen(&files.actions, 0, list.c_str(), O_RDONLY, 0);
  posix_spawn_file_actions_adddup2(&files.actions, in.get(), 1);
  posix_spawn_file_actions_addopen(&files.actions, 2, complaints.c_str(),
                                   O_WRONLY | O_CREAT | O_TRUNC, 0600);
  const std::string gitDir = "GIT_DIR=" + folder;
  const char* environment[] = {gitDir.c_str(), "PATH=/usr/local/bin:/usr/bin:/bin", "LC_ALL=C",
                               "HOME=/nonexistent", "GIT_CONFIG_NOSYSTEM=1",
                               "GIT_CONFIG_GLOBAL=/dev/null", nullptr};
  std::vector<const char*> arguments(std::begin(kArguments), std::end(kArguments));
  if (request.allDeltas) arguments.push_back("--no-reuse-delta");
  arguments.push_back(nullptr);
  Process process;
  const int failed = posix_spawnp(&process.id, "git", &files.actions, nullptr,
                                  const_cast<char* const*>(arguments.data()),
                                  const_cast<char* const*>(environment));
  KJ_REQUIRE(failed == 0,
             "git cannot be run to merge packs: they are merged without new deltas. Install git.",
             strerror(failed));
  setpriority(PRIO_PROCESS, static_cast<id_t>(process.id), kNice);
  fcntl(out.get(), F_SETFL, O_NONBLOCK);
  fcntl(out.get(), F_SETPIPE_SZ, kPipeBytes);
  process.out = kj::mv(out);
  return process;
}

Co<kj::Own<GitPackStream>> GitPackStream::start(kernelio::Env& env, Request request) {
  auto spawning = env.workers.run([request]() {
    return std::make_shared<Process>(spawn(request));
  });
  auto process = co_await kj::mv(spawning);
  co_return kj::heap<GitPackStream>(env, request.folder, request.bytesPerSecond,
                                    kj::mv(*process));
}

GitPackStream::~GitPackStream() noexcept(false) {
  if (process_.id >= 0) {
    kill(process_.id, SIGKILL);
    waitpid(process_.id, nullptr, 0);   // at once: it is killed
  }
  std::error_code ignored;              // the next one removes it
  std::filesystem::remove_all(folder_, ignored);
}

Co<void> GitPackStream::whenWriting() {
  for (;;) {
    struct pollfd state = {process_.out.get(), POLLIN, 0};
    if (poll(&state, 1, 0) != 0) co_return;
    co_await env_.timer.afterDelay(kPollInterval);
  }
}

Co<size_t> GitPackStream::read(kj::ArrayPtr<kj::byte> into, size_t minBytes) {
  size_t got = 0;
  while (got < minBytes && process_.id >= 0) {
    const ssize_t some = ::read(process_.out.get(), into.begin() + got, into.size() - got);
    if (some > 0) {
      got += static_cast<size_t>(some);
    } else if (some == 0) {
      auto ending = ended();
      co_await kj::mv(ending);
    } else if (errno == EAGAIN || errno == EINTR) {
      co_await env_.timer.afterDelay(kPollInterval);
    } else {
      KJ_FAIL_SYSCALL("read(git pack-objects)", errno);
    }
  }
  if (bytesPerSecond_ > 0 && got > 0) {
    co_await env_.timer.afterDelay(got * 1'000'000 / bytesPerSecond_ * kj::MICROSECONDS);
  }
  co_return got;
}

Co<void> GitPackStream::ended() {
  const pid_t id = process_.id;
  process_.id = -1;      // it is the job's from here on
  auto waiting = env_.workers.run([id]() {
    int status = 0;
    waitpid(id, &status, 0);
    return status;
  });
  const int status = co_await kj::mv(waiting);
  KJ_REQUIRE(WIFEXITED(status) && WEXITSTATUS(status) == 0,
             "git pack-objects failed while it merged packs.", status,
             complaintOf(folder_).c_str());
}

}  // namespace packmoor::gitlayer
