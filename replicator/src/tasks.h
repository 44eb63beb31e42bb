// Tasks: a set of background work whose failures are logged.
//
// Why: every object of the replicator that starts work of its own owns it, so that destroying
// the object ends the work. What fails there has nobody to tell but the operator. Work that
// may fail in the ordinary course handles that itself.
#pragma once

#include <kj/async.h>

namespace packmoor::replicator {

class Tasks final : private kj::TaskSet::ErrorHandler {
 public:
  // `owner` is named in what is logged; a literal.
  explicit Tasks(const char* owner) : owner_(owner), set_(*this) {}
  KJ_DISALLOW_COPY(Tasks);

  void add(kj::Promise<void> work) { set_.add(kj::mv(work)); }

 private:
  void taskFailed(kj::Exception&& exception) override;

  const char* const owner_;
  kj::TaskSet set_;
};

}  // namespace packmoor::replicator
