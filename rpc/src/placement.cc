#include "placement.h"

#include <tuple>

namespace packmoor::rpc {
namespace {

bool hasQuorum(const PlacementVolume& volume) { return volume.connected >= volume.writeQuorum; }

// True: a is the better place.
bool isBetter(const PlacementVolume& a, const PlacementVolume& b) {
  const auto fitness = [](const PlacementVolume& v) { return std::make_tuple(hasQuorum(v), hasRoom(v)); };
  if (fitness(a) != fitness(b)) return fitness(a) > fitness(b);
  // Fewest for the weight, without fractions: below 2^32 times 2^20.
  const uint64_t forA = a.repositories * b.weight, forB = b.repositories * a.weight;
  if (forA != forB) return forA < forB;
  const uint64_t roomA = a.availableBytes.value_or(0), roomB = b.availableBytes.value_or(0);
  if (roomA / kPlacementRoomBytes != roomB / kPlacementRoomBytes) return roomA > roomB;
  return a.name < b.name;
}

}  // namespace

bool hasRoom(const PlacementVolume& volume) {
  if (!volume.availableBytes.has_value()) return true;
  const uint64_t share = volume.totalBytes.value_or(0) / 100 * kPlacementRoomPerCent;
  return *volume.availableBytes >= kPlacementRoomBytes && *volume.availableBytes >= share;
}

std::string placeRepository(const std::vector<PlacementVolume>& volumes) {
  const PlacementVolume* best = nullptr;
  for (const PlacementVolume& volume : volumes) {
    if (volume.weight == 0) continue;
    if (best == nullptr || isBetter(volume, *best)) best = &volume;
  }
  return best == nullptr ? std::string() : best->name;
}

}  // namespace packmoor::rpc
