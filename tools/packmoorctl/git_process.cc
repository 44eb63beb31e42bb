#include "git_process.h"

#include <array>
#include <cerrno>
#include <cstring>

#include <fcntl.h>
#include <spawn.h>
#include <sys/wait.h>
#include <unistd.h>

extern char** environ;

namespace packmoor::ctl {
namespace {

constexpr const char* kShell = "packmoor-shell";

std::string shellProgram() {
  std::string self(4096, '\0');
  const ssize_t bytes = readlink("/proc/self/exe", self.data(), self.size());
  if (bytes > 0) {
    self.resize(static_cast<size_t>(bytes));
    const std::string beside = self.substr(0, self.rfind('/') + 1) + kShell;
    if (access(beside.c_str(), X_OK) == 0) return beside;
  }
  return kShell;
}

// For the shell that git starts.
std::string quoted(const std::string& text) {
  std::string result = "'";
  for (char c : text) result += c == '\'' ? std::string("'\\''") : std::string(1, c);
  return result + "'";
}

[[noreturn]] void ended(const std::vector<std::string>& arguments, int code) {
  const size_t verb = arguments.size() > 2 && arguments[0] == "-C" ? 2 : 0;
  throw GitFailure("git " + arguments[verb] + " ended with code " + std::to_string(code) + ".");
}

bool isGitsOwn(const char* variable) { return strncmp(variable, "GIT_", 4) == 0; }

}  // namespace

GitProcess::GitProcess(const std::string& gitSocket) {
  // Where git looks for things is told by arguments only.
  for (char** variable = environ; *variable != nullptr; ++variable) {
    if (!isGitsOwn(*variable)) environment_.emplace_back(*variable);
  }
  environment_.push_back("GIT_SSH_COMMAND=" + quoted(shellProgram()) + " --socket " + quoted(gitSocket) +
                         " local");
  environment_.emplace_back("GIT_SSH_VARIANT=ssh");
  environment_.emplace_back("GIT_TERMINAL_PROMPT=0");
}

std::string GitProcess::url(const std::string& repository) { return "ssh://node/" + repository; }

int GitProcess::start(const std::vector<std::string>& arguments, std::string* output) const {
  // A repository of another user may be read here: what is run in it is told here.
  std::vector<std::string> words{"git", "-c", "safe.directory=*", "-c", "core.hooksPath=/dev/null"};
  words.insert(words.end(), arguments.begin(), arguments.end());
  std::vector<char*> argv, envp;
  for (std::string& word : words) argv.push_back(word.data());
  std::vector<std::string> variables = environment_;
  for (std::string& variable : variables) envp.push_back(variable.data());
  argv.push_back(nullptr);
  envp.push_back(nullptr);
  int ends[2] = {-1, -1};
  if (output != nullptr && pipe2(ends, O_CLOEXEC) != 0) throw GitFailure(strerror(errno));
  posix_spawn_file_actions_t actions;
  posix_spawn_file_actions_init(&actions);
  posix_spawn_file_actions_adddup2(&actions, output != nullptr ? ends[1] : STDERR_FILENO, STDOUT_FILENO);
  posix_spawn_file_actions_addopen(&actions, STDIN_FILENO, "/dev/null", O_RDONLY, 0);
  pid_t child = 0;
  const int error = posix_spawnp(&child, "git", &actions, nullptr, argv.data(), envp.data());
  posix_spawn_file_actions_destroy(&actions);
  if (output != nullptr) close(ends[1]);
  if (error != 0) {
    if (output != nullptr) close(ends[0]);
    throw GitFailure(std::string("git cannot be started: ") + strerror(error));
  }
  if (output != nullptr) {
    std::array<char, 64 << 10> buffer;
    for (;;) {
      const ssize_t got = read(ends[0], buffer.data(), buffer.size());
      if (got < 0 && errno == EINTR) continue;
      if (got <= 0) break;
      output->append(buffer.data(), static_cast<size_t>(got));
    }
    close(ends[0]);
  }
  int status = 0;
  while (waitpid(child, &status, 0) < 0 && errno == EINTR) {
  }
  return WIFEXITED(status) ? WEXITSTATUS(status) : 128;
}

void GitProcess::run(const std::vector<std::string>& arguments) const {
  const int code = start(arguments, nullptr);
  if (code != 0) ended(arguments, code);
}

std::string GitProcess::output(const std::vector<std::string>& arguments) const {
  std::string text;
  const int code = start(arguments, &text);
  if (code != 0) ended(arguments, code);
  return text;
}

std::vector<std::string> GitProcess::lines(const std::vector<std::string>& arguments) const {
  const std::string text = output(arguments);
  std::vector<std::string> result;
  for (size_t at = 0; at < text.size();) {
    const size_t end = std::min(text.find('\n', at), text.size());
    result.push_back(text.substr(at, end - at));
    at = end + 1;
  }
  return result;
}

std::vector<std::string> GitProcess::in(const std::string& folder,
                                        std::vector<std::string> arguments) const {
  arguments.insert(arguments.begin(), {"-C", folder});
  return lines(arguments);
}

}  // namespace packmoor::ctl
