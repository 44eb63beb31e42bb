// `repo import` and `repo export`: whole repositories in and out, by git itself over the git socket.
//
// An import pushes the history in slices, oldest first, each under a ref of its own below
// refs/packmoor/import/. What a slice brought is durable when its push is answered, and its ref keeps it
// when the import is broken off. At last all refs are pushed, the slices' refs deleted, and the refs
// compared. The node checks every object's form and name, and that everything a ref reaches is there, on
// the way in, as in any push; --check clones the result and compares the objects one by one.
#include "commands.h"
#include "git_process.h"

#include <nlohmann/json.hpp>
#include <rpc/control.pb.h>

#include <algorithm>
#include <cstdio>
#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <map>
#include <memory>

#include <unistd.h>

namespace packmoor::ctl {
namespace {

namespace fs = std::filesystem;
using Refs = std::map<std::string, std::string>;   // by name

constexpr const char* kSlices = "refs/packmoor/import/";
// Of the 100,000 that a node takes unless it is told otherwise.
constexpr size_t kRefsPerPush = 50'000;
constexpr size_t kDeletionsPerPush = 500;

bool isSlice(const std::string& ref) { return ref.rfind(kSlices, 0) == 0; }

// A folder for as long as it lives.
class TemporaryFolder {
 public:
  TemporaryFolder() {
    std::string path = (fs::temp_directory_path() / "packmoorctl-XXXXXX").string();
    if (mkdtemp(path.data()) == nullptr) throw GitFailure("no temporary folder can be made in " + path);
    path_ = path;
  }
  ~TemporaryFolder() {
    std::error_code ignored;
    fs::remove_all(path_, ignored);
  }
  TemporaryFolder(const TemporaryFolder&) = delete;
  TemporaryFolder& operator=(const TemporaryFolder&) = delete;
  std::string in(const char* name) const { return (path_ / name).string(); }

 private:
  fs::path path_;
};

// "OID NAME" or "OID<tab>NAME" a line.
Refs refsOf(const std::vector<std::string>& lines) {
  Refs refs;
  for (const std::string& line : lines) {
    const size_t end = line.find_first_of(" \t");
    if (end != std::string::npos) refs[line.substr(end + 1)] = line.substr(0, end);
  }
  return refs;
}

Refs refsOfNode(const GitProcess& git, const std::string& url) {
  return refsOf(git.lines({"ls-remote", "--refs", url}));
}

std::vector<std::string> objectsOf(const GitProcess& git, const std::string& folder) {
  auto lines = git.in(folder, {"rev-list", "--objects", "--no-object-names", "--all"});
  std::sort(lines.begin(), lines.end());
  lines.erase(std::unique(lines.begin(), lines.end()), lines.end());
  return lines;
}

int gitSocket(const Session& session, std::string& path) {
  control::Request request;
  control::Response response;
  request.mutable_status();
  const int code = session.ask(request, true, response);
  if (code == kDone) path = response.status().self().git_socket();
  return code;
}

class Import {
 public:
  Import(const Session& session, const TransferArguments& arguments, const GitProcess& git)
      : session_(session), arguments_(arguments), git_(git), url_(GitProcess::url(arguments.name)) {}

  int run() {
    readSource();
    int code = prepareTarget();
    if (code != kDone) return code;
    pushSlices();
    pushRefs();
    if (!isEqual()) return kRefused;
    report();
    return kDone;
  }

 private:
  void readSource() {
    source_ = arguments_.path;
    if (fs::is_regular_file(source_)) {
      bundle_ = std::make_unique<TemporaryFolder>();
      git_.run({"clone", "--mirror", "--quiet", source_, bundle_->in("bundle")});
      source_ = bundle_->in("bundle");
    }
    if (git_.in(source_, {"rev-parse", "--is-shallow-repository"}).at(0) == "true") {
      throw GitFailure("The history of " + arguments_.path + " is cut (it is a shallow clone); fetch the rest "
                       "there first: git fetch --unshallow.");
    }
    objects_ = fs::absolute(fs::path(source_) / git_.in(source_, {"rev-parse", "--git-path", "objects"}).at(0))
                   .string() + "\n";
    refs_ = refsOf(git_.in(source_, {"for-each-ref", "--format=%(objectname) %(refname)"}));
    std::erase_if(refs_, [](const auto& ref) { return isSlice(ref.first); });
    try {
      head_ = git_.in(source_, {"symbolic-ref", "--quiet", "HEAD"}).at(0);
    } catch (const std::exception&) {
      head_.clear();   // detached
    }
  }

