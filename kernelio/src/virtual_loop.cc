#include "kernelio/virtual_loop.h"

#include <kj/debug.h>

namespace packmoor::kernelio {

VirtualLoop::VirtualLoop(kj::Duration timeLimit)
    : timer_(kj::origin<kj::TimePoint>()),
      limit_(kj::origin<kj::TimePoint>() + timeLimit),
      loop_(*this),
      waitScope_(loop_) {}

VirtualLoop::~VirtualLoop() noexcept {}

void VirtualLoop::runFor(kj::Duration duration) {
  timer_.afterDelay(duration).wait(waitScope_);
  settle();
}

bool VirtualLoop::wait() {
  KJ_IF_MAYBE (next, timer_.nextEvent()) {
    KJ_REQUIRE(*next <= limit_, "the virtual loop ran past its time limit",
               (limit_ - kj::origin<kj::TimePoint>()) / kj::SECONDS);
    timer_.advanceTo(*next);
    return false;
  }
  KJ_FAIL_REQUIRE(
      "deadlock: what is waited for can never happen, no event and no timer is pending",
      elapsed() / kj::MILLISECONDS);
}

}  // namespace packmoor::kernelio
