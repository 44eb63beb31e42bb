#include "sha1_relations.h"

#include <algorithm>
#include <map>

namespace packmoor::gitlayer {

namespace {

// How long before a vector's step relations are taken for certain, by type.
constexpr int kCertainSteps[] = {0, 15, 12};

// A bit of a word of the message or of the state, by step; ordered.
struct Place {
  int step = 0, bit = 0;
  auto operator<=>(const Place&) const = default;
};

// Directions of changes, as far as they are known to depend on each other.
class Directions {
 public:
  struct Root {
    size_t node;
    bool opposite;
  };

  Directions() : parents_(2 * kHalf) {
    for (size_t i = 0; i < parents_.size(); ++i) parents_[i] = {i, false};
  }
  static size_t ofState(Place place) { return (place.step + kVectorLead) * 32 + place.bit; }
  static size_t ofMessage(Place place) { return kHalf + ofState(place); }

  Root rootOf(size_t node) const {
    bool opposite = false;
    while (parents_[node].node != node) {
      opposite ^= parents_[node].opposite;
      node = parents_[node].node;
    }
    return {node, opposite};
  }
  void join(size_t a, size_t b, bool opposite) {
    Root rootA = rootOf(a), rootB = rootOf(b);
    if (rootA.node != rootB.node) {
      parents_[rootA.node] = {rootB.node, (rootA.opposite != rootB.opposite) != opposite};
    }
  }

 private:
  static constexpr size_t kHalf = (kVectorLead + kSha1Steps) * 32;
  std::vector<Root> parents_;
};

// One vector's relations.
class Derivation {
 public:
  explicit Derivation(const DisturbanceVector& vector)
      : vector_(vector), disturbances_(disturbancesOf(vector)) {
    for (int step = kRelatedFirst; step <= int(kRelatedLast); ++step) {
      for (int bit = 0; bit < 31; ++bit) look({step, bit});
    }
  }

  struct Member {
    Place place;
    bool opposite;
  };
  // Bits of the message whose directions depend on each other, each set in order.
  std::vector<std::vector<Member>> sets() const {
    std::map<size_t, std::vector<Member>> byRoot;
    int first = std::max(int(kRelatedFirst), vector_.step - kCertainSteps[vector_.type]);
    for (int step = first; step <= int(kRelatedLast); ++step) {
      for (int bit = 0; bit < 31; ++bit) {
        auto root = directions_.rootOf(Directions::ofMessage({step, bit}));
        byRoot[root.node].push_back({{step, bit}, root.opposite});
      }
    }
    std::vector<std::vector<Member>> result;
    for (auto& [node, members] : byRoot) {
      if (members.size() > 1) result.push_back(std::move(members));
    }
    return result;
  }

 private:
  // A change that is added at a bit: of a direction that depends on the state's, or of any.
  struct Change {
    Place of;
    bool opposite = false, any = false;
  };

  bool has(Place place) const {
    return (disturbances_[place.step + kVectorLead] >> place.bit & 1) != 0;
  }
  bool hasNeighbour(Place place) const {
    return (place.bit < 31 && has({place.step, place.bit + 1})) ||
           (place.bit > 0 && has({place.step, place.bit - 1}));
  }
  static Place rotated(int step, int bit) { return {step, (bit + 32) % 32}; }

  void look(Place at) {
    std::vector<Change> changes;
    // The word's own change makes up for what the others do.
    if (has(at)) changes.push_back({at});
    for (Place place : {rotated(at.step - 1, at.bit - 5), rotated(at.step - 5, at.bit + 2)}) {
      if (has(place)) changes.push_back({place, true});
    }
    lookAtFunction(at, changes);
    if (changes.size() == 1 && !changes[0].any) {
      directions_.join(Directions::ofMessage(at), Directions::ofState(changes[0].of),
                       changes[0].opposite);
    } else if (changes.size() == 2 && !changes[0].any && !changes[1].any) {
      directions_.join(Directions::ofState(changes[0].of), Directions::ofState(changes[1].of),
                       changes[0].opposite == changes[1].opposite);
    }
  }

  void lookAtFunction(Place at, std::vector<Change>& changes) {
    std::vector<Place> inputs;
    bool certain = true;
    for (Place place : {Place{at.step - 2, at.bit}, rotated(at.step - 3, at.bit + 2),
                        rotated(at.step - 4, at.bit + 2)}) {
      if (!has(place)) continue;
      inputs.push_back(place);
      certain = certain && !hasNeighbour(place);
    }
    const bool majority = at.step / 20 == 2;
    if (inputs.size() == 1 && majority && certain) {
      changes.push_back({inputs[0], true});
    } else if (inputs.size() % 2 == 1) {
      changes.push_back({at, false, true});
    } else if (inputs.size() == 2 && majority && certain) {
      directions_.join(Directions::ofState(inputs[0]), Directions::ofState(inputs[1]), true);
    }
  }

  const DisturbanceVector& vector_;
  std::array<uint32_t, kVectorLead + kSha1Steps> disturbances_;
  Directions directions_;
};

struct Pair {
  Place a, b;
  bool differ = false;
  auto operator<=>(const Pair&) const = default;
};

template <typename F>
void forEachPair(const std::vector<Derivation::Member>& set, F&& each) {
  for (size_t i = 0; i < set.size(); ++i) {
    for (size_t j = i + 1; j < set.size(); ++j) {
      each(Pair{set[i].place, set[j].place, set[i].opposite != set[j].opposite});
    }
  }
}

}  // namespace

std::vector<BitRelation> deriveRelations() {
  std::vector<std::vector<std::vector<Derivation::Member>>> sets;
  std::map<Pair, size_t> uses;
  for (const auto& vector : kDisturbanceVectors) {
    sets.push_back(Derivation(vector).sets());
    for (const auto& set : sets.back()) forEachPair(set, [&](const Pair& pair) { ++uses[pair]; });
  }
  // Of each set as many pairs as join it, those first that serve the most vectors.
  std::map<Pair, uint32_t> chosen;
  for (size_t number = 0; number < sets.size(); ++number) {
    for (const auto& set : sets[number]) {
      std::vector<Pair> pairs;
      forEachPair(set, [&](const Pair& pair) { pairs.push_back(pair); });
      std::stable_sort(pairs.begin(), pairs.end(),
                       [&](const Pair& x, const Pair& y) { return uses[x] > uses[y]; });
      Directions joined;
      for (const Pair& pair : pairs) {
        size_t a = Directions::ofMessage(pair.a), b = Directions::ofMessage(pair.b);
        if (joined.rootOf(a).node == joined.rootOf(b).node) continue;
        joined.join(a, b, pair.differ);
        chosen[pair] |= uint32_t(1) << number;
      }
    }
  }
  std::vector<BitRelation> result;
  for (const auto& [pair, vectors] : chosen) {
    result.push_back({static_cast<uint8_t>(pair.a.step), static_cast<uint8_t>(pair.a.bit),
                      static_cast<uint8_t>(pair.b.step), static_cast<uint8_t>(pair.b.bit), pair.differ,
                      vectors});
  }
  return result;
}

}  // namespace packmoor::gitlayer
