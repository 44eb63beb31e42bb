// Goal: both state stores keep the same promises: batches whole or not at all, order, snapshots
// that do not move, and after a crash a state that is exactly as of some position, not older than
// the last flush. Method: one suite over both; RocksDB on real files, closed without a flush as a
// kill would leave it; the map on a simulated disk.
#include "state_store.h"

#include <kernelio/real_env.h>
#include <kernelio/sim_env.h>
#include <support/small_disk.h>
#include <support/temp_dir.h>

#include <gmock/gmock.h>
#include <gtest/gtest.h>

namespace packmoor::gitlayer {
namespace {

replicator::LogPosition at(uint64_t index) {
  replicator::LogPosition position;
  position.index = replicator::RecordIndex(index);
  position.epoch = replicator::Epoch(3);
  position.hash = replicator::Hash128{index, ~index};
  return position;
}

class Ground {
 public:
  virtual ~Ground() noexcept(false) {}
  virtual kj::WaitScope& scope() = 0;
  virtual kj::Own<StateStore> open() = 0;
  virtual kernelio::Env& env() = 0;
  virtual void crash() = 0;  // the store is gone already
  std::shared_ptr<StateDamage> damage = std::make_shared<StateDamage>();
};

class RocksGround final : public Ground {
 public:
  explicit RocksGround(const std::string& folder = std::string()) {
    const std::string root = folder.empty() ? folder_.path() : folder;
    kernelio::RealEnvOptions options;
    options.dataFolder = root.c_str();
    options.workerThreads = 2;
    env_ = kernelio::makeRealEnv(io_, options);
  }
  kj::WaitScope& scope() override { return io_.waitScope; }
  kj::Own<StateStore> open() override {
    options.damage = damage;
    return openRocksStateStore(env_->env(), "volumes/v/state", options).wait(scope());
  }
  StateStoreOptions options;
  // The names of files there that begin, and end, so.
  std::vector<std::string> filesNamed(std::string_view begin, std::string_view end) {
    std::vector<std::string> paths;
    auto names = env_->env().disk.list("volumes/v/state").wait(scope());
    for (const auto& name : names) {
      if (name.startsWith(std::string(begin).c_str()) && name.endsWith(std::string(end).c_str())) {
        paths.push_back(std::string("volumes/v/state/") + name.cStr());
      }
    }
    return paths;
  }
  // Flips a bit of a file, as the disk has it.
  void flip(const std::string& path, uint64_t at) {
    kernelio::OpenOptions options;
    options.write = true;
    auto file = env_->env().disk.open(path.c_str(), options).wait(scope());
    auto byte = file->read(at, 1).wait(scope());
    auto flipped = kernelio::IoBuffer::allocate(1);
    *flipped.begin() = static_cast<kj::byte>(*byte.begin() ^ 0x10);
    file->write(at, kj::mv(flipped), kernelio::WriteMode::kDurable).wait(scope());
  }
  kernelio::Env& env() override { return env_->env(); }
  void crash() override {}

 private:
  testing::TempDir folder_;
  kj::AsyncIoContext io_ = kj::setupAsyncIo();
  kj::Own<kernelio::RealEnv> env_;
};

class MapGround final : public Ground {
 public:
  kj::WaitScope& scope() override { return loop_.waitScope(); }
  kj::Own<StateStore> open() override {
    return openMapStateStore(env_->env(), "volumes/v/state.map", damage).wait(scope());
  }
  kernelio::Env& env() override { return env_->env(); }
  void crash() override {
    env_ = nullptr;
    storage_.cutPower();
    storage_.crash();
    env_ = kj::heap<kernelio::SimEnv>(loop_, storage_, 2);
  }

 private:
  kernelio::VirtualLoop loop_;
  kernelio::SimStorage storage_{1};
  kj::Own<kernelio::SimEnv> env_ = kj::heap<kernelio::SimEnv>(loop_, storage_, 1);
};

class StateStoreTest : public ::testing::TestWithParam<const char*> {
 public:
  ~StateStoreTest() noexcept {}

 protected:
  void SetUp() override {
    if (std::string(GetParam()) == "rocks") {
      ground = kj::heap<RocksGround>();
    } else {
      ground = kj::heap<MapGround>();
    }
    damage = ground->damage;
    store = ground->open();
  }
  void reopen() {
    store = nullptr;
    ground->crash();
    store = ground->open();
  }
  void put(uint64_t position, std::string_view key, std::string_view value) {
    auto batch = store->newBatch();
    batch->put(key, value);
    store->write(kj::mv(batch), at(position));
  }
  std::string get(const StateReader& reader, std::string_view key) {
    std::string value = "-";
    EXPECT_EQ(reader.get(key, value), reader.exists(key));
    return value;
  }
  std::string scan(const StateReader& reader, std::string_view prefix, std::string_view from = {}) {
    std::string all;
    reader.scan(prefix, from, [&](std::string_view key, std::string_view value) {
      all.append(key).append("=").append(value).append(" ");
      return true;
    });
    return all;
  }

