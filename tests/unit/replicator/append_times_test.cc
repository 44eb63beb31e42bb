// Goal: how far a standby is behind in time is told to a step's accuracy, in bounded memory. Method: a
// log that grows, compared with the time of every append; then the status of a primary whose async
// standby is cut off.
#include "append_times.h"

#include "sim_cluster.h"

#include <gtest/gtest.h>

namespace packmoor::replicator {
namespace {

TEST(AppendTimesTest, TellsTheAgeOfTheOldestMissingRecord) {
  AppendTimes times(RecordIndex(10), 1000);
  EXPECT_EQ(times.lagMs(RecordIndex(10), 5000), 0);
  EXPECT_EQ(times.lagMs(RecordIndex(9), 5000), 4000);   // from before: since this was made
  times.appended(RecordIndex(11), 5000);
  times.appended(RecordIndex(20), 5050);                // of the same step
  times.appended(RecordIndex(30), 9000);
  EXPECT_EQ(times.lagMs(RecordIndex(30), 9000), 0);
  EXPECT_EQ(times.lagMs(RecordIndex(20), 9500), 500);
  EXPECT_EQ(times.lagMs(RecordIndex(29), 9500), 500);
  EXPECT_EQ(times.lagMs(RecordIndex(15), 9500), 4500);
  EXPECT_EQ(times.lagMs(RecordIndex(10), 9500), 4500);
  EXPECT_EQ(times.lagMs(RecordIndex(3), 9500), 8500);
  times.appended(RecordIndex(30), 20'000);              // nothing new
  EXPECT_EQ(times.lagMs(RecordIndex(30), 20'000), 0);
}

TEST(AppendTimesTest, ALongLogIsRememberedCoarserAndNeverTooShort) {
  AppendTimes times(RecordIndex(0), 0);
  const uint64_t count = 3 * AppendTimes::kEntriesMax;
  for (uint64_t i = 1; i <= count; ++i) times.appended(RecordIndex(i), int64_t(i) * 200);
  const int64_t now = int64_t(count) * 200;
  for (uint64_t has = 0; has < count; has += 97) {
    const int64_t truth = now - int64_t(has + 1) * 200;
    const int64_t told = times.lagMs(RecordIndex(has), now);
    EXPECT_GE(told, truth) << has;
    EXPECT_LE(told, truth + 64 * 200) << has;    // thinned out at most six times
  }
}

TEST(AppendTimesTest, TheStatusOfThePrimaryTellsIt) {
  SimCluster cluster(710, 3);
  cluster.begin(2);
  cluster.put(0, "k", "1");
  cluster.loop().runFor(1 * kj::SECONDS);
  cluster.network().isolate("c", cluster.nodeIds());
  cluster.put(0, "k", "2");
  cluster.loop().runFor(7 * kj::SECONDS);
  for (const MemberStatus& member : cluster.primary()->volume().status().members) {
    if (member.node == "c") {
      EXPECT_GE(member.lagMs, 7000);
      EXPECT_LE(member.lagMs, 7500);
    } else {
      EXPECT_EQ(member.lagMs, 0) << member.node;
    }
  }
  cluster.network().heal();
  cluster.settle();
  cluster.verify();
}

}  // namespace
}  // namespace packmoor::replicator
