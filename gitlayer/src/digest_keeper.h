// DigestKeeper: the states at the newest verification records, and what was found in them.
//
// Why: a verification asks every member about one index, and the members get there at different
// times. Each keeps a snapshot at the record and reads it when it is first asked, so that
// records applied again after a restart cost nothing. Bounded in number and time.
// Loop: the node's.
#pragma once

#include "digest.h"

#include <kj/async.h>

#include <map>

namespace packmoor::gitlayer {

class DigestKeeper {
 public:
  static constexpr size_t kKeptMax = 4;
  static constexpr kj::Duration kKeptFor = 10 * kj::MINUTES;

  DigestKeeper(kernelio::Env& env, PackStore& packs) : env_(env), packs_(packs) {}

  void keep(uint64_t index, std::shared_ptr<const StateReader> state);
  // A DigestQuestion's DigestAnswer. `applied`: index of the newest applied record.
  kj::Array<kj::byte> answer(kj::ArrayPtr<const kj::byte> question, uint64_t applied);
  // True while packs of an older state may be read.
  bool isReading();

 private:
  struct Kept {
    std::shared_ptr<const StateReader> state;  // null once the digest is made or failed
    kj::TimePoint since = kj::origin<kj::TimePoint>();
    bool running = false, done = false;
    StateDigest digest;
    kj::Promise<void> work = kj::READY_NOW;
  };
  void start(uint64_t index, Kept& kept);

  kernelio::Env& env_;
  PackStore& packs_;
  std::map<uint64_t, Kept> kept_;
};

}  // namespace packmoor::gitlayer
