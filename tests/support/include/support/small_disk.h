// SmallDisk: a real file system of a test's own that can be filled up, in memory.
//
// It hangs in no folder, so nobody else sees it and nothing of it stays, however the test ends. Making one
// needs root; a test skips itself where there is none.
#pragma once

#include <cstdint>
#include <string>

namespace packmoor::testing {

class SmallDisk {
 public:
  explicit SmallDisk(uint64_t bytes);
  ~SmallDisk() noexcept;
  SmallDisk(const SmallDisk&) = delete;
  SmallDisk& operator=(const SmallDisk&) = delete;

  bool made() const { return root_ >= 0; }
  std::string path() const;   // of its root folder, in this process
  void fill();                // to the last byte
  void makeRoom();            // takes back what fill() took

 private:
  std::string filler() const { return path() + "/filler"; }
  int root_ = -1;
};

}  // namespace packmoor::testing
