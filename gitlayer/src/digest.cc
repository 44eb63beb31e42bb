#include "digest.h"

#include "gitlayer/zlib_codec.h"
#include "kernelio/check.h"
#include "record_applier.h"
#include "sha1_stream.h"
#include "state_objects.h"

#include <kj/debug.h>

#include <algorithm>

namespace packmoor::gitlayer {

namespace {

// Repositories per step; their packs are open at the same time.
constexpr size_t kRepositoriesPerStep = 32;
// Inflated hot objects larger than this are not met: pushes that large go to packs.
constexpr uint64_t kHotObjectBytesMax = 1ull << 30;

void addTo(Sha1Stream& sha1, std::string_view text) {
  const uint64_t size = text.size();
  sha1.update(kj::arrayPtr(reinterpret_cast<const kj::byte*>(&size), sizeof size));
  sha1.update(bytesOf(text));
}

// The names of one source of objects, in order.
class Names {
 public:
  explicit Names(std::vector<ObjectId> hot) : hot_(std::move(hot)), count_(hot_.size()) {}
  explicit Names(PackFile& pack) : pack_(&pack), count_(pack.index().count()) { load(); }

  bool atEnd() const { return at_ == count_; }
  const ObjectId& now() const { return pack_ != nullptr ? current_ : hot_[at_]; }
  void next() {
    ++at_;
    load();
  }

 private:
  void load() {
    if (pack_ != nullptr && at_ < count_) current_ = pack_->index().name(static_cast<uint32_t>(at_));
  }
  std::vector<ObjectId> hot_;
  PackFile* pack_ = nullptr;
  size_t count_, at_ = 0;
  ObjectId current_;
};

class Computation {
 public:
  Computation(std::shared_ptr<const StateReader> state) : state_(std::move(state)) {}

  // The rows that are neither refs nor objects.
  void addRows() {
    for (std::string_view table : {"n", "o", "r", "p", "t", "T", "l"}) {
      state_->scan(table, {}, [&](std::string_view key, std::string_view value) {
        addTo(rows_, key);
        addTo(rows_, value);
        if (table == "r") ++digest_.repositoryCount;
        return true;
      });
    }
  }

  struct Repository {
    RepositoryRow row;
    std::vector<std::shared_ptr<PackFile>> packs;
  };
  // The next repositories in order of their ids, without packs.
  std::vector<Repository> nextStep() {
    std::vector<Repository> step;
    state_->scan(kRepositoryPrefix, from_, [&](std::string_view key, std::string_view value) {
      if (step.size() == kRepositoriesPerStep) return false;
      step.push_back({RepositoryRow::decode(uuidOf(key.substr(1)), value), {}});
      from_ = std::string(key) + '\0';
      return true;
    });
    return step;
  }
  std::vector<PackRow> packsOf(const RepositoryId& id) { return packRows(*state_, id); }

  void add(Repository& repository) {
    const RepositoryId& id = repository.row.info.id;
    addTo(objects_, textOf(id));
    attempt(repository, [&]() { addObjects(repository); });
    attempt(repository, [&]() { addRefs(repository); });
  }

  StateDigest finish() {
    digest_.refs = hexOf(refs_);
    digest_.repositories = hexOf(rows_);
    digest_.objects = hexOf(objects_);
    return std::move(digest_);
  }

 private:
  template <typename F>
  void attempt(const Repository& repository, F action) {
    auto exception = kj::runCatchingExceptions(action);
    KJ_IF_MAYBE(e, exception) {
      note(kj::str("repository ", repository.row.info.name.c_str(), ": ", e->getDescription())
               .cStr());
    }
  }
  void note(std::string problem) {
    if (digest_.problem.empty()) digest_.problem = std::move(problem);
  }

