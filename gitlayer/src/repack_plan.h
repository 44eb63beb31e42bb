// Which packs of a repository are merged: a geometric progression, as git repack --geometric=2 makes.
//
// Why: a repository of many small pushes is settled into many packs of about the same size, and every
// lookup may ask all of them. The small ones are merged such that each pack that is left is at least
// twice as large as all smaller ones together. So there are few, and a byte is written anew only as
// often as the repository has doubled. Sizes are bytes, since these are what a merge costs.
//
// Pure: from the rows alone.
#pragma once

#include "state_tables.h"

#include <vector>

namespace packmoor::gitlayer {

// Of one merge: the tables of its objects take about 100 bytes each in memory.
constexpr uint64_t kRepackObjectsMax = 8'000'000;

struct RepackBounds {
  uint32_t packsMin = 8;       // fewer are not worth it; at least 2
  uint64_t bytesMax = 0;       // together; larger packs are left alone
};

// The packs to merge, in order of their ids; none: it is good as it is.
std::vector<PackRow> chooseRepack(std::vector<PackRow> packs, const RepackBounds& bounds);

}  // namespace packmoor::gitlayer
