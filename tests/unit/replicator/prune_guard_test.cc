// Goal: of a prune and a ref transaction that do not know of each other, the later one in the log does
// not count (rule 21). Method: every order of computing, verifying and applying.
#include "replicator/prune_guard.h"

#include <gtest/gtest.h>

namespace packmoor::replicator {
namespace {

constexpr RecordIndex at(uint64_t index) { return RecordIndex(index); }

TEST(PruneGuardTest, NothingHappenedYet) {
  const PruneGuard guard;
  EXPECT_FALSE(guard.mustVerifyAgain(at(0)));
  EXPECT_FALSE(guard.isVoid(at(0)));
}

TEST(PruneGuardTest, ATransactionBehindAPruneItDoesNotKnow) {
  PruneGuard guard;
  guard.lastPrune = at(10);  // computed at 5, say
  EXPECT_TRUE(guard.mustVerifyAgain(at(0))) << "of a version that does not say";
  EXPECT_TRUE(guard.mustVerifyAgain(at(4)));
  EXPECT_TRUE(guard.mustVerifyAgain(at(7))) << "its view still had what the prune drops";
  EXPECT_TRUE(guard.mustVerifyAgain(at(9)));
  EXPECT_FALSE(guard.mustVerifyAgain(at(10))) << "the view was that behind the prune";
  EXPECT_FALSE(guard.mustVerifyAgain(at(11)));
}

TEST(PruneGuardTest, APruneBehindAChangeItDoesNotKnow) {
  PruneGuard guard;
  guard.lastChange = at(10);
  EXPECT_TRUE(guard.isVoid(at(9)));
  EXPECT_FALSE(guard.isVoid(at(10)));
  EXPECT_FALSE(guard.isVoid(at(11)));
  guard.lastPrune = at(12);  // prunes do not void one another
  EXPECT_FALSE(guard.isVoid(at(10)));
}

}  // namespace
}  // namespace packmoor::replicator
