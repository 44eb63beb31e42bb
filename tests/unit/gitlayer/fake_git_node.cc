#include "fake_git_node.h"

#include "gitlayer/pack_format.h"
#include "gitlayer/zlib_codec.h"

#include <kj/debug.h>
#include <zlib.h>

#include <cstring>

namespace packmoor::gitlayer::test {

namespace {

kj::ArrayPtr<const kj::byte> bytesOf(const std::string& text) {
  return kj::arrayPtr(reinterpret_cast<const kj::byte*>(text.data()), text.size());
}

std::string textOf(kj::ArrayPtr<const kj::byte> bytes) {
  return std::string(bytes.asChars().begin(), bytes.size());
}

class FakeObjectSource final : public ObjectSource {
 public:
  explicit FakeObjectSource(std::shared_ptr<const FakeState> state) : state_(std::move(state)) {}

  bool exists(const ObjectId& id) override { return state_->objects.count(id) > 0; }
  kj::Maybe<ObjectHeader> header(const ObjectId& id) override {
    auto found = state_->objects.find(id);
    if (found == state_->objects.end()) return nullptr;
    return ObjectHeader{found->second.type, found->second.data.size()};
  }
  kj::Maybe<Object> read(const ObjectId& id) override {
    auto found = state_->objects.find(id);
    if (found == state_->objects.end()) return nullptr;
    return Object{found->second.type, kj::heapArray(bytesOf(found->second.data))};
  }
  kj::Maybe<StoredEntry> stored(const ObjectId& id) override {
    auto found = state_->objects.find(id);
    if (found == state_->objects.end()) return nullptr;
    auto deflated = std::make_shared<kj::Array<const kj::byte>>(
        Deflater().deflate(bytesOf(found->second.data)));
    StoredEntry entry;
    entry.type = found->second.type;
    entry.bytes = found->second.data.size();
    entry.deflated = *deflated;
    entry.keepAlive = std::move(deflated);
    return entry;
  }
  std::vector<PackView> packs() override {
    std::vector<PackView> result;
    for (const auto& pack : state_->packs) {
      PackView view;
      view.bytes = bytesOf(*pack.pack);
      view.objectCount = pack.objectCount;
      view.index = bytesOf(*pack.index);
      result.push_back(view);
    }
    return result;
  }
  std::vector<ObjectId> hotObjects() override {
    std::map<ObjectId, FakeObject> packed;
    for (const auto& pack : state_->packs) packed.merge(readPack(*pack.pack, *pack.index));
    std::vector<ObjectId> result;
    for (const auto& [id, object] : state_->objects) {
      if (packed.count(id) == 0) result.push_back(id);
    }
    return result;
  }

 private:
  std::shared_ptr<const FakeState> state_;
};

class FakeView final : public RepositoryView {
 public:
  explicit FakeView(const FakeState& state)
      : state_(std::make_shared<const FakeState>(state)), source_(state_) {}

  using RepositoryView::forEachRef;
  replicator::RecordIndex index() override { return replicator::RecordIndex(state_->index); }
  const RepositoryInfo& info() override { return state_->info; }
  std::optional<Ref> ref(std::string_view name) override {
    auto found = state_->refs.find(name);
    if (found == state_->refs.end()) return std::nullopt;
    return found->second;
  }
  void forEachRef(std::string_view prefix, std::string_view after,
                  kj::FunctionParam<bool(const Ref&)> each) override {
    for (const auto& [name, ref] : state_->refs) {
      if (std::string_view(name).substr(0, prefix.size()) != prefix) continue;
      if (!after.empty() && name <= after) continue;
      if (!each(ref)) return;
    }
  }
  ObjectSource& objects() override { return source_; }
  RepositoryStatistics statistics() override {
    RepositoryStatistics statistics;
    statistics.refs = state_->refs.size();
    statistics.packs = state_->packs.size();
    return statistics;
  }

 private:
  std::shared_ptr<const FakeState> state_;
  FakeObjectSource source_;
};

class FakeExtentWriter final : public replicator::ReplicatedExtentWriter {
 public:
  FakeExtentWriter(FakeGitNode& node, replicator::ExtentId id)
      : node_(node), id_(id), data_(std::make_shared<std::string>()) {}
  ~FakeExtentWriter() noexcept(false) {
    if (!sealed_) ++node_.extentsAbandoned;
  }

