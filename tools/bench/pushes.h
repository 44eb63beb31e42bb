// Generated pushes: chains of commits, each with one new blob of 1 KiB, as git would send them.
//
// Everything is made before the clock starts. The content is random from a seed, so that no
// two pushes share a blob and nothing compresses unnaturally well.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

namespace packmoor::bench {

struct Push {
  std::string newId;   // 40 hex digits: the commit
  std::string body;    // the whole receive-pack request: command, flush, pack
};

// `count` pushes, each commit the child of the one before, to one branch. The first continues
// from nothing: the branch must be absent.
std::vector<Push> makePushChain(const std::string& branch, size_t count, uint64_t seed);

}  // namespace packmoor::bench