  void addObjects(Repository& repository) {
    const RepositoryId& id = repository.row.info.id;
    std::vector<ObjectId> hot;
    const size_t skip = hotPrefix(id).size();
    state_->scan(hotPrefix(id), {}, [&](std::string_view key, std::string_view value) {
      hot.push_back(ObjectId::fromBytes(key.substr(skip).data()));
      checkHot(hot.back(), HotRow::decode(value));
      return true;
    });
    std::vector<Names> sources;
    sources.emplace_back(std::move(hot));
    for (auto& pack : repository.packs) {
      pack->verify();
      sources.emplace_back(*pack);
    }
    mergeNames(sources);
  }

  void checkHot(const ObjectId& id, const HotRow& row) {
    KJ_REQUIRE(row.bytes <= kHotObjectBytesMax, "A hot object's size is damaged.", id);
    auto data = kj::heapArray<kj::byte>(row.bytes);
    size_t consumed = 0;
    KJ_REQUIRE(inflater_.inflate(bytesOf(row.deflated), data, consumed) &&
                   hashObject(row.type, data) == id,
               "An object in the state store is damaged.", id);
  }

  // Every name once, in order.
  void mergeNames(std::vector<Names>& sources) {
    const auto later = [&](size_t a, size_t b) { return sources[b].now() < sources[a].now(); };
    std::vector<size_t> heap;
    for (size_t i = 0; i < sources.size(); ++i) {
      if (!sources[i].atEnd()) heap.push_back(i);
    }
    std::make_heap(heap.begin(), heap.end(), later);
    ObjectId previous;
    while (!heap.empty()) {
      std::pop_heap(heap.begin(), heap.end(), later);
      Names& least = sources[heap.back()];
      if (least.now() != previous) {
        previous = least.now();
        objects_.update(kj::arrayPtr(previous.bytes.data(), previous.bytes.size()));
        ++digest_.objectCount;
      }
      least.next();
      if (least.atEnd()) {
        heap.pop_back();
      } else {
        std::push_heap(heap.begin(), heap.end(), later);
      }
    }
  }

  void addRefs(Repository& repository) {
    const RepositoryId& id = repository.row.info.id;
    StateObjects objects(state_, id, true, repository.packs);
    const size_t skip = refPrefix(id).size();
    state_->scan(refPrefix(id), {}, [&](std::string_view key, std::string_view value) {
      addTo(refs_, key);
      addTo(refs_, value);
      ++digest_.refCount;
      const Ref ref = decodeRef(key.substr(skip), value);
      if (!objects.exists(ref.id)) {
        note(kj::str("repository ", repository.row.info.name.c_str(), ": the ref ",
                     ref.name.c_str(), " names object ", ref.id, ", which is not there")
                 .cStr());
      }
      return true;
    });
  }

  static std::string hexOf(Sha1Stream& sha1) { return sha1.finish().hex().cStr(); }

  std::shared_ptr<const StateReader> state_;
  std::string from_;
  Sha1Stream refs_, rows_, objects_;
  Inflater inflater_;
  StateDigest digest_;
};

}  // namespace

Co<StateDigest> computeDigest(kernelio::Env& env, PackStore& packs,
                              std::shared_ptr<const StateReader> state) {
  // Shared with the workers' steps, which may outlive a dropped promise.
  auto computation = std::make_shared<Computation>(std::move(state));
  auto rows = env.workers.run([computation]() { computation->addRows(); });
  co_await kj::mv(rows);
  for (;;) {
    using Step = std::vector<Computation::Repository>;
    auto step = std::make_shared<Step>(computation->nextStep());
    if (step->empty()) break;
    for (auto& repository : *step) {
      if (repository.row.statistics.packs == 0) continue;
      for (const auto& row : computation->packsOf(repository.row.info.id)) {
        repository.packs.push_back(packs.get(row));
      }
    }
    auto added = env.workers.run([computation, step]() {
      for (auto& repository : *step) computation->add(repository);
    });
    co_await kj::mv(added);
  }
  co_return computation->finish();
}

}  // namespace packmoor::gitlayer