  replicator::ExtentId id() override { return id_; }
  kj::Promise<void> writeBlock(uint64_t block, kernelio::IoBuffer data) override {
    KJ_REQUIRE(data.size() <= replicator::kBlockBytes);
    if (node_.failBlock == block) return KJ_EXCEPTION(FAILED, "the disk is full");
    size_t offset = block * replicator::kBlockBytes;
    if (data_->size() < offset + data.size()) data_->resize(offset + data.size());
    memcpy(data_->data() + offset, data.begin(), data.size());
    if (!node_.extentFolder.empty()) packmoor::test::writeFile(path(), *data_);
    return kj::READY_NOW;
  }
  kj::Promise<kj::String> localData() override {
    if (node_.extentFolder.empty()) return kj::String();
    if (data_->empty()) packmoor::test::writeFile(path(), "");
    return kj::heapString(path().c_str());
  }
  kj::Promise<Sealed> seal(uint64_t bytes) override {
    KJ_REQUIRE(bytes <= data_->size());
    data_->resize(bytes);
    sealed_ = true;
    node_.extents[id_] = data_;
    Sealed result;
    result.info.id = id_;
    result.info.bytes = bytes;
    result.sealedOn = {"a", "b"};
    return result;
  }

 private:
  std::string path() const { return node_.extentFolder + "/" + id_.text().cStr(); }

  FakeGitNode& node_;
  replicator::ExtentId id_;
  std::shared_ptr<std::string> data_;
  bool sealed_ = false;
};

uint32_t big32(const std::string& text, size_t at) {
  KJ_REQUIRE(at + 4 <= text.size());
  auto* p = reinterpret_cast<const uint8_t*>(text.data()) + at;
  return uint32_t(p[0]) << 24 | uint32_t(p[1]) << 16 | uint32_t(p[2]) << 8 | p[3];
}

class PackByIndex {
 public:
  PackByIndex(const std::string& pack, const std::string& index,
              const std::map<ObjectId, FakeObject>& known)
      : pack_(pack), index_(index), known_(known) {
    KJ_REQUIRE(index_.size() >= 8 + 1024 + 40);
    KJ_REQUIRE(index_.compare(0, 8, std::string("\xfftOc\0\0\0\2", 8)) == 0);
    count_ = big32(index_, 8 + 255 * 4);
    size_t names = 8 + 1024, crcs = names + count_ * 20, offsets = crcs + count_ * 4,
           large = offsets + count_ * 4;
    for (uint32_t i = 0; i < count_; ++i) {
      ObjectId id = ObjectId::fromBytes(index_.data() + names + i * 20);
      uint64_t offset = big32(index_, offsets + i * 4);
      if (offset & 0x80000000u) {
        size_t at = large + (offset & 0x7fffffffu) * 8;
        offset = uint64_t(big32(index_, at)) << 32 | big32(index_, at + 4);
      }
      KJ_REQUIRE(offset < pack_.size());
      offsets_[id] = offset;
      crcs_[id] = big32(index_, crcs + i * 4);
    }
  }

  std::map<ObjectId, FakeObject> all() {
    std::map<ObjectId, FakeObject> result;
    for (const auto& [id, offset] : offsets_) {
      uint64_t end = 0;
      FakeObject object = at(offset, &end);
      KJ_REQUIRE(hashObject(object.type, bytesOf(object.data)) == id, id);
      uint32_t crc = static_cast<uint32_t>(
          crc32(0, bytesOf(pack_).begin() + offset, static_cast<uInt>(end - offset)));
      KJ_REQUIRE(crc == crcs_[id], id);
      result[id] = std::move(object);
    }
    return result;
  }

 private:
  FakeObject at(uint64_t offset, uint64_t* end) {
    auto rest = bytesOf(pack_).slice(offset, pack_.size());
    PackEntryHeader header;
    KJ_REQUIRE(decodeEntryHeader(rest, header) == Decoded::kDone);
    auto stream = rest.slice(header.headerBytes, rest.size());
    auto inflated = kj::heapArray<kj::byte>(header.bytes);
    size_t consumed = 0;
    KJ_REQUIRE(inflater_.inflate(stream, inflated, consumed));
    if (end != nullptr) *end = offset + header.headerBytes + consumed;
    if (!isDelta(header.type)) return {objectTypeOf(header.type), textOf(inflated)};
    FakeObject base = header.type == PackEntryType::kOfsDelta
                          ? at(offset - header.baseDistance, nullptr)
                          : byName(header.base);
    DeltaHeader delta;
    KJ_REQUIRE(decodeDeltaHeader(inflated, delta) == Decoded::kDone);
    auto result = kj::heapArray<kj::byte>(delta.resultBytes);
    KJ_REQUIRE(applyDelta(bytesOf(base.data), inflated, result));
    return {base.type, textOf(result)};
  }
  FakeObject byName(const ObjectId& id) {
    auto here = offsets_.find(id);
    if (here != offsets_.end()) return at(here->second, nullptr);
    return known_.at(id);
  }

