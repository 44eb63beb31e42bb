// Keep-alives, as git's own receive-pack and upload-pack send them (git-config(1), receive.keepAlive
// and uploadpack.keepAlive): while nothing can be said yet, a client with side-band gets an empty
// packet of band 1 now and then, so that neither it nor a proxy takes the connection for dead. Before a pack
// only protocol 2's sideband-all has bands: there it is band 2 (gitprotocol-v2(5)).
#pragma once

#include <kernelio/co.h>

#include <kj/function.h>
#include <kj/timer.h>

#include <string_view>

namespace packmoor::gitlayer {

constexpr kj::Duration kKeepaliveInterval = 5 * kj::SECONDS;   // where nothing else is set
constexpr std::string_view kKeepalivePacket{"0005\1", 5}, kKeepaliveProgress{"0005\2", 5};

// Ends as `work` does. Until then `send` is called after every `interval` (0: never); it is not called
// again before its promise has resolved, and its failure ends the work. Dropping drops both.
Co<void> waitAlive(kj::Timer& timer, kj::Duration interval, kj::Promise<void> work,
                   kj::Function<kj::Promise<void>()> send);

}  // namespace packmoor::gitlayer
