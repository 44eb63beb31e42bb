#include "accept_loop.h"

#include <kernelio/co.h>

#include <kj/debug.h>

namespace packmoor::rpc {
namespace {

// nullptr: the accept failed; `failure` says how.
kj::Promise<kj::Maybe<kj::Own<kj::AsyncIoStream>>> acceptOne(kj::ConnectionReceiver& port,
                                                             bool& failedBefore) {
  using Accepted = kj::Maybe<kj::Own<kj::AsyncIoStream>>;
  return port.accept().then(
      [&failedBefore](kj::Own<kj::AsyncIoStream> stream) -> Accepted {
        failedBefore = false;
        return kj::mv(stream);
      },
      [&failedBefore](kj::Exception&& e) -> Accepted {
        if (!failedBefore && e.getType() != kj::Exception::Type::DISCONNECTED) {
          KJ_LOG(WARNING, "A connection could not be accepted; going on.", e.getDescription());
        }
        failedBefore = true;
        return nullptr;
      });
}

Co<void> loop(kj::ConnectionReceiver& port, kj::Timer& timer,
              kj::Function<void(kj::Own<kj::AsyncIoStream>)> take) {
  bool failedBefore = false;
  for (;;) {
    auto accepted = co_await acceptOne(port, failedBefore);
    KJ_IF_MAYBE(stream, accepted) {
      take(kj::mv(*stream));
    } else {
      co_await timer.afterDelay(kAcceptPauseMs * kj::MILLISECONDS);
    }
  }
}

}  // namespace

kj::Promise<void> acceptLoop(kj::ConnectionReceiver& port, kj::Timer& timer,
                             kj::Function<void(kj::Own<kj::AsyncIoStream>)> take) {
  return loop(port, timer, kj::mv(take));
}

}  // namespace packmoor::rpc