  kj::Own<Ground> ground;
  kj::Own<StateStore> store;
  std::shared_ptr<StateDamage> damage;
};

// What is not flushed is in a checkpoint, too; what comes later is not.
TEST_P(StateStoreTest, ACheckpointIsTheStateAsItWas) {
  put(1, "a", "1");
  store->flush().wait(ground->scope());
  put(2, "b", "2");
  store->checkpoint("taken").wait(ground->scope());
  put(3, "b", "3");
  put(4, "c", "4");
  auto names = ground->env().disk.list("taken").wait(ground->scope());
  EXPECT_GT(names.size(), 0u);
  auto copy = openStateStore(ground->env(), "taken", {}).wait(ground->scope());
  EXPECT_EQ(copy->position(), at(2));
  EXPECT_EQ(get(*copy, "a"), "1");
  EXPECT_EQ(get(*copy, "b"), "2");
  EXPECT_EQ(get(*copy, "c"), "-");
  EXPECT_EQ(get(*store, "b"), "3");
}

TEST_P(StateStoreTest, PutsErasesAndScansInOrder) {
  EXPECT_EQ(store->position(), replicator::LogPosition());
  auto batch = store->newBatch();
  batch->put("k2", "two");
  batch->put("k1", "o", "ne");
  batch->put("k\xff", "high");
  batch->put("l", "behind");
  batch->put("k3", "");
  EXPECT_GT(batch->bytes(), 0u);
  store->write(kj::mv(batch), at(1));
  EXPECT_EQ(store->position(), at(1));
  EXPECT_EQ(get(*store, "k1"), "one");
  EXPECT_EQ(get(*store, "k3"), "");
  EXPECT_EQ(get(*store, "k"), "-");
  EXPECT_EQ(scan(*store, "k"), "k1=one k2=two k3= k\xff=high ");
  EXPECT_EQ(scan(*store, "k", "k2"), "k2=two k3= k\xff=high ");
  EXPECT_EQ(scan(*store, "k", "a"), "k1=one k2=two k3= k\xff=high ");
  EXPECT_EQ(scan(*store, "k", "z"), "");
  EXPECT_EQ(scan(*store, "k\xff"), "k\xff=high ");
  int calls = 0;
  store->scan("k", {}, [&](std::string_view, std::string_view) { return ++calls < 2; });
  EXPECT_EQ(calls, 2);

  batch = store->newBatch();
  batch->erase("k2");
  batch->erase("absent");
  batch->put("k1", "uno");
  store->write(kj::mv(batch), at(2));
  EXPECT_EQ(scan(*store, "k"), "k1=uno k3= k\xff=high ");
}

TEST_P(StateStoreTest, ErasesPrefixesInTheOrderOfTheBatch) {
  put(1, "f1a", "x");
  put(2, "f1b", "x");
  put(3, "f2a", "x");
  put(4, "f0\xff", "x");
  auto batch = store->newBatch();
  batch->put("f1c", "gone");
  batch->erasePrefix("f1");
  batch->put("f1d", "stays");
  store->write(kj::mv(batch), at(5));
  EXPECT_EQ(scan(*store, "f"), "f0\xff=x f1d=stays f2a=x ");
  batch = store->newBatch();
  batch->erasePrefix("f0\xff");
  store->write(kj::mv(batch), at(6));
  EXPECT_EQ(scan(*store, "f"), "f1d=stays f2a=x ");
}

TEST_P(StateStoreTest, SnapshotsStay) {
  put(1, "a", "1");
  auto before = store->snapshot();
  put(2, "a", "2");
  put(3, "b", "3");
  EXPECT_EQ(get(*before, "a"), "1");
  EXPECT_EQ(scan(*before, "b"), "");
  EXPECT_EQ(decodePosition(get(*before, kPositionKey)), at(1));
  EXPECT_EQ(get(*store, "a"), "2");
  store = nullptr;
  EXPECT_EQ(get(*before, "a"), "1") << "a snapshot outlives its store";
}

TEST_P(StateStoreTest, KeepsWhatWasFlushed) {
  put(1, "a", "1");
  put(2, "b", "2");
  EXPECT_GT(store->unflushedBytes(), 0u);
  store->flush().wait(ground->scope());
  EXPECT_EQ(store->unflushedBytes(), 0u);
  put(3, "b", "3");
  put(4, "c", "4");
  reopen();
  EXPECT_EQ(store->position(), at(2));
  EXPECT_EQ(scan(*store, "a"), "a=1 ");
  EXPECT_EQ(scan(*store, "b"), "b=2 ");
  EXPECT_EQ(scan(*store, "c"), "");
  store->flush().wait(ground->scope());
  reopen();
  EXPECT_EQ(store->position(), at(2));
}

TEST_P(StateStoreTest, IsAlwaysAtOnePosition) {
  // Large enough that RocksDB writes files of its own accord.
  const std::string large(700'000, 'x');
  const uint64_t batches = std::string(GetParam()) == "rocks" ? 120 : 10;
  for (uint64_t i = 1; i <= batches; ++i) {
    auto batch = store->newBatch();
    batch->put("a", std::to_string(i));
    batch->put("large" + std::to_string(i % 7), large);
    batch->put("z", std::to_string(i));
    store->write(kj::mv(batch), at(i));
    if (i == 5) store->flush().wait(ground->scope());
  }
  reopen();
  const uint64_t position = store->position().index.value;
  EXPECT_GE(position, 5u);
  EXPECT_EQ(store->position(), at(position));
  EXPECT_EQ(get(*store, "a"), std::to_string(position));
  EXPECT_EQ(get(*store, "z"), std::to_string(position));
}

// Reads every file there is, and returns how many bytes that took.
uint64_t verifyAll(StateStore& store, kj::WaitScope& scope) {
  uint64_t paced = 0;
  replicator::Pace pace = [&paced](uint64_t bytes) -> kj::Promise<void> {
    paced += bytes;
    return kj::READY_NOW;
  };
  for (const auto& file : store.files()) store.verify(file.name, pace).wait(scope);
  return paced;
}

TEST_P(StateStoreTest, FilesThatAreWholeVerify) {
  put(1, "a", std::string(600'000, 'x'));
  store->flush().wait(ground->scope());
  EXPECT_GT(verifyAll(*store, ground->scope()), 600'000u);
  EXPECT_EQ(damage->text(), "");
}

INSTANTIATE_TEST_SUITE_P(Both, StateStoreTest, ::testing::Values("map", "rocks"),
                         [](const auto& info) { return std::string(info.param); });

TEST(RocksStateStore, SaysThatAnotherProcessHasIt) {
  RocksGround ground;
  auto store = ground.open();
  auto error = kj::runCatchingExceptions([&]() { ground.open(); });
  const std::string text = KJ_ASSERT_NONNULL(error).getDescription().cStr();
  EXPECT_NE(text.find("volumes/v/state"), std::string::npos) << text;
  EXPECT_NE(text.find("Another process may have this data directory open."), std::string::npos)
      << text;
}

// Wherever in a table the bit is: in rows, in its index, in its footer.
TEST(RocksStateStore, AFlippedBitOfATableIsFoundByReadingItForThat) {
  for (int part = 0; part < 4; ++part) {
    RocksGround ground;
    auto store = ground.open();
    for (int i = 0; i < 100; ++i) {
      auto batch = store->newBatch();
      batch->put("k" + std::to_string(i), std::string(5000, static_cast<char>('a' + part)));
      store->write(kj::mv(batch), at(static_cast<uint64_t>(i) + 1));
    }
    store->flush().wait(ground.scope());
    verifyAll(*store, ground.scope());
    ASSERT_EQ(ground.damage->text(), "");
    const auto tables = ground.filesNamed("", ".sst");
    ASSERT_EQ(tables.size(), 1u);
    auto file = ground.env().disk.open(tables[0].c_str(), {}).wait(ground.scope());
    ground.flip(tables[0], (file->size() - 1) * static_cast<uint64_t>(part) / 3);
    verifyAll(*store, ground.scope());
    EXPECT_NE(ground.damage->text().find("table "), std::string::npos) << ground.damage->text();
    EXPECT_NE(ground.damage->text().find("is damaged: its checksum differs"), std::string::npos);
  }
}

TEST(RocksStateStore, AFlippedBitOfItsCatalogueIsFound) {
  RocksGround ground;
  auto store = ground.open();
  for (uint64_t i = 1; i <= 5; ++i) {
    auto batch = store->newBatch();
    batch->put("k", std::to_string(i));
    store->write(kj::mv(batch), at(i));
    store->flush().wait(ground.scope());
  }
  const auto manifests = ground.filesNamed("MANIFEST-", "");
  ASSERT_EQ(manifests.size(), 1u);
  ground.flip(manifests[0], 40);
  verifyAll(*store, ground.scope());
  EXPECT_NE(ground.damage->text().find("catalogue"), std::string::npos) << ground.damage->text();
  // So does an opening, and says it to whoever asks what was wrong.
  store = nullptr;
  ground.damage = std::make_shared<StateDamage>();
  EXPECT_ANY_THROW(ground.open());
  EXPECT_NE(ground.damage->text().find("while being opened"), std::string::npos);
}

// What is read for use is never wrong, whether anybody looked before or not.
TEST(RocksStateStore, AFlippedBitIsNotServed) {
  RocksGround ground;
  auto store = ground.open();
  const std::string value(20'000, 'x');
  for (uint64_t i = 1; i <= 20; ++i) {
    auto batch = store->newBatch();
    batch->put("k" + std::to_string(i), value);
    store->write(kj::mv(batch), at(i));
  }
  store->flush().wait(ground.scope());
  store = nullptr;
  ground.flip(ground.filesNamed("", ".sst").at(0), 100'000);
  store = ground.open();
  int failed = 0;
  for (uint64_t i = 1; i <= 20; ++i) {
    std::string read;
    auto failure = kj::runCatchingExceptions([&]() { store->get("k" + std::to_string(i), read); });
    if (failure == nullptr) {
      EXPECT_EQ(read, value);
    } else {
      ++failed;
    }
  }
  EXPECT_EQ(failed, 1);
  EXPECT_NE(ground.damage->text().find("while reading"), std::string::npos) << ground.damage->text();
}

// Also of what RocksDB writes for itself: whatever it meets, the process goes on.
TEST(RocksStateStore, OnAFullDiskItRefusesUntilThereIsRoomAndGoesOn) {
  testing::SmallDisk disk(64u << 20);
  if (!disk.made()) GTEST_SKIP() << "making a file system needs root";
  RocksGround ground(disk.path());
  ground.options.writeBufferBytes = 1u << 20;
  auto store = ground.open();
  uint64_t written = 0;
  // A row that becomes durable; or why it does not.
  auto attempt = [&]() {
    return kj::runCatchingExceptions([&]() {
      auto batch = store->newBatch();
      batch->put("k" + std::to_string(written + 1), std::string(100'000, 'x'));
      store->write(kj::mv(batch), at(written + 1));
      store->flush().wait(ground.scope());
      ++written;
    });
  };
  for (int round = 0; round < 2; ++round) {
    for (int refusals = 0; refusals < 6;) {
      disk.fill();   // again and again: files that are needed no more are removed meanwhile
      auto refused = attempt();
      KJ_IF_MAYBE(refusal, refused) {
        ++refusals;
        EXPECT_EQ(refusal->getType(), kj::Exception::Type::OVERLOADED);
        EXPECT_THAT(refusal->getDescription().cStr(),
                    ::testing::HasSubstr("The disk is full: make room"));
        store->resume().wait(ground.scope());
      }
    }
    disk.makeRoom();
    while (attempt() != nullptr) {
      ground.env().timer.afterDelay(100 * kj::MILLISECONDS).wait(ground.scope());
      store->resume().wait(ground.scope());
    }
  }
  EXPECT_EQ(ground.damage->text(), "");
  store = nullptr;
  store = ground.open();
  EXPECT_EQ(store->position(), at(written));
  std::string value;
  for (uint64_t i = 1; i <= written; ++i) EXPECT_TRUE(store->get("k" + std::to_string(i), value));
}

TEST(MapStateStore, RefusesADamagedFile) {
  kernelio::VirtualLoop loop;
  kernelio::SimStorage storage(1);
  kernelio::SimEnv env(loop, storage, 1);
  auto store = openMapStateStore(env.env(), "s.map").wait(loop.waitScope());
  auto batch = store->newBatch();
  batch->put("a", "1");
  store->write(kj::mv(batch), at(1));
  store->flush().wait(loop.waitScope());
  auto content = kernelio::readWholeFile(env.disk(), "s.map", 1 << 20).wait(loop.waitScope());
  auto bytes = kj::mv(KJ_ASSERT_NONNULL(content));
  bytes[12] ^= 1;
  kernelio::replaceFile(env.disk(), "s.map", bytes).wait(loop.waitScope());
  EXPECT_ANY_THROW(openMapStateStore(env.env(), "s.map").wait(loop.waitScope()));
}

TEST(StateStoreKeys, EndOfPrefix) {
  EXPECT_EQ(endOfPrefix("ab"), "ac");
  EXPECT_EQ(endOfPrefix("a\xff\xff"), "b");
  EXPECT_EQ(endOfPrefix("\xff"), "");
  EXPECT_EQ(endOfPrefix(""), "");
}

}  // namespace
}  // namespace packmoor::gitlayer
