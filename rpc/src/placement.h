// placeRepository: where a repository goes that names no volume.
//
// Why: operators say by weight how many repositories a volume is to get; a volume that could not take
// one, or whose members are nearly full, gets none although its weight says so. Pure: the same answer
// for the same inputs, whoever asks.
//
// The rule, in this order:
//   - never: a volume of weight 0, and one that is not open on the answering node, which could not
//     serve the repository;
//   - only if no other is left: one without a quorum of connected members; one whose fullest counted
//     member has less than kPlacementRoomBytes, or kPlacementRoomPerCent of its disk, available;
//   - of the rest, the one with the fewest repositories for its weight; then the one with more room;
//     then the first by name.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <vector>

namespace packmoor::rpc {

constexpr uint64_t kPlacementRoomBytes = 1ull << 30;
constexpr uint64_t kPlacementRoomPerCent = 5;

struct PlacementVolume {
  std::string name;
  uint32_t weight = 0;
  uint64_t repositories = 0;
  uint32_t writeQuorum = 0;
  uint32_t connected = 0;              // counted members that are there, and follow
  // Of the counted member that has least. Nothing when no member told: room is taken to be there.
  std::optional<uint64_t> availableBytes, totalBytes;
};

// True: its disks have room for a repository.
bool hasRoom(const PlacementVolume& volume);

// The name; empty: none of them takes one.
std::string placeRepository(const std::vector<PlacementVolume>& volumes);

}  // namespace packmoor::rpc
