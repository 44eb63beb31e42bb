// PackSender: builds a pack on the workers, in turns with others, and writes it to a client.
//
// Memory is bounded however slow the client is: one piece is being written while the next is
// made, and the turn is given back while the client's network holds things up. While nothing can
// be sent, a client with side-band is sent keep-alives (keep_alive.h).
//
// What goes wrong after the pack has begun is told on band 3; without side-band the stream just
// ends early, which git notices by the checksum. Dropping run()'s promise abandons the build.
#pragma once

#include "gitlayer/git_node.h"
#include "gitlayer/pack_queue.h"
#include "gitlayer/pkt_line.h"

#include "cached_pack.h"
#include "fetch_work.h"

#include <kernelio/co.h>

namespace packmoor::gitlayer {

// Resolves with what the promise rejects with. (co_await is not allowed inside a catch block.)
kj::Promise<kj::Maybe<kj::Exception>> failureOf(kj::Promise<void> promise);
// What an exception says to a person, without the condition that failed.
std::string sentenceOf(const kj::Exception& exception);

class PackSender {
 public:
  static constexpr size_t kPieceBytes = 512u << 10;

  struct Settings {
    size_t bandPacketBytes = 0;  // longest packet with its length; 0: no side-band
    bool progress = false;       // only with side-band
    kj::Duration keepAlive = 0 * kj::SECONDS;   // only with side-band; 0: never
    std::string key;             // for the queue
    std::string requestId;
  };
  PackSender(kernelio::Env& env, PackQueue& queue, std::shared_ptr<FetchWork> work,
             PktWriter& writer, kj::AsyncOutputStream& out, Settings settings);

  // Before run(): the pack is that one, which is built elsewhere. nullptr: it is built here.
  void share(kj::Maybe<kj::Own<CachedPack>> pack);
  // Writes what is pending in the writer, then the pack and, with side-band, a flush.
  kj::Promise<void> run();

 private:
  struct Piece {
    kj::Array<const kj::byte> bytes;
    bool more = false;
  };
  Co<void> runInner();
  Co<void> build();
  Co<void> sendShared(CachedPack::Reader& reader);
  Co<void> awaitMore(CachedPack& pack);
  Co<void> tellFound(uint64_t objects);
  Co<void> tellPlan(const PackBuildStatistics& statistics, size_t wholePacks);
  Co<void> tellTotal(const PackBuildStatistics& statistics);
  Co<void> plan();
  Co<void> transmit();
  Co<void> takeTurn();
  static Piece makePiece(FetchWork& work, size_t bandPacketBytes);
  kj::Promise<bool> planOnWorker();
  kj::Promise<Piece> makePieceOnWorker();
  void write(kj::Array<const kj::byte> bytes);
  kj::Promise<void> waitWritten();
  Co<void> tell(int band, std::string text);
  Co<void> keepAlive();
  // Ends as `work` does, and keeps the client alive meanwhile.
  Co<void> waitFor(kj::Promise<void> work);

  kernelio::Env& env_;
  kj::Own<PackQueue> queue_;
  std::shared_ptr<FetchWork> work_;
  PktWriter& writer_;
  kj::AsyncOutputStream& out_;
  Settings settings_;
  kj::Maybe<kj::Own<CachedPack::Reader>> shared_;
  kj::Maybe<kj::Own<PackQueue::Turn>> turn_;
  kj::TimePoint lastSent_;
  bool written_ = true;        // no piece is being written
  kj::Promise<void> writing_ = kj::READY_NOW;
};

}  // namespace packmoor::gitlayer
