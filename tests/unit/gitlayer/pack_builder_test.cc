// Goal: packs are what git takes, strictly, whatever deltas the stored entries are, and cost no
// compression where copying will do. Method: sources with hand-made entries; git index-pack.
#include "gitlayer/pack_builder.h"

#include "random_history.h"

#include <gtest/gtest.h>
#include <kj/debug.h>
#include <support/git_process.h>

#include <algorithm>

namespace packmoor::gitlayer::test {
namespace {

using packmoor::test::TestGit;

kj::ArrayPtr<const kj::byte> bytesOf(const std::string& text) {
  return kj::arrayPtr(reinterpret_cast<const kj::byte*>(text.data()), text.size());
}

class StringSink final : public PackSink {
 public:
  void write(kj::ArrayPtr<const kj::byte> bytes) override {
    text.append(bytes.asChars().begin(), bytes.size());
  }
  std::string text;
};

std::string varint(size_t value) {
  std::string result;
  for (; value >= 0x80; value >>= 7) result += static_cast<char>(0x80 | (value & 0x7f));
  return result + static_cast<char>(value);
}

// A delta that takes nothing from its base.
std::string deltaOf(const std::string& base, const std::string& text) {
  std::string delta = varint(base.size()) + varint(text.size());
  for (size_t at = 0; at < text.size(); at += 127) {
    std::string piece = text.substr(at, 127);
    delta += static_cast<char>(piece.size()) + piece;
  }
  return delta;
}

// Blobs; each may be stored as a delta against another.
class BlobSource final : public ObjectSource {
 public:
  ObjectId add(const std::string& text) {
    ObjectId id = hashObject(ObjectType::kBlob, bytesOf(text));
    blobs_[id].text = text;
    return id;
  }
  void storeAsDelta(const ObjectId& id, const ObjectId& base) { blobs_.at(id).base = base; }
  void forget(const ObjectId& id) { blobs_.erase(id); }
  const std::string& textOf(const ObjectId& id) const { return blobs_.at(id).text; }

  bool exists(const ObjectId& id) override { return blobs_.count(id) > 0; }
  kj::Maybe<ObjectHeader> header(const ObjectId& id) override {
    if (!exists(id)) return nullptr;
    return ObjectHeader{ObjectType::kBlob, blobs_[id].text.size()};
  }
  kj::Maybe<Object> read(const ObjectId& id) override {
    if (!exists(id)) return nullptr;
    return Object{ObjectType::kBlob, kj::heapArray(bytesOf(blobs_[id].text))};
  }
  kj::Maybe<StoredEntry> stored(const ObjectId& id) override {
    if (!exists(id)) return nullptr;
    StoredEntry entry;
    Blob& blob = blobs_[id];
    std::string data = blob.text;
    entry.type = ObjectType::kBlob;
    if (!blob.base.isZero()) {
      entry.form = StoredEntry::Form::kDelta;
      entry.type = ObjectType::kNone;
      entry.base = blob.base;
      data = deltaOf(blobs_.at(blob.base).text, blob.text);
    }
    entry.bytes = data.size();
    auto deflated = std::make_shared<kj::Array<const kj::byte>>(Deflater().deflate(bytesOf(data)));
    entry.deflated = *deflated;
    entry.keepAlive = std::move(deflated);
    return entry;
  }
  std::vector<PackView> packs() override { return {}; }
  std::vector<ObjectId> hotObjects() override { return {}; }

 private:
  struct Blob {
    std::string text;
    ObjectId base;
  };
  std::map<ObjectId, Blob> blobs_;
};

class PackBuilderTest : public ::testing::Test {
 protected:
  ~PackBuilderTest() noexcept override {}
  std::string build(const std::vector<ObjectId>& objects, PackOptions options,
                    const std::vector<ObjectId>& clientHas = {}, size_t piece = 1 << 20) {
    PackPlan plan;
    for (const ObjectId& id : objects) plan.objects.add(id);
    for (const ObjectId& id : clientHas) plan.clientHas.add(id);
    auto builder = PackBuilder::copyObjects(source_, std::move(plan), options);
    StringSink sink;
    for (bool more = true; more;) {
      size_t before = sink.text.size();
      more = builder->produce(sink, piece);
      EXPECT_LE(sink.text.size() - before, piece + PackBuilder::kPieceOvershoot);
    }
    statistics_ = builder->statistics();
    EXPECT_EQ(statistics_.written, objects.size());
    EXPECT_EQ(statistics_.bytes, sink.text.size());
    return sink.text;
  }
  // Git takes the pack and finds these in it.
  void expectPack(const std::string& pack, const std::vector<ObjectId>& objects,
                  const std::vector<ObjectId>& had = {}) {
    TestGit git;
    for (const ObjectId& id : had) {
      git.run({"hash-object", "-w", "--stdin"}, source_.textOf(id));
    }
    auto result = git.tryRun({"index-pack", "--stdin", "--strict", "--fix-thin"}, pack);
    ASSERT_EQ(result.exitCode, 0) << result.err;
    // Git has computed the names from the objects.
    std::string all = git.run({"cat-file", "--batch-all-objects", "--batch-check"});
    for (const ObjectId& id : objects) {
      EXPECT_NE(all.find(std::string(id.hex().cStr()) + " blob "), std::string::npos);
    }
    EXPECT_EQ(static_cast<size_t>(std::count(all.begin(), all.end(), '\n')),
              objects.size() + had.size());
  }

