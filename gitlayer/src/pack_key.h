// What makes two fetches be sent the same pack.
#pragma once

#include "fetch_work.h"

namespace packmoor::gitlayer {

// For PackCache, of a request whose wants are decided and whose haves are looked up: a hash (SHA-256) of
// all that the pack depends on. nullopt: it depends on more, and is not to be shared. Runs on a worker.
std::optional<std::string> packKey(FetchWork& work, size_t bandPacketBytes);

}  // namespace packmoor::gitlayer
