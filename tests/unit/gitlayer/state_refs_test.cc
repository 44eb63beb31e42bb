// Goal: what is asked of a repository's refs for the rules is answered as the state has it, whatever was asked
// before. Method: names that are close to each other, in any order, beside a look at all refs.
#include "state_machine_fixture.h"

#include <random>

namespace packmoor::gitlayer {
namespace {

using namespace test;

class StateRefsTest : public StateMachineTest {};

TEST_F(StateRefsTest, AnswersAsTheStateHasIt) {
  const std::vector<std::string> parts = {"a", "a-", "a.b", "ab", "b", "a0"};
  for (uint64_t seed = 1; seed <= 20; ++seed) {
    SCOPED_TRACE("seed " + std::to_string(seed));
    std::mt19937_64 random(seed);
    auto someName = [&]() {
      std::string name = "refs/heads";
      for (size_t depth = 1 + random() % 3; depth > 0; --depth) name += "/" + parts[random() % parts.size()];
      return name;
    };
    submit(createProposal(2 * seed, seed, "r" + std::to_string(seed)));
    std::vector<RefUpdate> updates;
    for (int i = 0; i < 8; ++i) updates.push_back(update(someName(), 0, 1 + i));
    submit(pushProposal(seed, transaction(2 * seed + 1, updates)));   // as many as do not conflict
    std::map<std::string, ObjectId> refs;
    auto at = machine->view("r" + std::to_string(seed));
    KJ_ASSERT_NONNULL(at)->forEachRef("", [&](const Ref& ref) {
      refs[ref.name] = ref.id;
      return true;
    });
    ASSERT_FALSE(refs.empty());
    const auto state = machine->snapshot();
    const RepositoryId id = repositoryId(seed);
    const StateRefs asked(*state, id, false);
    for (int i = 0; i < 300; ++i) {
      const std::string name = someName();
      auto ref = refs.find(name);
      if (random() % 2 == 0) {
        ASSERT_EQ(asked.ref(name), ref == refs.end() ? std::nullopt : std::optional<ObjectId>(ref->second)) << name;
        continue;
      }
      const std::string ignored = refs.begin()->first;
      std::optional<std::string> below;
      for (auto it = refs.rbegin(); it != refs.rend(); ++it) {
        if (it->first.rfind(name + "/", 0) == 0 && it->first != ignored) below = it->first;
      }
      ASSERT_EQ(asked.anyBelow(name + "/", [&](std::string_view other) { return other == ignored; }), below) << name;
    }
  }
}

}  // namespace
}  // namespace packmoor::gitlayer
