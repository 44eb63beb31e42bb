// Goal: whatever the order of views, pushes, prunes, settles, repacks, deletions and crashes, no ref names
// what is not there, and nothing that is there does (invariant 10). Method: fronts that verify against views
// of different ages and propose later, as receive-pack does; everything follows from the seed.
#include "prune_plan.h"

#include "gitlayer/connectivity.h"
#include "gitlayer/zlib_codec.h"
#include "push_verifier.h"
#include "repacker.h"
#include "settle.h"
#include "test_cluster.h"
#include "test_log.h"
#include "whole_repository.h"

#include <gtest/gtest.h>

#include <random>

namespace packmoor::gitlayer::test {
namespace {

using replicator::RecordIndex;

struct Counts {
  size_t pushed = 0, again = 0, refused = 0, pruned = 0, dropped = 0, voided = 0, settled = 0,
         settleVoided = 0, repacked = 0, repackVoided = 0;
};

// The objects of one push, as a front has them in memory.
class Parcel final : public NewObjects {
 public:
  ObjectId add(ObjectType type, const std::string& data) {
    const ObjectId id = hashObject(type, bytesOf(data));
    objects_[id] = {type, data};
    return id;
  }
  ObjectType typeOf(const ObjectId& id) override {
    auto found = objects_.find(id);
    return found == objects_.end() ? ObjectType::kNone : found->second.first;
  }
  kj::Array<const kj::byte> read(const ObjectId& id) override {
    auto bytes = bytesOf(objects_.at(id).second);
    return kj::heapArray<const kj::byte>(bytes.begin(), bytes.size());
  }
  std::vector<ObjectLink> links() {
    std::vector<ObjectLink> links;
    for (const auto& [id, object] : objects_) {
      checkObject(object.first, bytesOf(object.second), links);
    }
    return links;
  }
  void addTo(PushTransaction& txn) {
    for (const auto& [id, object] : objects_) {
      NewObject added;
      added.id = id;
      added.type = object.first;
      added.bytes = object.second.size();
      added.deflated = Deflater().deflate(bytesOf(object.second));
      txn.objects.push_back(std::move(added));
    }
  }
  bool connected(RepositoryView& view) {
    auto all = links();
    return brokenLinks(*this, view.objects(), kj::arrayPtr(all.data(), all.size())).empty();
  }

 private:
  std::map<ObjectId, std::pair<ObjectType, std::string>> objects_;
};

class Scene {
 public:
  Scene(uint64_t seed, Counts& counts)
      : random_(seed), counts_(counts), cluster_(simGround(seed), 2, eager()) {
    repository_ = cluster_.create("project");
  }

  void run(int steps) {
    for (int i = 0; i < steps; ++i) {
      step();
      auto view = cluster_.view("project", below(2));
      const std::string problem = wholeProblem(*view);
      ASSERT_EQ(problem, "") << "behind record " << cluster_.log.size();
    }
    EXPECT_EQ(cluster_.dump(0), cluster_.dump(1));
  }

 private:
  struct Front {
    std::shared_ptr<RepositoryView> view;
    std::unique_ptr<Parcel> parcel;
    RefUpdate update;
  };

  static GitOptions eager() {
    GitOptions options;
    options.repackPacks = 2;
    return options;
  }
  size_t below(size_t bound) { return random_() % bound; }

  void step() {
    switch (below(14)) {
      case 0: case 1: case 2: beginPush(); break;
      case 3: case 4: case 5: endPush(); break;
      case 6: deleteRef(); break;
      case 7: beginPrune(); break;
      case 8: endPrune(); break;
      case 9: beginSettle(); break;
      case 10: endSettle(); break;
      case 11: beginRepack(); break;
      case 12: endRepack(); break;
      default:
        if (below(3) == 0) cluster_.machine(below(2)).flush().wait(cluster_.scope());
        if (below(4) == 0 && fronts_.empty()) {
          job_ = nullptr;
          repacks_.clear();
          cluster_.restart(below(2));
        }
        break;
    }
  }

