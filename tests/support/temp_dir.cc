#include "support/temp_dir.h"

#include <cstdio>
#include <cstdlib>
#include <filesystem>

namespace packmoor::testing {

TempDir::TempDir() {
  std::string pattern = (std::filesystem::temp_directory_path() / "packmoor-test-XXXXXX").string();
  if (mkdtemp(pattern.data()) == nullptr) {
    std::perror(("could not make a temporary folder like " + pattern).c_str());
    std::abort();
  }
  path_ = pattern;
}

TempDir::~TempDir() noexcept {
  std::error_code ignored;
  std::filesystem::remove_all(path_, ignored);
}

}  // namespace packmoor::testing
