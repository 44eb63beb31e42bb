// What people see of an exception.
#include "rpc/sentence.h"

#include <gtest/gtest.h>

namespace packmoor::rpc {
namespace {

TEST(Sentence, ConditionsValuesAndStacksAreTakenOut) {
  EXPECT_EQ(sentenceOf("the name is taken"), "The name is taken.");
  EXPECT_EQ(sentenceOf("The disk is full."), "The disk is full.");
  EXPECT_EQ(sentenceOf("expected record_.current.hasMember(node); that node is no member; node = n9"),
            "That node is no member (node: n9).");
  EXPECT_EQ(sentenceOf("nothing was committed; reason = too few members"),
            "Nothing was committed: too few members.");
  EXPECT_EQ(sentenceOf("no; record.name.c_str() = main; e.getDescription() = it broke"),
            "No (name: main): it broke.");
  EXPECT_EQ(sentenceOf("it broke\nstack: 55aa 66bb"), "It broke.");
  EXPECT_EQ(sentenceOf("expected a == b"), "Expected a == b.");
  EXPECT_EQ(sentenceOf("first; second part, with a = in it"), "First; second part, with a = in it.");
  EXPECT_EQ(sentenceOf(""), "");
}

}  // namespace
}  // namespace packmoor::rpc
