#include "tasks.h"

#include <kj/debug.h>

namespace packmoor::replicator {

void Tasks::taskFailed(kj::Exception&& exception) {
  KJ_LOG(ERROR, owner_, exception);
}

}  // namespace packmoor::replicator