  // Made, or what an import of the same left.
  int prepareTarget() {
    const int found = exists();
    if (found < 0) return -found;
    if (found == 0) {
      return create();
    }
    there_ = refsOfNode(git_, url_);
    for (const auto& [name, value] : there_) {
      if (isSlice(name)) continue;
      auto own = refs_.find(name);
      if (own != refs_.end() && own->second == value) continue;
      printError("Repository " + arguments_.name + " has refs of its own.",
                 name + " is " + value + " there, and " +
                     (own == refs_.end() ? "is not in what is imported." : own->second + " here."),
                 "Import into a repository that does not exist, or is empty.");
      return kRefused;
    }
    return kDone;
  }

  // 1: yes, 0: no, else an exit code, negative.
  int exists() {
    std::string after;
    for (;;) {
      control::Request request;
      control::Response response;
      request.mutable_repo_list()->set_after(after);
      const int code = session_.ask(request, true, response);
      if (code != kDone) return -code;
      for (const auto& repository : response.repo_list().repositories()) {
        if (repository.name() == arguments_.name) return 1;
        after = repository.name();
      }
      if (!response.repo_list().more()) return 0;
    }
  }

  int create() {
    control::Request request;
    control::Response response;
    auto& body = *request.mutable_repo_create();
    body.set_name(arguments_.name);
    body.set_volume(arguments_.volume);
    body.set_head(head_);
    return session_.ask(request, false, response);
  }

  void pushSlices() {
    const auto commits = git_.in(source_, {"rev-list", "--reverse", "--topo-order", "--all"});
    commits_ = commits.size();
    const size_t each = arguments_.commitsPerPush;
    for (size_t at = each; at < commits.size(); at += each) {
      const std::string name = kSlices + std::to_string(at);
      auto done = there_.find(name);
      if (done != there_.end() && done->second == commits[at - 1]) continue;
      std::fprintf(stderr, "%s of %s commits\n", countText(at).c_str(), countText(commits.size()).c_str());
      push({{name, commits[at - 1]}});
      there_[name] = commits[at - 1];
    }
  }

  // From a repository that has these refs and no others, and the source's objects: git matches refs one by
  // one with all that are there, unless all of them are meant.
  void push(const Refs& refs) {
    const TemporaryFolder folder;
    const std::string from = folder.in("refs.git");
    git_.run({"init", "--bare", "--quiet", from});
    write(from + "/objects/info/alternates", objects_);
    std::string packed = "# pack-refs with: sorted \n";
    for (const auto& [name, value] : refs) packed += value + " " + name + "\n";
    write(from + "/packed-refs", packed);
    const bool watched = isatty(STDERR_FILENO) != 0;
    git_.run({"-C", from, "push", watched ? "--progress" : "--quiet", url_, "+refs/*:refs/*"});
  }

  void write(const std::string& path, const std::string& text) {
    std::ofstream file(path);
    file << text;
    file.close();
    if (!file) throw GitFailure(path + " cannot be written.");
  }

  void pushRefs() {
    Refs part;
    for (const auto& [name, value] : refs_) {
      if (there_.count(name) == 0) part[name] = value;
      if (part.size() < kRefsPerPush) continue;
      push(part);
      part.clear();
    }
    if (!part.empty()) push(part);
    std::vector<std::string> slices;
    for (const auto& [name, value] : there_) {
      if (isSlice(name)) slices.push_back(name);
    }
    for (size_t at = 0; at < slices.size(); at += kDeletionsPerPush) {
      const size_t end = std::min(at + kDeletionsPerPush, slices.size());
      std::vector<std::string> words{"-C", source_, "push", "--quiet", "--delete", url_};
      words.insert(words.end(), slices.begin() + static_cast<ptrdiff_t>(at),
                   slices.begin() + static_cast<ptrdiff_t>(end));
      git_.run(words);
    }
  }

