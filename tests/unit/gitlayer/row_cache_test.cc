// What the row cache tells a reader at some version must be what the store held at that version, also
// for snapshots taken while a batch is written.
//
// Method: the cache alone for its rules, then a RocksDB store under random batches against a plain
// map per version. A failure prints the seed.
#include "row_cache.h"

#include "state_store.h"
#include "state_tables.h"

#include <gtest/gtest.h>
#include <kernelio/real_env.h>
#include <kernelio/seeded_random.h>
#include <support/temp_dir.h>

namespace packmoor::gitlayer {
namespace {

using Answer = RowCache::Answer;

std::string refOf(const char* name) { return refKey(RepositoryId(), name); }

void write(RowCache& cache, std::vector<RowCache::Change> changes) {
  cache.beginWrite(changes, {});
  cache.endWrite(std::move(changes));
}

TEST(RowCacheTest, TellsARowFromTheVersionThatWroteIt) {
  RowCache cache;
  write(cache, {{"n1", "a"}});
  write(cache, {{"n1", "b"}});
  std::string value;
  EXPECT_EQ(cache.get("n1", 1, &value), Answer::kUnknown);
  EXPECT_EQ(cache.get("n1", 2, &value), Answer::kFound);
  EXPECT_EQ(value, "b");
  write(cache, {{"n1", std::nullopt}});
  EXPECT_EQ(cache.get("n1", 3, &value), Answer::kAbsent);
  EXPECT_EQ(cache.get("n2", 3, &value), Answer::kUnknown);
}

TEST(RowCacheTest, LearnsOnlyWhatIsCertainlyTheNewest) {
  RowCache cache;
  write(cache, {{"n1", "a"}});
  const std::string old = "old";
  cache.learn("n2", 0, &old);  // read at an older version
  EXPECT_EQ(cache.get("n2", 1, nullptr), Answer::kUnknown);
  const std::vector<RowCache::Change> changes = {{"n3", "new"}};
  cache.beginWrite(changes, {});
  cache.learn("n3", 1, &old);  // read while it was being written
  EXPECT_EQ(cache.get("n3", 1, nullptr), Answer::kUnknown);
  cache.endWrite(changes);
  std::string value;
  EXPECT_EQ(cache.get("n3", 2, &value), Answer::kFound);
  EXPECT_EQ(value, "new");
  cache.learn("n4", 2, nullptr);
  EXPECT_EQ(cache.get("n4", 2, nullptr), Answer::kAbsent);
}

TEST(RowCacheTest, KeepsTheListThatAReaderWalks) {
  RowCache cache;
  ASSERT_TRUE(cache.wantsList(refOf(""), 0));
  cache.learnList(refOf(""), 0, {{refOf("refs/heads/a"), "1"}});
  auto list = cache.list(refOf("refs/"), 0);
  ASSERT_NE(list, nullptr);
  write(cache, {{refOf("refs/heads/b"), "2"}, {refOf("refs/heads/a"), std::nullopt}});
  EXPECT_EQ(list->size(), 1u);
  EXPECT_EQ(list->begin()->first, refOf("refs/heads/a"));
  EXPECT_EQ(cache.list(refOf(""), 0), nullptr);  // changed since
  auto newer = cache.list(refOf(""), 1);
  ASSERT_NE(newer, nullptr);
  EXPECT_EQ(newer->begin()->first, refOf("refs/heads/b"));
  EXPECT_EQ(cache.get(refOf("refs/heads/a"), 1, nullptr), Answer::kAbsent);
}

TEST(RowCacheTest, GivesUpOnLongLists) {
  RowCache cache;
  std::vector<RowCache::Change> changes;
  cache.learnList(refOf(""), 0, {});
  for (size_t i = 0; i <= RowCache::kListRowsMax; ++i) {
    changes.push_back({refOf(std::to_string(i).c_str()), "1"});
  }
  write(cache, changes);
  EXPECT_EQ(cache.list(refOf(""), 1), nullptr);
  EXPECT_FALSE(cache.wantsList(refOf(""), 1));
}

TEST(RowCacheTest, ForgetsWhatAPrefixErases) {
  RowCache cache;
  cache.learnList(refOf(""), 0, {{refOf("refs/heads/a"), "1"}});
  write(cache, {{"n1", "a"}});
  cache.beginWrite({}, {refOf("")});
  EXPECT_EQ(cache.list(refOf(""), 1), nullptr);
  cache.endWrite({});
  EXPECT_EQ(cache.get(refOf("refs/heads/a"), 2, nullptr), Answer::kUnknown);
  EXPECT_EQ(cache.get("n1", 2, nullptr), Answer::kFound);
}

TEST(RowCacheTest, ReadsAsTheStoreDoesAtEveryVersion) {
  const uint64_t seed = 20261128;
  SCOPED_TRACE(seed);
  testing::TempDir folder;
  auto io = kj::setupAsyncIo();
  kernelio::RealEnvOptions options;
  options.dataFolder = folder.path().c_str();
  options.workerThreads = 2;
  auto env = kernelio::makeRealEnv(io, options);
  auto store = openRocksStateStore(env->env(), "state", {}).wait(io.waitScope);
  kernelio::SeededRandom random(seed);
  std::map<std::string, std::string> model;
  struct Taken {
    std::shared_ptr<const StateReader> reader;
    std::map<std::string, std::string> model;
  };
  std::vector<Taken> snapshots;
  auto dump = [](const StateReader& reader) {
    std::map<std::string, std::string> rows;
    reader.scan(refOf(""), {}, [&](std::string_view key, std::string_view value) {
      rows.emplace(key, value);
      return true;
    });
    return rows;
  };
  for (uint64_t step = 1; step <= 400; ++step) {
    auto batch = store->newBatch();
    if (random.below(50) == 0) {
      batch->erasePrefix(refOf(""));
      model.clear();
    }
    for (uint64_t i = random.below(4); i > 0; --i) {
      const std::string key = refOf(std::to_string(random.below(20)).c_str());
      if (random.below(3) == 0) {
        batch->erase(key);
        model.erase(key);
      } else {
        const std::string value = std::to_string(step);
        batch->put(key, value);
        model[key] = value;
      }
    }
    store->write(kj::mv(batch), replicator::LogPosition{replicator::RecordIndex(step), {}, {}});
    ASSERT_EQ(dump(*store), model) << step;
    if (random.below(5) == 0) snapshots.push_back({store->snapshot(), model});
    for (const auto& taken : snapshots) {
      std::string value;
      const std::string key = refOf(std::to_string(random.below(20)).c_str());
      auto row = taken.model.find(key);
      ASSERT_EQ(taken.reader->get(key, value), row != taken.model.end()) << step;
      ASSERT_EQ(value, row == taken.model.end() ? "" : row->second) << step;
    }
    if (step % 20 == 0) {
      for (const auto& taken : snapshots) ASSERT_EQ(dump(*taken.reader), taken.model) << step;
      if (snapshots.size() > 10) snapshots.erase(snapshots.begin(), snapshots.begin() + 5);
    }
  }
}

}  // namespace
}  // namespace packmoor::gitlayer
