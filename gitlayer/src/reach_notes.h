// ReachNotes: of which repositories it is known that their refs reach every object.
//
// A repository whose refs only ever moved forward needs no note. One with a ref that was deleted or moved back
// may have objects that nothing reaches, and a clone of it has to look at all of them; when that look finds that
// none is unreachable, it is noted here, and holds until a ref is moved back again.
//
// Of one state store, in memory. Threads: any.
#pragma once

#include "gitlayer/repository.h"

#include <kj/mutex.h>

#include <unordered_map>

namespace packmoor::gitlayer {

class ReachNotes {
 public:
  // In the state of `index` everything was reached.
  void note(const RepositoryId& repository, replicator::RecordIndex index) {
    if (index.value == 0) return;
    auto notes = notes_.lockExclusive();
    if (notes->size() >= kNotesMax) notes->clear();
    (*notes)[repository] = index.value;
  }
  // Whether that is known of the state of `index`, in which a ref was moved back last by record `rewoundAt`.
  bool holds(const RepositoryId& repository, uint64_t rewoundAt, replicator::RecordIndex index) const {
    auto notes = notes_.lockShared();
    auto found = notes->find(repository);
    return found != notes->end() && found->second >= rewoundAt && found->second <= index.value;
  }

 private:
  static constexpr size_t kNotesMax = 100'000;

  kj::MutexGuarded<std::unordered_map<RepositoryId, uint64_t>> notes_;
};

}  // namespace packmoor::gitlayer
