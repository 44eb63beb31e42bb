#include "support/git_process.h"

#include <fcntl.h>
#include <spawn.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <iterator>
#include <stdexcept>

extern char** environ;

namespace packmoor::test {

namespace {

std::vector<std::string> cleanEnvironment(const std::string& home, int64_t date) {
  std::vector<std::string> result;
  for (char** entry = environ; *entry != nullptr; ++entry) {
    std::string text = *entry;
    if (text.rfind("GIT_", 0) != 0 && text.rfind("HOME=", 0) != 0) result.push_back(text);
  }
  std::string when = std::to_string(date) + " +0000";
  result.insert(result.end(),
                {"HOME=" + home, "GIT_CONFIG_NOSYSTEM=1", "GIT_CONFIG_GLOBAL=/dev/null",
                 "GIT_AUTHOR_NAME=A U Thor", "GIT_AUTHOR_EMAIL=author@example.com",
                 "GIT_COMMITTER_NAME=C O Mitter", "GIT_COMMITTER_EMAIL=committer@example.com",
                 "GIT_AUTHOR_DATE=" + when, "GIT_COMMITTER_DATE=" + when, "GIT_TERMINAL_PROMPT=0"});
  return result;
}

std::vector<char*> pointers(std::vector<std::string>& texts) {
  std::vector<char*> result;
  for (auto& text : texts) result.push_back(text.data());
  result.push_back(nullptr);
  return result;
}

// Input and output go through files, so that neither side can block the other.
ProcessResult spawnAndWait(std::vector<std::string> command, const std::string& folder,
                           std::string_view input, std::vector<std::string> environment) {
  TempFolder files;
  writeFile(files.path() + "/in", input);
  posix_spawn_file_actions_t actions;
  posix_spawn_file_actions_init(&actions);
  posix_spawn_file_actions_addchdir_np(&actions, folder.c_str());
  posix_spawn_file_actions_addopen(&actions, 0, (files.path() + "/in").c_str(), O_RDONLY, 0);
  posix_spawn_file_actions_addopen(&actions, 1, (files.path() + "/out").c_str(),
                                   O_WRONLY | O_CREAT, 0600);
  posix_spawn_file_actions_addopen(&actions, 2, (files.path() + "/err").c_str(),
                                   O_WRONLY | O_CREAT, 0600);
  pid_t pid = 0;
  int error = posix_spawnp(&pid, command[0].c_str(), &actions, nullptr, pointers(command).data(),
                           pointers(environment).data());
  posix_spawn_file_actions_destroy(&actions);
  if (error != 0) throw std::runtime_error("cannot run " + command[0]);
  int status = 0;
  while (waitpid(pid, &status, 0) < 0 && errno == EINTR) {
  }
  ProcessResult result;
  result.exitCode = WIFEXITED(status) ? WEXITSTATUS(status) : -1;
  result.out = readFile(files.path() + "/out");
  result.err = readFile(files.path() + "/err");
  return result;
}

}  // namespace

TempFolder::TempFolder() {
  const char* base = getenv("TMPDIR");
  std::string pattern = std::string(base != nullptr ? base : "/tmp") + "/packmoor-test-XXXXXX";
  if (mkdtemp(pattern.data()) == nullptr) throw std::runtime_error("cannot make " + pattern);
  path_ = pattern;
}

TempFolder::~TempFolder() {
  std::error_code ignored;
  std::filesystem::remove_all(path_, ignored);
}

ProcessResult runProcess(const std::vector<std::string>& command, const std::string& folder,
                         std::string_view input) {
  return spawnAndWait(command, folder, input, cleanEnvironment(folder, 1'700'000'000));
}

TestGit::TestGit() {
  run({"init", "-q", "-b", "main", "."});
  run({"config", "gc.auto", "0"});
}

ProcessResult TestGit::tryRun(const std::vector<std::string>& arguments, std::string_view input) {
  std::vector<std::string> command = {"git"};
  command.insert(command.end(), arguments.begin(), arguments.end());
  return spawnAndWait(command, path(), input, cleanEnvironment(path(), ++tick_));
}

std::string TestGit::run(const std::vector<std::string>& arguments, std::string_view input) {
  ProcessResult result = tryRun(arguments, input);
  if (result.exitCode != 0) {
    throw std::runtime_error("git " + arguments[0] + " failed: " + result.err);
  }
  return result.out;
}

std::string TestGit::line(const std::vector<std::string>& arguments, std::string_view input) {
  std::string out = run(arguments, input);
  if (!out.empty() && out.back() == '\n') out.pop_back();
  return out;
}

void TestGit::write(const std::string& file, std::string_view content) {
  std::filesystem::path full = path() + "/" + file;
  std::filesystem::create_directories(full.parent_path());
  writeFile(full, content);
}

std::string TestGit::commit(const std::string& file, std::string_view content,
                            const std::string& message) {
  write(file, content);
  run({"add", "-A"});
  run({"commit", "-q", "--allow-empty", "-m", message});
  return line({"rev-parse", "HEAD"});
}

std::string TestGit::pack(const std::vector<std::string>& revisions,
                          const std::vector<std::string>& options) {
  std::string input;
  for (const auto& revision : revisions) input += revision + "\n";
  std::vector<std::string> arguments = {"pack-objects", "-q", "--stdout", "--revs"};
  arguments.insert(arguments.end(), options.begin(), options.end());
  return run(arguments, input);
}

std::string readFile(const std::string& path) {
  std::ifstream in(path, std::ios::binary);
  return std::string((std::istreambuf_iterator<char>(in)), {});
}

void writeFile(const std::string& path, std::string_view content) {
  std::ofstream out(path, std::ios::binary | std::ios::trunc);
  out.write(content.data(), static_cast<std::streamsize>(content.size()));
  if (!out.good()) throw std::runtime_error("cannot write " + path);
}

}  // namespace packmoor::test
