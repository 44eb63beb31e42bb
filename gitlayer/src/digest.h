// Digest: roots over a volume's state at one index, for comparing members.
//
// Three roots: over the refs; over everything else in the state but objects; over the names of all
// objects of each repository, in order. Members with equal logs have equal roots. While it is at
// it, it reads everything: packs block by block, hot objects by hashing them again, and it looks
// for the object that each ref names. What is wrong is the digest's problem.
//
// The work is done on workers, in steps of a bounded number of repositories.
#pragma once

#include "pack_store.h"
#include "state_store.h"
#include "state_tables.h"

#include <kernelio/co.h>

namespace packmoor::gitlayer {

struct StateDigest {
  std::string refs, repositories, objects;  // hex
  uint64_t refCount = 0, repositoryCount = 0, objectCount = 0;
  std::string problem;
};

// `packs` and `env` outlive the promise.
Co<StateDigest> computeDigest(kernelio::Env& env, PackStore& packs,
                              std::shared_ptr<const StateReader> state);

}  // namespace packmoor::gitlayer
