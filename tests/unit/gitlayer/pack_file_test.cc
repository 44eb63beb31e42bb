// Goal: packs made by git are read exactly, whole and by entry, with every kind of delta; damage
// is met with a sentence and never with wrong bytes. Method: git makes repositories and packs;
// its own cat-file is the judge. Files lie in sealed extents of a real disk.
#include "pack_file.h"

#include "pack_store.h"

#include "gitlayer/zlib_codec.h"

#include <kernelio/real_env.h>
#include <support/git_process.h>

#include <gtest/gtest.h>

#include <filesystem>
#include <sstream>
#include <thread>

namespace packmoor::gitlayer {
namespace {

using packmoor::test::TestGit;

// Extents of a real disk.
class PackFileTest : public testing::Test {
 public:
  ~PackFileTest() noexcept {}

 protected:
  packmoor::test::TempFolder folder;
  kj::AsyncIoContext io = kj::setupAsyncIo();
  kj::Own<kernelio::RealEnv> real;
  kj::Own<replicator::ExtentStore> extents;
  TestGit git;

  void SetUp() override {
    kernelio::RealEnvOptions options;
    options.dataFolder = folder.path().c_str();
    options.workerThreads = 2;
    real = kernelio::makeRealEnv(io, options);
    extents = replicator::ExtentStore::open(real->env(), {}).wait(io.waitScope);
  }

  replicator::ExtentId seal(uint8_t number, std::string_view content) {
    replicator::ExtentId id;
    id.bytes[0] = number;
    auto writer = extents->begin(id).wait(io.waitScope);
    for (uint64_t at = 0, block = 0; at < content.size(); ++block) {
      auto part = bytesOf(content.substr(at, replicator::kBlockBytes));
      writer
          ->writeBlock(block, kernelio::IoBuffer::copyOf(part), replicator::hashBytes(part))
          .wait(io.waitScope);
      at += part.size();
    }
    writer->seal(content.size(), nullptr).wait(io.waitScope);
    return id;
  }