  BlobSource source_;
  PackBuildStatistics statistics_;
};

TEST_F(PackBuilderTest, WritesBasesBeforeTheirDeltas) {
  std::vector<ObjectId> chain;
  for (int i = 0; i < 3000; ++i) chain.push_back(source_.add("text " + std::to_string(i)));
  // The first to be written is at the far end of the chain.
  for (size_t i = 0; i + 1 < chain.size(); ++i) source_.storeAsDelta(chain[i], chain[i + 1]);
  std::string pack = build(chain, {});
  EXPECT_EQ(statistics_.deltas, chain.size() - 1);
  EXPECT_EQ(statistics_.deflatedAnew, 0u);
  expectPack(pack, chain);
  EXPECT_EQ(build(chain, {}, {}, 1), pack);
  PackOptions byName;
  byName.ofsDelta = false;
  std::string other = build(chain, byName);
  EXPECT_GT(other.size(), pack.size() + 10 * chain.size());
  expectPack(other, chain);
}

TEST_F(PackBuilderTest, KeepsDeltasAgainstWhatOnlyTheClientHas) {
  ObjectId base = source_.add("base"), text = source_.add("text"), third = source_.add("third");
  source_.storeAsDelta(text, base);
  source_.storeAsDelta(third, text);
  PackOptions thin;
  thin.thin = true;
  std::string pack = build({text, third}, thin, {base});
  EXPECT_EQ(statistics_.deltas, 2u);
  EXPECT_EQ(statistics_.deflatedAnew, 0u);
  expectPack(pack, {text, third}, {base});
  // Without the capability, or when it is not known that the client has it.
  pack = build({text, third}, {}, {base});
  EXPECT_EQ(statistics_.deflatedAnew, 1u);
  expectPack(pack, {text, third});
  pack = build({text, third}, thin);
  EXPECT_EQ(statistics_.deflatedAnew, 1u);
  expectPack(pack, {text, third});
}

// Of a history whose newest versions stay behind, each version is like the next.
TEST_F(PackBuilderTest, MakesNewDeltasWhereBasesStayBehind) {
  std::mt19937 random(1);
  std::string text;
  while (text.size() < 20'000) text += static_cast<char>(random());
  std::vector<ObjectId> versions;
  for (int i = 0; i < 120; ++i) {
    text[random() % text.size()] = static_cast<char>(random());
    versions.push_back(source_.add(text + std::to_string(i)));
  }
  // One lies against the other, and every second is not sent.
  for (size_t i = 1; i < versions.size(); ++i) source_.storeAsDelta(versions[i], versions[i - 1]);
  std::vector<ObjectId> sent;
  for (size_t i = versions.size() - 1; i > 1; i -= 2) sent.push_back(versions[i]);
  for (bool byDistance : {true, false}) {
    PackOptions options;
    options.ofsDelta = byDistance;
    std::string pack = build(sent, options);
    EXPECT_EQ(statistics_.deflatedAnew, sent.size());
    EXPECT_GE(statistics_.deltasAnew, sent.size() - 2);
    EXPECT_LT(pack.size(), 50'000u);
    expectPack(pack, sent);
  }
  // All of them hang on one that is not sent.
  for (size_t i = 1; i < versions.size(); ++i) source_.storeAsDelta(versions[i], versions[0]);
  std::string pack = build(sent, {});
  EXPECT_GE(statistics_.deltasAnew, sent.size() - 2);
  expectPack(pack, sent);
  // The client has what most lead to.
  source_.storeAsDelta(versions[1], ObjectId());
  for (size_t i = 2; i < versions.size(); ++i) source_.storeAsDelta(versions[i], versions[i - 1]);
  PackOptions thin;
  thin.thin = true;
  pack = build({versions[9]}, thin, {versions[7]});
  EXPECT_EQ(statistics_.deltasAnew, 1u);
  expectPack(pack, {versions[9]}, {versions[7]});
}

// Two packs may each hold a delta against what the other holds whole.
TEST_F(PackBuilderTest, BreaksCirclesOfDeltas) {
  std::vector<ObjectId> circle;
  for (int i = 0; i < 5; ++i) circle.push_back(source_.add("text " + std::to_string(i)));
  for (size_t i = 0; i < 5; ++i) source_.storeAsDelta(circle[i], circle[(i + 1) % 5]);
  std::string pack = build(circle, {});
  EXPECT_EQ(statistics_.deflatedAnew, 1u);
  EXPECT_EQ(statistics_.deltas, 4u);
  expectPack(pack, circle);
}

TEST_F(PackBuilderTest, CutsLargeObjectsIntoPieces) {
  std::string large;
  std::mt19937 random(1);
  while (large.size() < 3'000'000) large += static_cast<char>(random());
  ObjectId id = source_.add(large);
  std::string pack = build({id}, {}, {}, 100'000);
  expectPack(pack, {id});
}

TEST_F(PackBuilderTest, BuildsAnEmptyPack) {
  expectPack(build({}, {}), {});
}

TEST_F(PackBuilderTest, SaysWhatIsMissing) {
  ObjectId text = source_.add("text");
  source_.forget(text);
  try {
    build({text}, {});
    FAIL() << "no exception";
  } catch (const kj::Exception& e) {
    EXPECT_NE(std::string(e.getDescription().cStr()).find("missing from the repository"),
              std::string::npos);
  }
}

}  // namespace
}  // namespace packmoor::gitlayer::test
