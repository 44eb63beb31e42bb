#include "keep_alive.h"

namespace packmoor::gitlayer {

Co<void> waitAlive(kj::Timer& timer, kj::Duration interval, kj::Promise<void> work,
                   kj::Function<kj::Promise<void>()> send) {
  if (interval == 0 * kj::SECONDS) {
    co_await kj::mv(work);
    co_return;
  }
  bool done = false;
  auto working = work.then([&done]() { done = true; }).fork();
  for (;;) {
    auto pause = timer.afterDelay(interval);
    co_await working.addBranch().exclusiveJoin(kj::mv(pause));
    if (done) co_return;
    auto sending = send();
    co_await kj::mv(sending);
  }
}

}  // namespace packmoor::gitlayer