  const std::string& pack_;
  const std::string& index_;
  const std::map<ObjectId, FakeObject>& known_;
  Inflater inflater_;
  uint32_t count_ = 0;
  std::map<ObjectId, uint64_t> offsets_;
  std::map<ObjectId, uint32_t> crcs_;
};

}  // namespace

std::map<ObjectId, FakeObject> readPack(const std::string& pack, const std::string& index,
                                        const std::map<ObjectId, FakeObject>& known) {
  return PackByIndex(pack, index, known).all();
}

FakeGitNode::FakeGitNode(kernelio::Env& env) : env_(env) {}

FakeState& FakeGitNode::addRepository(const std::string& name) {
  FakeState& state = repositories_[name];
  state.info.name = name;
  env_.random.fill(kj::arrayPtr(state.info.id.bytes.data(), state.info.id.bytes.size()));
  return state;
}

FakeState& FakeGitNode::state(const std::string& name) { return repositories_.at(name); }

ObjectId FakeGitNode::addObject(const std::string& repository, ObjectType type, std::string data) {
  ObjectId id = hashObject(type, bytesOf(data));
  state(repository).objects[id] = {type, std::move(data)};
  return id;
}

void FakeGitNode::setRef(const std::string& repository, const std::string& name,
                         const ObjectId& id, const ObjectId& peeled) {
  state(repository).refs[name] = {name, id, peeled};
  ++state(repository).index;
}

void FakeGitNode::import(const std::string& repository, packmoor::test::TestGit& git) {
  FakeState& into = state(repository);
  std::string all = git.run({"cat-file", "--batch-all-objects", "--batch"});
  for (size_t at = 0; at < all.size();) {
    size_t newline = all.find('\n', at);
    std::string head = all.substr(at, newline - at);
    size_t space = head.find(' '), second = head.find(' ', space + 1);
    std::string type = head.substr(space + 1, second - space - 1);
    size_t size = std::stoull(head.substr(second + 1));
    FakeObject object;
    object.type = type == "commit" ? ObjectType::kCommit
                  : type == "tree" ? ObjectType::kTree
                  : type == "tag"  ? ObjectType::kTag
                                   : ObjectType::kBlob;
    object.data = all.substr(newline + 1, size);
    ObjectId id;
    KJ_REQUIRE(ObjectId::parseHex(head.substr(0, space), id));
    into.objects[id] = std::move(object);
    at = newline + 1 + size + 1;
  }
  std::string refs = git.run({"for-each-ref", "--format=%(refname) %(objectname) %(*objectname)"});
  for (size_t at = 0; at < refs.size();) {
    size_t newline = refs.find('\n', at);
    std::string line = refs.substr(at, newline - at);
    size_t space = line.find(' '), second = line.find(' ', space + 1);
    Ref ref;
    ref.name = line.substr(0, space);
    KJ_REQUIRE(ObjectId::parseHex(line.substr(space + 1, second - space - 1), ref.id));
    ObjectId::parseHex(line.substr(second + 1), ref.peeled);
    into.refs[ref.name] = ref;
    at = newline + 1;
  }
  into.info.head = git.line({"symbolic-ref", "HEAD"});
  ++into.index;
}

kj::Own<replicator::StateMachine> FakeGitNode::makeStateMachine(const replicator::VolumeRecord&) {
  KJ_UNIMPLEMENTED("fake");
}
replicator::Replicator& FakeGitNode::replicator() { KJ_UNIMPLEMENTED("fake"); }

kj::Promise<kj::Maybe<kj::Own<RepositoryView>>> FakeGitNode::view(std::string name, bool fresh) {
  if (fresh && holdView != nullptr) {
    auto held = kj::mv(KJ_ASSERT_NONNULL(holdView));
    holdView = nullptr;
    return held.then([this, name = kj::mv(name)]() { return view(name, true); });
  }
  ++viewsTaken;
  if (fresh) ++freshViews;
  if (beforeView) beforeView(fresh);
  auto found = repositories_.find(name);
  if (found == repositories_.end()) return kj::Maybe<kj::Own<RepositoryView>>(nullptr);
  return kj::Maybe<kj::Own<RepositoryView>>(kj::heap<FakeView>(found->second));
}

void FakeGitNode::applyObjects(FakeState& state, PushTransaction& transaction) {
  Inflater inflater;
  for (auto& object : transaction.objects) {
    auto data = kj::heapArray<kj::byte>(object.bytes);
    size_t consumed = 0;
    KJ_REQUIRE(inflater.inflate(object.deflated, data, consumed), object.id);
    KJ_REQUIRE(consumed == object.deflated.size(), object.id);
    KJ_REQUIRE(hashObject(object.type, data) == object.id);
    state.objects[object.id] = {object.type, textOf(data)};
  }
  if (transaction.pack) {
    FakePack pack;
    pack.pack = extents.at(transaction.pack->pack);
    pack.index = extents.at(transaction.pack->index);
    pack.objectCount = transaction.pack->objectCount;
    KJ_REQUIRE(pack.pack->size() == transaction.pack->packBytes);
    auto objects = readPack(*pack.pack, *pack.index);
    KJ_REQUIRE(objects.size() == pack.objectCount);
    state.packs.push_back(pack);
    state.objects.merge(objects);
  }
}

kj::Promise<PushOutcome> FakeGitNode::push(RepositoryId repository, PushTransaction transaction) {
  KJ_IF_MAYBE(hold, holdPush) {
    auto held = kj::mv(*hold);
    holdPush = nullptr;
    return held.then([this, repository, transaction = kj::mv(transaction)]() mutable {
      return push(repository, kj::mv(transaction));
    });
  }
  if (beforePush) {
    auto answer = beforePush(transaction);
    if (answer) return kj::mv(*answer);
  }
  FakeState* state = nullptr;
  for (auto& [name, candidate] : repositories_) {
    if (candidate.info.id == repository) state = &candidate;
  }
  KJ_REQUIRE(state != nullptr);
  PushOutcome outcome;
  bool anyProblem = false;
  for (const auto& update : transaction.updates) {
    RefOutcome ref;
    ref.name = update.name;
    auto found = state->refs.find(update.name);
    ObjectId current = found == state->refs.end() ? ObjectId() : found->second.id;
    if (current != update.oldId) ref.problem = "fetch first";
    anyProblem = anyProblem || !ref.problem.empty();
    outcome.refs.push_back(kj::mv(ref));
  }
  bool nothing = anyProblem && transaction.atomic;
  outcome.index = replicator::RecordIndex(state->index);
  if (!nothing) {
    applyObjects(*state, transaction);
    outcome.index = replicator::RecordIndex(++state->index);
  }
  for (size_t i = 0; i < transaction.updates.size(); ++i) {
    const RefUpdate& update = transaction.updates[i];
    if (!outcome.refs[i].problem.empty()) continue;
    if (nothing) {
      outcome.refs[i].problem = "atomic push failure";
    } else if (update.newId.isZero()) {
      state->refs.erase(update.name);
    } else {
      state->refs[update.name] = {update.name, update.newId, update.peeled};
    }
  }
  pushed.push_back(kj::mv(transaction));
  return outcome;
}

kj::Promise<kj::Own<replicator::ReplicatedExtentWriter>> FakeGitNode::beginExtent(RepositoryId) {
  ++extentsBegun;
  replicator::ExtentId id;
  env_.random.fill(kj::arrayPtr(id.bytes.data(), id.bytes.size()));
  return kj::Own<replicator::ReplicatedExtentWriter>(kj::heap<FakeExtentWriter>(*this, id));
}

kj::Promise<GitNode::Changed> FakeGitNode::createRepository(std::string, std::string, std::string,
                                                            std::string) {
  KJ_UNIMPLEMENTED("fake");
}
kj::Promise<GitNode::Changed> FakeGitNode::restoreRepository(std::string, std::string) {
  KJ_UNIMPLEMENTED("fake");
}
kj::Promise<GitNode::Changed> FakeGitNode::renameRepository(std::string, std::string) {
  KJ_UNIMPLEMENTED("fake");
}
kj::Promise<std::vector<RepositoryInfo>> FakeGitNode::listDiscarded(size_t) {
  KJ_UNIMPLEMENTED("fake");
}
kj::Promise<GitNode::Changed> FakeGitNode::deleteRepository(std::string, bool) {
  KJ_UNIMPLEMENTED("fake");
}
kj::Promise<GitNode::Changed> FakeGitNode::setRepository(std::string, Settings) {
  KJ_UNIMPLEMENTED("fake");
}
kj::Promise<std::vector<RepositoryInfo>> FakeGitNode::listRepositories(std::string, size_t) {
  KJ_UNIMPLEMENTED("fake");
}
kj::Promise<GitNode::Pruned> FakeGitNode::pruneRepository(PruneRequest) {
  KJ_UNIMPLEMENTED("fake");
}
kj::Promise<std::vector<GitNode::Digest>> FakeGitNode::verifyVolume(std::string) {
  KJ_UNIMPLEMENTED("fake");
}

}  // namespace packmoor::gitlayer::test
