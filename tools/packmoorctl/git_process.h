// git, run as a process beside packmoorctl, which reaches this node's repositories by their names.
#pragma once

#include <stdexcept>
#include <string>
#include <vector>

namespace packmoor::ctl {

// git could not be started, or said no. What git said itself is on standard error already.
struct GitFailure : std::runtime_error {
  using std::runtime_error::runtime_error;
};

class GitProcess {
 public:
  // `gitSocket`: the node's. packmoor-shell is looked for beside this program, then in PATH.
  explicit GitProcess(const std::string& gitSocket);

  // The URL of a repository of this node.
  static std::string url(const std::string& repository);
  // Runs git; what it prints goes to standard error, with its progress where that is a terminal.
  void run(const std::vector<std::string>& arguments) const;
  // Runs git and returns its standard output.
  std::string output(const std::vector<std::string>& arguments) const;
  // The same, as lines.
  std::vector<std::string> lines(const std::vector<std::string>& arguments) const;
  // The same, in the repository at `folder`.
  std::vector<std::string> in(const std::string& folder, std::vector<std::string> arguments) const;

 private:
  int start(const std::vector<std::string>& arguments, std::string* output) const;
  std::vector<std::string> environment_;
};

}  // namespace packmoor::ctl