  // History with texts that make deltas, a large blob, an annotated tag and an empty file.
  void makeHistory() {
    std::string text;
    for (int i = 0; i < 400; ++i) text += "line " + std::to_string(i) + " of the file\n";
    for (int i = 0; i < 12; ++i) {
      git.commit("file.txt", text + std::string(i, '+') + "\n", "change " + std::to_string(i));
      text.insert(text.size() / 2, "inserted " + std::to_string(i) + "\n");
    }
    std::string noise(900'000, '\0');
    uint32_t state = 1;
    for (char& c : noise) c = static_cast<char>((state = state * 1664525 + 1013904223) >> 24);
    git.commit("noise.bin", noise);
    git.commit("empty", "");
    git.run({"tag", "-a", "-m", "a tag", "v1"});
  }
  // Packs everything; `options` are those of pack-objects.
  PackRow pack(const std::vector<std::string>& options) {
    std::vector<std::string> command = {"pack-objects", "--all", "--revs", "-q", "made"};
    command.insert(command.end() - 1, options.begin(), options.end());
    const std::string name = git.line(command);
    const std::string base = git.path() + "/made-" + name;
    PackRow row;
    const std::string content = packmoor::test::readFile(base + ".pack");
    row.pack = seal(1, content);
    row.index = seal(2, packmoor::test::readFile(base + ".idx"));
    row.packBytes = content.size();
    const auto count = git.line({"show-index"}, packmoor::test::readFile(base + ".idx"));
    row.objectCount = static_cast<uint32_t>(std::count(count.begin(), count.end(), '\n') + 1);
    return row;
  }
  std::vector<ObjectId> allObjects() {
    std::vector<ObjectId> ids;
    std::istringstream lines(git.run({"cat-file", "--batch-all-objects", "--batch-check"}));
    for (std::string line; std::getline(lines, line);) {
      EXPECT_TRUE(ObjectId::parseHex(line.substr(0, kOidHexChars), ids.emplace_back()));
    }
    return ids;
  }
  // Every object read whole, by header and by stored entry agrees with its name.
  void expectAllReadable(PackFile& file) {
    size_t deltas = 0;
    Inflater inflater;
    for (const auto& id : allObjects()) {
      ASSERT_TRUE(file.exists(id));
      auto maybe = file.read(id);
      const auto& object = KJ_ASSERT_NONNULL(maybe);
      EXPECT_EQ(hashObject(object.type, object.data), id);
      auto header = KJ_ASSERT_NONNULL(file.header(id));
      EXPECT_EQ(header.type, object.type);
      EXPECT_EQ(header.bytes, object.data.size());
      auto stored = KJ_ASSERT_NONNULL(file.stored(id));
      auto inflated = kj::heapArray<kj::byte>(stored.bytes);
      size_t consumed = 0;
      ASSERT_TRUE(inflater.inflate(stored.deflated, inflated, consumed));
      EXPECT_EQ(consumed, stored.deflated.size());
      if (stored.form == StoredEntry::Form::kWhole) {
        EXPECT_EQ(inflated, object.data);
        continue;
      }
      ++deltas;
      auto base = KJ_ASSERT_NONNULL(file.read(stored.base));
      auto result = kj::heapArray<kj::byte>(object.data.size());
      ASSERT_TRUE(applyDelta(base.data, inflated, result));
      EXPECT_EQ(result, object.data);
    }
    EXPECT_GT(deltas, 5u);
    ObjectId absent;
    absent.bytes[3] = 1;
    EXPECT_FALSE(file.exists(absent));
    EXPECT_TRUE(file.read(absent) == nullptr);
    EXPECT_TRUE(file.header(absent) == nullptr);
    EXPECT_TRUE(file.stored(absent) == nullptr);
  }
  std::string fileOf(const replicator::ExtentId& id) {
    return folder.path() + "/" + extents->path(id).cStr();
  }
  // Changes one byte of a sealed file behind the store's back.
  void damage(const replicator::ExtentId& id, uint64_t offset) {
    std::string content = packmoor::test::readFile(fileOf(id));
    content[offset] = static_cast<char>(content[offset] ^ 0x40);
    std::filesystem::permissions(fileOf(id), std::filesystem::perms::owner_all);
    packmoor::test::writeFile(fileOf(id), content);
  }
};

std::string problemOf(kj::FunctionParam<void()> action) {
  auto exception = kj::runCatchingExceptions([&]() { action(); });
  KJ_IF_MAYBE(e, exception) { return e->getDescription().cStr(); }
  return "";
}

TEST_F(PackFileTest, ReadsOffsetDeltas) {
  makeHistory();
  PackStore store(real->env(), *extents);
  auto file = store.get(pack({"--delta-base-offset"}));
  expectAllReadable(*file);
  file->verify();
}

TEST_F(PackFileTest, ReadsNamedDeltas) {
  makeHistory();
  PackStore store(real->env(), *extents);
  auto file = store.get(pack({"--no-delta-base-offset"}));
  expectAllReadable(*file);
}

TEST_F(PackFileTest, ReadsFromManyThreads) {
  makeHistory();
  PackStore store(real->env(), *extents);
  auto file = store.get(pack({"--delta-base-offset"}));
  const auto ids = allObjects();
  std::atomic<size_t> wrong{0};
  std::vector<std::thread> threads;
  for (size_t t = 0; t < 4; ++t) {
    threads.emplace_back([&, t]() {
      for (size_t i = 0; i < ids.size(); ++i) {
        const auto& id = ids[(i * (t + 1)) % ids.size()];
        auto object = file->read(id);
        auto stored = file->stored(id);
        if (object == nullptr || stored == nullptr) {
          ++wrong;
        } else if (hashObject(KJ_ASSERT_NONNULL(object).type, KJ_ASSERT_NONNULL(object).data) !=
                   id) {
          ++wrong;
        }
      }
    });
  }
  for (auto& thread : threads) thread.join();
  EXPECT_EQ(wrong, 0u);
}

TEST_F(PackFileTest, ShowsWholePack) {
  makeHistory();
  PackStore store(real->env(), *extents);
  const PackRow row = pack({});
  auto view = PackFile::view(store.get(row));
  EXPECT_EQ(view.objectCount, row.objectCount);
  EXPECT_EQ(view.bytes.size(), row.packBytes);
  view.need(0, view.bytes.size());
  view.needIndex(0, view.index.size());
  EXPECT_EQ(textOf(view.bytes), packmoor::test::readFile(fileOf(row.pack)));
  EXPECT_NE(problemOf([&]() { view.need(view.bytes.size(), 1); }), "");
}

TEST_F(PackFileTest, SaysWhichBlockIsDamaged) {
  makeHistory();
  const PackRow row = pack({});
  ASSERT_GT(row.packBytes, 2 * replicator::kBlockBytes + 100);
  damage(row.pack, 2 * replicator::kBlockBytes + 50);
  PackStore store(real->env(), *extents);
  auto file = store.get(row);
  size_t bad = 0, good = 0;
  for (const auto& id : allObjects()) {
    const std::string problem = problemOf([&]() {
      auto object = file->read(id);
      EXPECT_EQ(hashObject(KJ_ASSERT_NONNULL(object).type, KJ_ASSERT_NONNULL(object).data), id);
    });
    problem.empty() ? ++good : ++bad;
    if (!problem.empty()) {
      EXPECT_EQ(problem, kj::str("The pack ", row.pack, " is damaged: block 2 does not have the "
                                 "checksum that it was sealed with.").cStr());
    }
  }
  EXPECT_GT(bad, 0u);
  EXPECT_GT(good, 0u) << "what is not in the damaged block is still read";
  EXPECT_NE(problemOf([&]() { file->verify(); }).find("block 2"), std::string::npos);
}

// Where another member has the block, a thread that reads it sees no damage.
TEST_F(PackFileTest, HasABadBlockMended) {
  makeHistory();
  const PackRow row = pack({});
  const std::string whole = packmoor::test::readFile(fileOf(row.pack));
  for (uint64_t block : {0, 2}) damage(row.pack, block * replicator::kBlockBytes + 50);
  damage(row.index, 100);
  size_t asked = 0;
  extents->setBlockSource(replicator::ExtentStore::BlockSource(
      [&](replicator::ExtentId id, uint64_t block) -> kj::Promise<kernelio::IoBuffer> {
        ++asked;
        KJ_REQUIRE(id == row.pack, "nobody has the index");
        const auto part = std::string_view(whole).substr(block * replicator::kBlockBytes,
                                                         replicator::kBlockBytes);
        return kernelio::IoBuffer::copyOf(bytesOf(part));
      }));
  PackStore store(real->env(), *extents);
  auto file = store.get(row);
  auto ids = allObjects();
  auto readAll = [file, ids]() {
    for (const auto& id : ids) {
      auto object = file->read(id);
      EXPECT_EQ(hashObject(KJ_ASSERT_NONNULL(object).type, KJ_ASSERT_NONNULL(object).data), id);
    }
  };
  // What nobody has stays bad, and nothing is read by a wrong index.
  EXPECT_NE(problemOf([&]() { real->env().workers.run(readAll).wait(io.waitScope); })
                .find("is damaged: block 0"), std::string::npos);
  damage(row.index, 100);  // the same bit again
  // The loop's own thread does not wait for itself, but what it has found is mended.
  EXPECT_NE(problemOf(readAll).find("is damaged: block 0"), std::string::npos);
  while (extents->statistics().blocksRepaired == 0) {
    real->env().timer.afterDelay(1 * kj::MILLISECONDS).wait(io.waitScope);
  }
  EXPECT_EQ(asked, 2u);  // for the index's and the pack's first block
  real->env().workers.run(readAll).wait(io.waitScope);
  EXPECT_EQ(extents->statistics().blocksRepaired, 2u);
  EXPECT_EQ(packmoor::test::readFile(fileOf(row.pack)), whole);
}

TEST_F(PackFileTest, SaysThatAFileIsGoneOrShort) {
  makeHistory();
  const PackRow row = pack({});
  const ObjectId id = allObjects()[0];
  PackStore store(real->env(), *extents);
  std::filesystem::resize_file(fileOf(row.pack), row.packBytes - 1);
  EXPECT_NE(problemOf([&]() { store.get(row)->exists(id); }).find("does not have the size"),
            std::string::npos);
  std::filesystem::remove(fileOf(row.pack));
  EXPECT_NE(problemOf([&]() { store.get(row)->exists(id); }).find("cannot be opened"),
            std::string::npos);
  PackRow absent = row;
  absent.pack.bytes[5] = 7;
  EXPECT_NE(problemOf([&]() { store.get(absent)->exists(id); }).find("not on this node"),
            std::string::npos);
}

TEST_F(PackFileTest, RefusesAnIndexOfAnotherPack) {
  makeHistory();
  PackRow row = pack({});
  auto entries = std::vector<PackIndexEntry>();
  for (const auto& id : allObjects()) entries.push_back({id, 0, 12});
  entries.resize(row.objectCount);
  auto other = buildPackIndex(kj::arrayPtr(entries.data(), entries.size()), ObjectId());
  row.index = seal(9, textOf(other));
  PackStore store(real->env(), *extents);
  EXPECT_NE(problemOf([&]() { store.get(row)->exists(entries[0].id); }).find("another pack"),
            std::string::npos);
}

TEST_F(PackFileTest, KeepsABoundedNumberOpen) {
  PackStore store(real->env(), *extents);
  PackRow row;
  row.pack = seal(1, "x");
  row.index = seal(2, "x");
  auto first = store.get(row);
  EXPECT_EQ(store.get(row), first);
  EXPECT_EQ(store.openPacks(), 1u);
  store.forget(row.pack);
  EXPECT_EQ(store.openPacks(), 0u);
}

TEST(PackIndexTest, WritesWhatGitWrites) {
  TestGit git;
  for (int i = 0; i < 30; ++i) git.commit("file", "content " + std::to_string(i));
  const std::string name = git.line({"pack-objects", "--all", "--revs", "-q", "made"});
  const std::string content = packmoor::test::readFile(git.path() + "/made-" + name + ".idx");
  PackIndex index(CheckedBytes::inMemory(
      kj::heapArray<const kj::byte>(bytesOf(content).begin(), content.size()), "index"));
  std::vector<PackIndexEntry> entries;
  for (uint32_t i = 0; i < index.count(); ++i) {
    entries.push_back({index.name(i), index.crc(i), index.offset(i)});
    EXPECT_EQ(index.find(index.name(i)), i);
  }
  auto again = buildPackIndex(kj::arrayPtr(entries.data(), entries.size()), index.packChecksum());
  EXPECT_EQ(textOf(again), content);
}

TEST(PackIndexTest, LargeOffsets) {
  std::vector<PackIndexEntry> entries(3);
  for (uint8_t i = 0; i < 3; ++i) entries[i].id.bytes[0] = static_cast<uint8_t>(0x20 + i);
  entries[0].offset = 0x7fffffff;
  entries[1].offset = 0x80000000;
  entries[2].offset = 0x123456789abcull;
  PackIndex index(CheckedBytes::inMemory(
      buildPackIndex(kj::arrayPtr(entries.data(), entries.size()), ObjectId()), "index"));
  for (uint32_t i = 0; i < 3; ++i) EXPECT_EQ(index.offset(i), entries[i].offset);
}

TEST(DeltaBaseCacheTest, KeepsTheNewestWithinItsBound) {
  DeltaBaseCache cache(10'000);
  auto object = [](size_t bytes) {
    auto result = std::make_shared<Object>();
    result->data = kj::heapArray<kj::byte>(bytes);
    return result;
  };
  for (uint64_t i = 0; i < 20; ++i) {
    cache.add(1, i, object(1000));
    EXPECT_NE(cache.find(1, 0), nullptr) << "what is used stays";
  }
  EXPECT_LE(cache.bytes(), 10'000u);
  EXPECT_EQ(cache.find(1, 1), nullptr);
  EXPECT_NE(cache.find(1, 19), nullptr);
  cache.add(2, 1, object(5000));
  EXPECT_EQ(cache.find(2, 1), nullptr) << "too large for the cache";
}

}  // namespace
}  // namespace packmoor::gitlayer