  // A commit whose tree has few contents, on a parent from the view, reachable or not. What the view has
  // is left out of the push, as git does with what it was shown.
  void beginPush() {
    Front front;
    front.view = shareView(cluster_.view("project", below(2)));
    front.parcel = std::make_unique<Parcel>();
    const std::string content = "content " + std::to_string(below(4));
    ObjectId file = hashObject(ObjectType::kBlob, bytesOf(content));
    if (!front.view->objects().exists(file) || below(4) == 0) {
      front.parcel->add(ObjectType::kBlob, content);
    }
    std::string tree = "100644 f" + std::string(1, '\0');
    tree.append(textOf(file));
    const ObjectId folder = hashObject(ObjectType::kTree, bytesOf(tree));
    if (!front.view->objects().exists(folder) || below(4) == 0) {
      front.parcel->add(ObjectType::kTree, tree);
    }
    std::string commit = "tree " + std::string(folder.hex().cStr()) + "\n";
    if (!commits_.empty() && below(3) > 0) {
      commit += "parent " + std::string(commits_[below(commits_.size())].hex().cStr()) + "\n";
    }
    const std::string who = "T <t@example.com> 1700000000 +0000\n";
    commit += "author " + who + "committer " + who + "\n" + std::to_string(below(3)) + "\n";
    const ObjectId tip = hashObject(ObjectType::kCommit, bytesOf(commit));
    // At times a ref is put back to a commit that is only there still.
    if (!front.view->objects().exists(tip) || below(2) == 0) {
      front.parcel->add(ObjectType::kCommit, commit);
    }
    commits_.push_back(tip);
    front.update.name = "refs/heads/" + std::to_string(below(3));
    front.update.newId = tip;
    fronts_.push_back(std::move(front));
  }

  void endPush() {
    if (fronts_.empty()) return;
    const size_t at = below(fronts_.size());
    Front front = std::move(fronts_[at]);
    fronts_.erase(fronts_.begin() + static_cast<ptrdiff_t>(at));
    for (int attempt = 0;; ++attempt) {
      ASSERT_LT(attempt, 3);
      const bool connected =
          front.parcel->connected(*front.view) &&
          completeUpdate(front.update, *front.parcel, front.view->objects()).reason.empty();
      if (!connected) {
        ++counts_.refused;
        return;
      }
      PushTransaction txn;
      txn.verifiedAt = front.view->index();
      auto now = cluster_.view("project")->ref(front.update.name);
      front.update.oldId = now.has_value() ? now->id : ObjectId();
      txn.updates.push_back(front.update);
      front.parcel->addTo(txn);
      const auto outcome = cluster_.push(repository_, std::move(txn), below(2));
      if (!outcome.verifyAgain) {
        EXPECT_EQ(outcome.refs.at(0).problem, "");
        ++counts_.pushed;
        return;
      }
      ++counts_.again;
      front.view = shareView(cluster_.view("project", below(2)));
    }
  }

  void deleteRef() {
    auto view = cluster_.view("project");
    PushTransaction txn;
    txn.verifiedAt = view->index();
    view->forEachRef("", [&](const Ref& ref) {
      RefUpdate update;
      update.name = ref.name;
      update.oldId = ref.id;
      txn.updates.assign(1, update);
      return below(2) == 0;
    });
    if (!txn.updates.empty()) cluster_.push(repository_, std::move(txn));
  }

  void beginPrune() {
    const size_t member = below(2);
    auto state = cluster_.machine(member).snapshot();
    auto view = cluster_.view("project", member);
    if (job_ == nullptr || below(3) == 0) {
      job_ = std::make_unique<PruneJob>(std::move(state), kj::mv(view), std::nullopt);
    } else {
      job_->renew(std::move(state), kj::mv(view));
    }
    while (!job_->step(1 + static_cast<uint32_t>(below(5)))) {
    }
    plans_.push_back(job_->take());
  }
  void endPrune() {
    if (plans_.empty()) return;
    PruneRecord record;
    record.txn = txnId(cluster_.log.size() << 8 | 1);
    record.repository = repository_.id;
    record.computedAt = plans_.back().computedAt;
    record.objects = plans_.back().objects;
    record.packs = plans_.back().packs;
    plans_.pop_back();
    const size_t drops = record.objects.size() + record.packs.size();
    if (propose(kPrune, record.txn, encodePrune(record)) == ApplyResult::Status::kDone) {
      ++counts_.pruned;
      counts_.dropped += drops;
    } else {
      ++counts_.voided;
    }
  }

