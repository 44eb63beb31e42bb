// Goal: a sealed extent is kept for as long as its record may still be proposed, and no longer than
// the configuration says (rule 22). Method: an exchange alone in virtual time, ticked as a node does.
#include "extent_exchange.h"

#include <kernelio/sim_env.h>

#include <gtest/gtest.h>

namespace packmoor::replicator {
namespace {

class NoPeers final : public Peers {
 public:
  const NodeId& self() override { return self_; }
  Peer& peer(const NodeId&) override { KJ_FAIL_REQUIRE("no peers"); }
  kj::Promise<void> connectivityChanged() override { return kj::NEVER_DONE; }

 private:
  NodeId self_ = "a";
};

class ExtentPinTest : public ::testing::Test {
 public:
  ~ExtentPinTest() noexcept override {}

 protected:
  // Seals an extent and gives its pin to an exchange, as a front does; the seconds until it is gone.
  int64_t secondsKept(int64_t expiryMs, int64_t proposeTimeoutMs, bool named) {
    kernelio::SimEnv sim(loop_, storage_, 1);
    ExtentStoreOptions options;
    options.expiryMs = expiryMs;
    auto store = loop_.wait(ExtentStore::open(sim.env(), options));
    store->startExpiry();
    ExtentExchange exchange(sim.env(), *store, peers_, proposeTimeoutMs);
    ExtentId id;
    id.bytes[0] = ++extents_;
    auto writer = loop_.wait(store->begin(id));
    auto data = kernelio::IoBuffer::copyOf(kj::StringPtr("block").asBytes());
    loop_.wait(writer->writeBlock(0, data, hashBytes(data.bytes())));
    loop_.wait(writer->seal(data.size(), nullptr));
    exchange.keepSealPin(id);
    if (named) store->pin(id);  // by a record in the log
    constexpr int64_t kLongestSeconds = 3 * 3600;
    for (int64_t second = 0; second < kLongestSeconds; ++second) {
      if (!store->isSealed(id)) return second;
      loop_.runFor(1 * kj::SECONDS);
      exchange.tick();
    }
    return -1;
  }

  kernelio::VirtualLoop loop_;
  kernelio::SimStorage storage_{1};
  NoPeers peers_;
  uint8_t extents_ = 0;
};

TEST_F(ExtentPinTest, WhatIsKeptShortIsNotPinnedForMinutes) {
  const int64_t kept = secondsKept(5000, 10'000, false);
  EXPECT_GE(kept, 20 + 5) << "a push may be proposed twice, each for 10 s";
  EXPECT_LE(kept, 20 + 5 + 2);
}

TEST_F(ExtentPinTest, ThePinIsBounded) {
  const int64_t kept = secondsKept(3'600'000, 30'000, false);
  EXPECT_GE(kept, 15 * 60 + 3600);
  EXPECT_LE(kept, 15 * 60 + 3600 + 2);
}

TEST_F(ExtentPinTest, WhatARecordNamesStays) { EXPECT_EQ(secondsKept(100, 100, true), -1); }

}  // namespace
}  // namespace packmoor::replicator
