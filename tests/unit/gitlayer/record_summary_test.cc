// Goal: a record tells an operator what it did: repository, refs, who and when; what cannot be read says so.
// Method: records as the state machine gets them.
#include "gitlayer/record_summary.h"

#include "record_codec.h"
#include "test_log.h"

#include <gtest/gtest.h>

namespace packmoor::gitlayer {
namespace {

using namespace test;

replicator::RecordRef record(replicator::RecordKind kind, kj::Array<const kj::byte> payload) {
  return replicator::makeRecord(replicator::RecordIndex(1), replicator::Epoch(1), {}, kind, {},
                                kj::mv(payload));
}

TEST(RecordSummary, APushTellsItsRefsAndWhoMadeIt) {
  auto push = transaction(5, {update("refs/heads/main", 0, 1), update("refs/heads/b", 7, 0)}, true);
  push.client = "192.0.2.7";
  push.pushOptions = {"ci.skip"};
  auto summary = summarize(*record(kRefTransaction, encodeRefTransaction(repositoryId(3), push, 9)));
  EXPECT_EQ(summary.what, "push");
  EXPECT_TRUE(summary.write);
  EXPECT_EQ(summary.repository, repositoryId(3));
  EXPECT_EQ(summary.principal, "alice");
  EXPECT_EQ(summary.client, "192.0.2.7");
  EXPECT_EQ(summary.pushOptions, std::vector<std::string>{"ci.skip"});
  EXPECT_EQ(summary.timeMs, 9);
  ASSERT_EQ(summary.refs.size(), 2u);
  EXPECT_EQ(summary.refs[0].name, "refs/heads/main");
  EXPECT_EQ(summary.refs[0].newId, oid(1));
  EXPECT_EQ(summary.refs[1].oldId, oid(7));
}

TEST(RecordSummary, ARepositoryTellsItsName) {
  RepositoryCreateRecord create{txnId(1), repositoryId(3), "team/app", "", "refs/heads/main", 5, "bob"};
  auto summary = summarize(*record(kRepositoryCreate, encodeRepositoryCreate(create)));
  EXPECT_EQ(summary.what, "repository created");
  EXPECT_EQ(summary.repositoryName, "team/app");
  EXPECT_EQ(summary.principal, "bob");
}

TEST(RecordSummary, MaintenanceTellsItsRepositoryAndIsNoWrite) {
  RepackRecord repack;
  repack.repository = repositoryId(3);
  repack.replaced = {txnId(70)};
  repack.pack = {txnId(80), txnId(81), 1, 1};
  auto summary = summarize(*record(kRepack, encodeRepack(repack)));
  EXPECT_EQ(summary.what, "packs merged");
  EXPECT_EQ(summary.repository, repositoryId(3));
  EXPECT_FALSE(summary.write);
}

TEST(RecordSummary, WhatCannotBeReadSaysSo) {
  auto garbage = kj::heapArray<kj::byte>(3);
  for (auto& byte : garbage) byte = 0xff;
  EXPECT_EQ(summarize(*record(kRefTransaction, kj::mv(garbage))).what, "a record that cannot be read");
  EXPECT_NE(summarize(*record(replicator::RecordKind(999), nullptr)).what.find("999"),
            std::string::npos);
}

}  // namespace
}  // namespace packmoor::gitlayer
