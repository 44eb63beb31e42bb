// What the tests of SimDisk share.
#pragma once

#include "kernelio/sim_env.h"

#include <gtest/gtest.h>
#include <kj/debug.h>

#include <algorithm>
#include <string>

namespace packmoor::kernelio::simtest {

inline IoBuffer filled(size_t bytes, kj::byte value) {
  IoBuffer buffer = IoBuffer::allocate(bytes);
  std::fill(buffer.begin(), buffer.begin() + bytes, value);
  return buffer;
}

constexpr OpenOptions kMake{.write = true, .create = true};

class SimFixture : public ::testing::Test {
 protected:
  ~SimFixture() noexcept override {}

  // One node's life on a storage.
  struct Node {
    Node(VirtualLoop& loop, SimStorage& storage) : loop(loop), env(loop, storage, 1) {}
    Disk& disk() { return env.disk(); }
    kj::Own<File> open(kj::StringPtr path, OpenOptions options = kMake) {
      return loop.wait(disk().open(path, options));
    }
    VirtualLoop& loop;
    SimEnv env;
  };

  template <typename T>
  kj::Exception failure(kj::Promise<T> promise) {
    auto exception = kj::runCatchingExceptions([&]() { (void)loop_.wait(kj::mv(promise)); });
    return kj::mv(KJ_ASSERT_NONNULL(exception, "this should have failed"));
  }

  std::string listed(Node& node, kj::StringPtr folder) {
    std::string names;
    for (auto& name : loop_.wait(node.disk().list(folder))) names += name.cStr();
    return names;
  }

  VirtualLoop loop_;
};

}  // namespace packmoor::kernelio::simtest