  void beginSettle() {
    auto state = cluster_.machine().snapshot();
    SettleRecord record;
    record.txn = txnId(cluster_.log.size() << 8 | 2);
    record.repository = repository_.id;
    record.computedAt = cluster_.log.size();
    record.upto = settleUpto(*state, repository_.id);
    if (record.upto == 0) return;
    const auto pack = buildSettledPack(*state, repository_.id, record.upto);
    record.packRoot = pack.packRoot;
    record.indexRoot = pack.indexRoot;
    record.objectCount = static_cast<uint32_t>(pack.objects.size());
    record.packBytes = pack.pack.size();
    record.pack = txnId(cluster_.log.size() << 8 | 3);
    record.index = txnId(cluster_.log.size() << 8 | 4);
    settle_ = record;
  }
  void endSettle() {
    if (!settle_.has_value()) return;
    const SettleRecord record = *settle_;
    settle_.reset();
    const auto status = propose(kSettle, record.txn, encodeSettle(record));
    ++(status == ApplyResult::Status::kDone ? counts_.settled : counts_.settleVoided);
  }

  // Built from packs that prunes and other repacks may drop until it is proposed.
  void beginRepack() {
    auto repacker = kj::heap<Repacker>(cluster_.node(), cluster_.extents(), "main", repository_.id);
    if (repacker->build().promise().wait(cluster_.scope())) repacks_.push_back(kj::mv(repacker));
  }
  void endRepack() {
    if (repacks_.empty()) return;
    const size_t at = below(repacks_.size());
    auto repacker = kj::mv(repacks_[at]);
    repacks_.erase(repacks_.begin() + static_cast<ptrdiff_t>(at));
    const bool done = repacker->propose().promise().wait(cluster_.scope());
    ++(done ? counts_.repacked : counts_.repackVoided);
  }

  ApplyResult::Status propose(replicator::RecordKind kind, const replicator::TxnId& txn,
                              kj::Array<const kj::byte> payload) {
    replicator::Proposal proposal;
    proposal.txn = txn;
    proposal.kind = kind;
    proposal.payload = kj::mv(payload);
    auto answer = cluster_.propose(kj::mv(proposal)).wait(cluster_.scope());
    return decodeResult(answer.result).status;
  }

  std::mt19937_64 random_;
  Counts& counts_;
  TestCluster cluster_;
  RepositoryInfo repository_;
  std::vector<ObjectId> commits_;   // that anybody ever made
  std::vector<Front> fronts_;
  std::unique_ptr<PruneJob> job_;   // of the newest plan
  std::vector<PrunePlan> plans_;
  std::optional<SettleRecord> settle_;
  std::vector<kj::Own<Repacker>> repacks_;
};

TEST(PruneRandomTest, NothingThatIsThereNamesWhatIsNot) {
  Counts counts;
  for (uint64_t seed = 1; seed <= 400 && !::testing::Test::HasFailure(); ++seed) {
    SCOPED_TRACE("seed " + std::to_string(seed));
    Scene(seed, counts).run(80);
  }
  // Each of these came about, so that the test says something of it.
  EXPECT_GT(counts.pushed, 500u);
  EXPECT_GT(counts.again, 50u);
  EXPECT_GT(counts.refused, 50u);
  EXPECT_GT(counts.pruned, 50u);
  EXPECT_GT(counts.dropped, 50u);
  EXPECT_GT(counts.voided, 50u);
  EXPECT_GT(counts.settled, 50u);
  EXPECT_GT(counts.settleVoided, 20u);
  EXPECT_GT(counts.repacked, 20u);
  EXPECT_GT(counts.repackVoided, 5u);
}

}  // namespace
}  // namespace packmoor::gitlayer::test
