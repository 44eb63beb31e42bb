// TempDir: a folder of a test's own, removed with all that is in it when the test is over.
#pragma once

#include <string>

namespace packmoor::testing {

class TempDir {
 public:
  TempDir();
  ~TempDir() noexcept;
  TempDir(const TempDir&) = delete;
  TempDir& operator=(const TempDir&) = delete;

  const std::string& path() const { return path_; }
  std::string path(const std::string& below) const { return path_ + "/" + below; }

 private:
  std::string path_;
};

}  // namespace packmoor::testing
