// Goal: a read policy is parsed exactly, and nothing else is taken for one. Method: tables.
#include "gitlayer/read_policy.h"

#include <gtest/gtest.h>

namespace packmoor::gitlayer {
namespace {

using Kind = ReadPolicy::Kind;

TEST(ReadPolicyTest, TakesTheThreePolicies) {
  EXPECT_EQ(parseReadPolicy("linearizable")->kind, Kind::kLinearizable);
  EXPECT_EQ(parseReadPolicy("available")->kind, Kind::kAvailable);
  auto policy = parseReadPolicy("at-least=main:1234");
  ASSERT_TRUE(policy.has_value());
  EXPECT_EQ(policy->kind, Kind::kAtLeast);
  EXPECT_EQ(policy->volume, "main");
  EXPECT_EQ(policy->index, replicator::RecordIndex(1234));
  EXPECT_EQ(parseReadPolicy("at-least=v:18446744073709551615")->index.value, UINT64_MAX);
}

TEST(ReadPolicyTest, RefusesEverythingElse) {
  for (const char* text :
       {"", "Available", "available ", "linearizable,available", "at-least", "at-least=",
        "at-least=main", "at-least=main:", "at-least=:1", "at-least=main:-1", "at-least=main:1x",
        "at-least=main: 1", "at-least=main:18446744073709551616"}) {
    EXPECT_FALSE(parseReadPolicy(text).has_value()) << text;
  }
}

}  // namespace
}  // namespace packmoor::gitlayer
