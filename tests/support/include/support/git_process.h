// Running the real git binary in tests: a temporary folder, and git with a fixed identity, fixed
// dates and none of the machine's configuration.
//
// A TempFolder is removed with all that is in it when it goes. run() blocks the thread.
#pragma once

#include <string>
#include <string_view>
#include <vector>

namespace packmoor::test {

class TempFolder {
 public:
  TempFolder();
  ~TempFolder();
  TempFolder(const TempFolder&) = delete;
  TempFolder& operator=(const TempFolder&) = delete;
  const std::string& path() const { return path_; }

 private:
  std::string path_;
};

struct ProcessResult {
  int exitCode = -1;        // -1: ended by a signal
  std::string out, err;
};
// `folder` is the working directory; the program is looked up in PATH.
ProcessResult runProcess(const std::vector<std::string>& command, const std::string& folder,
                         std::string_view input = {});

class TestGit {
 public:
  // An empty repository with a work tree, its branch named main.
  TestGit();

  const std::string& path() const { return folder_.path(); }
  // Fails the test (throws) when git exits with anything but 0. Returns its standard output.
  std::string run(const std::vector<std::string>& arguments, std::string_view input = {});
  ProcessResult tryRun(const std::vector<std::string>& arguments, std::string_view input = {});
  // run() without the last newline.
  std::string line(const std::vector<std::string>& arguments, std::string_view input = {});

  void write(const std::string& file, std::string_view content);
  // Writes the file, commits everything, returns the commit's name.
  std::string commit(const std::string& file, std::string_view content,
                     const std::string& message = "change");

  // A pack of the revisions, as rev-list --objects takes them ("main", "^old"). Options are those
  // of pack-objects: "--thin", "--delta-base-offset", ...
  std::string pack(const std::vector<std::string>& revisions,
                   const std::vector<std::string>& options = {});

 private:
  TempFolder folder_;
  int64_t tick_ = 1'700'000'000;
};

std::string readFile(const std::string& path);
void writeFile(const std::string& path, std::string_view content);

}  // namespace packmoor::test