  bool isEqual() {
    const Refs now = refsOfNode(git_, url_);
    if (now != refs_) {
      printError("The refs differ after the import.",
                 countText(refs_.size()) + " were imported, and " + countText(now.size()) + " are there.",
                 "Did somebody push meanwhile, or to " + arguments_.path + "? Import again.");
      return false;
    }
    if (!arguments_.check) return true;
    TemporaryFolder clone;
    git_.run({"clone", "--mirror", "--quiet", url_, clone.in("clone")});
    const auto here = objectsOf(git_, source_), there = objectsOf(git_, clone.in("clone"));
    compared_ = here.size();
    if (here == there) return true;
    printError("The objects differ after the import.",
               countText(here.size()) + " are here, and " + countText(there.size()) + " are there.",
               "This must not be. Keep both, and report it.");
    return false;
  }

  void report() const {
    if (session_.json) {
      nlohmann::ordered_json json{{"name", arguments_.name}, {"refs", refs_.size()}, {"commits", commits_}};
      json["objects_compared"] = compared_;
      std::printf("%s\n", json.dump(2).c_str());
      return;
    }
    std::printf("Repository %s is imported: %s refs, %s commits; the refs are equal%s.\n",
                plain(arguments_.name).c_str(), countText(refs_.size()).c_str(),
                countText(commits_).c_str(),
                arguments_.check ? (", and so are " + countText(compared_) + " objects").c_str() : "");
  }

  const Session& session_;
  const TransferArguments& arguments_;
  const GitProcess& git_;
  const std::string url_;
  std::unique_ptr<TemporaryFolder> bundle_;
  std::string source_, head_, objects_;   // objects_: a line of objects/info/alternates
  Refs refs_, there_;
  size_t commits_ = 0, compared_ = 0;
};

int takeOut(const Session& session, const TransferArguments& arguments, const GitProcess& git) {
  std::error_code ignored;
  if (fs::exists(arguments.path, ignored)) {
    printError("There is something at " + arguments.path + " already.", "",
               "Give a folder that does not exist; it is made.");
    return kRefused;
  }
  const std::string url = GitProcess::url(arguments.name);
  std::vector<std::string> words{"clone", "--mirror", url, arguments.path};
  if (isatty(STDERR_FILENO) == 0) words.insert(words.begin() + 1, "--quiet");
  git.run(words);
  git.run({"-C", arguments.path, "remote", "remove", "origin"});
  if (arguments.check) git.run({"-C", arguments.path, "fsck", "--full", "--no-dangling", "--no-progress"});
  const auto refs = git.in(arguments.path, {"for-each-ref", "--format=%(objectname) %(refname)"});
  if (session.json) {
    nlohmann::ordered_json json{{"name", arguments.name}, {"folder", arguments.path}, {"refs", refs.size()}};
    std::printf("%s\n", json.dump(2).c_str());
  } else {
    std::printf("Repository %s is in %s: %s refs%s.\n", plain(arguments.name).c_str(),
                arguments.path.c_str(), countText(refs.size()).c_str(),
                arguments.check ? ", and git found every object in order" : "");
  }
  return kDone;
}

template <typename Action>
int withGit(const Session& session, const char* advice, Action action) {
  std::string socket;
  const int code = gitSocket(session, socket);
  if (code != kDone) return code;
  try {
    return action(GitProcess(socket));
  } catch (const GitFailure& failure) {
    printError("git did not do it.", failure.what(), advice);
    return kRefused;
  }
}

}  // namespace

int repoImport(const Session& session, const TransferArguments& arguments) {
  return withGit(session, "What git says stands above. Import again: it goes on where it was broken off.",
                 [&](const GitProcess& git) { return Import(session, arguments, git).run(); });
}

int repoExport(const Session& session, const TransferArguments& arguments) {
  return withGit(session, "What git says stands above.",
                 [&](const GitProcess& git) { return takeOut(session, arguments, git); });
}

}  // namespace packmoor::ctl
