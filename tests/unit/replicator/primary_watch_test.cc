// Goal: a primary is suspected when it is silent or gone, and not because this node slept or because
// only one direction of its connections is refused. Method: the times are given.
#include "primary_watch.h"

#include <gtest/gtest.h>

namespace packmoor::replicator {
namespace {

TEST(PrimaryWatchTest, SilenceIsSuspectedAfterTheTime) {
  PrimaryWatch watch(300, 50);
  watch.follow(1000);
  EXPECT_FALSE(watch.suspects(1299));
  EXPECT_TRUE(watch.suspects(1300));
  watch.heard(1400);
  EXPECT_FALSE(watch.suspects(1699));
  EXPECT_TRUE(watch.suspects(1700));
  watch.follow(1700);   // somebody else
  EXPECT_FALSE(watch.suspects(1999));
  EXPECT_EQ(watch.followedMs(), 1700);
}

TEST(PrimaryWatchTest, ARefusedConnectionIsSuspectedAtOnce) {
  PrimaryWatch watch(300, 50);
  watch.follow(1000);
  watch.heard(1100);
  watch.connection(true, 1100);
  EXPECT_TRUE(watch.suspects(1100));
  watch.connection(true, 1150);
  EXPECT_TRUE(watch.suspects(1150));
  // It sends all the same: only the way there is closed.
  watch.heard(1150);
  EXPECT_TRUE(watch.suspects(1150));   // this may have been on the way
  watch.heard(1151);
  EXPECT_FALSE(watch.suspects(1152));
  watch.connection(true, 1160);
  EXPECT_FALSE(watch.suspects(1160));
  // Connected, and refused again.
  watch.connection(false, 1170);
  watch.connection(true, 1180);
  EXPECT_TRUE(watch.suspects(1180));
  watch.follow(1190);
  EXPECT_FALSE(watch.suspects(1190));
}

TEST(PrimaryWatchTest, TimeInWhichThisNodeDidNotRunIsNoSilence) {
  PrimaryWatch watch(300, 50);
  watch.follow(1000);
  watch.tick(1000);
  watch.heard(1040);
  EXPECT_FALSE(watch.tick(1050));
  EXPECT_TRUE(watch.tick(9050));     // stopped for eight seconds
  EXPECT_FALSE(watch.suspects(9050));
  for (int64_t now = 9100; now <= 9300; now += 50) EXPECT_FALSE(watch.tick(now));
  EXPECT_FALSE(watch.suspects(9330));
  EXPECT_TRUE(watch.suspects(9350));   // what was silent before still is
}

}  // namespace
}  // namespace packmoor::replicator
