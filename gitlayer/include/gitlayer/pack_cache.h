// PackCache: packs that were built for a request, kept for the next ones that ask for the same.
//
// Why: a hundred jobs that clone one repository at once want the same pack; building it once and sending it
// a hundred times costs the processor next to nothing. What is built meanwhile is shared as well: whoever
// comes while it is being built is sent what is there, and then the rest.
//
// A pack depends on nothing but the request's own words and what the client has (the key); objects never
// change, so an entry stays right however the repository goes on. Whether a client may have what it
// wants is decided before, for each client anew.
//
// Bounds: `bytesMax` in the files of one folder and a sixteenth of it in memory; what was not asked for
// longest goes first. A pack larger than what is left for it is not kept: it is built as fast as the slowest
// of its readers takes it. With less than kFreeBytesMin left on the disk nothing is written there, and what
// is there goes: packs are then built for each client. The folder holds nothing that outlives the process.
//
// Loop: the node's.
#pragma once

#include "gitlayer/pack_queue.h"

#include <kernelio/env.h>

#include <kj/async.h>

#include <functional>
#include <memory>
#include <string>

namespace packmoor::gitlayer {

class CachedPack;
class FetchWork;

struct PackCacheStatistics {
  uint64_t hits = 0, misses = 0;      // requests that were sent what was there, or being made; built
  uint64_t entries = 0, bytes = 0;    // now
};

class PackCache {
 public:
  static constexpr uint64_t kFreeBytesMin = 1ull << 30;
  static constexpr uint64_t kWindowBytes = 64ull << 20;   // built ahead of the slowest reader of a large pack

  static constexpr kj::Duration kRoomInterval = 2 * kj::SECONDS;   // it is looked for so often

  // Bytes that the disk of the folder has left; 0: nobody knows.
  using FreeBytes = std::function<uint64_t(const std::string& folder)>;
  static uint64_t freeBytesOf(const std::string& folder);

  // `folder`: an absolute path, made when it is not there. Throws a sentence when it cannot be.
  PackCache(kernelio::Env& env, kj::Own<PackQueue> queue, std::string folder, uint64_t bytesMax,
            FreeBytes freeBytes = freeBytesOf);
  ~PackCache() noexcept(false);
  KJ_DISALLOW_COPY(PackCache);

  // The pack for a request, which is begun to be built with `work` when it is not there.
  // `turnKey`: of the queue. nullptr: it cannot be kept; the caller builds its own. The caller makes a
  // reader of it in the same turn of the loop.
  kj::Maybe<kj::Own<CachedPack>> get(const std::string& key, std::shared_ptr<FetchWork> work,
                                     size_t bandPacketBytes, const std::string& turnKey);
  PackCacheStatistics statistics() const;

 private:
  class Impl;
  kj::Own<Impl> impl_;
};

}  // namespace packmoor::gitlayer
