#include "pack_sender.h"

#include "band_frames.h"
#include "keep_alive.h"

#include <kj/debug.h>

namespace packmoor::gitlayer {
namespace {

// Objects looked at in one job of a worker: some milliseconds.
constexpr uint32_t kPlanBudget = 4000;
constexpr auto kProgressInterval = 500 * kj::MILLISECONDS;
constexpr int kBandProgress = 2, kBandError = 3;

bool isDisconnect(const kj::Exception& exception) {
  return exception.getType() == kj::Exception::Type::DISCONNECTED;
}

}  // namespace

kj::Promise<kj::Maybe<kj::Exception>> failureOf(kj::Promise<void> promise) {
  return promise.then([]() -> kj::Maybe<kj::Exception> { return nullptr; },
                      [](kj::Exception&& e) -> kj::Maybe<kj::Exception> { return kj::mv(e); });
}

std::string sentenceOf(const kj::Exception& exception) {
  std::string text(exception.getDescription().cStr());
  size_t end = text.find("; ");
  if (text.rfind("expected ", 0) == 0 && end != text.npos) text.erase(0, end + 2);
  return text;
}

PackSender::PackSender(kernelio::Env& env, PackQueue& queue, std::shared_ptr<FetchWork> work,
                       PktWriter& writer, kj::AsyncOutputStream& out, Settings settings)
    : env_(env),
      queue_(kj::addRef(queue)),
      work_(std::move(work)),
      writer_(writer),
      out_(out),
      settings_(std::move(settings)),
      lastSent_(env.timer.now()) {}

void PackSender::share(kj::Maybe<kj::Own<CachedPack>> pack) {
  KJ_IF_MAYBE(found, pack) { shared_ = kj::heap<CachedPack::Reader>(kj::mv(*found)); }
}

kj::Promise<void> PackSender::run() { return runInner(); }

Co<void> PackSender::runInner() {
  kj::Maybe<kj::Exception> failure;
  kj::Maybe<kj::Own<PackQueue::Opened>> opened;
  CachedPack::Reader* shared = nullptr;
  KJ_IF_MAYBE(reader, shared_) { shared = reader->get(); }
  if (shared == nullptr) opened = queue_->open();
  if (shared == nullptr && opened == nullptr) {
    failure = KJ_EXCEPTION(OVERLOADED, "too many fetches are being served; try again later");
  } else {
    kj::Promise<void> sending = shared != nullptr ? sendShared(*shared).promise() : build().promise();
    failure = co_await failureOf(kj::mv(sending));
  }
  turn_ = nullptr;
  KJ_IF_MAYBE(exception, failure) {
    if (isDisconnect(*exception) || settings_.bandPacketBytes == 0) {
      kj::throwFatalException(kj::mv(*exception));
    }
    // A packet that is on its way stays whole.
    co_await waitWritten();
    KJ_LOG(WARNING, "a pack could not be built", settings_.requestId, *exception);
    co_await tell(kBandError, "upload-pack: the pack could not be built: " +
                                  sentenceOf(*exception) + "\n");
  }
  if (settings_.bandPacketBytes > 0) writer_.flush();
  co_await writer_.send();
}

Co<void> PackSender::build() {
  co_await writer_.send();
  co_await takeTurn();
  co_await plan();
  co_await transmit();
}

Co<void> PackSender::takeTurn() {
  bool waits = queue_->full();
  auto turn = queue_->turn(settings_.key).then([this](kj::Own<PackQueue::Turn> turn) {
    turn_ = kj::mv(turn);
  });
  if (waits && settings_.progress && work_->builder == nullptr) {
    co_await tell(kBandProgress, "Waiting for other fetches\n");
  }
  auto waiting = waitFor(kj::mv(turn));
  co_await kj::mv(waiting);
}

Co<void> PackSender::waitFor(kj::Promise<void> work) {
  return waitAlive(env_.timer, settings_.bandPacketBytes == 0 ? 0 * kj::SECONDS : settings_.keepAlive, kj::mv(work),
                   [this]() -> kj::Promise<void> { return keepAlive(); });
}

Co<void> PackSender::keepAlive() {
  if (settings_.bandPacketBytes == 0 || !written_) co_return;
  writer_.raw(kj::StringPtr(kKeepalivePacket.data(), kKeepalivePacket.size()).asBytes());
  co_await writer_.send();
  lastSent_ = env_.timer.now();
}

void PackSender::write(kj::Array<const kj::byte> bytes) {
  written_ = false;
  auto data = bytes.asPtr();
  writing_ = out_.write(data.begin(), data.size())
                 .attach(kj::mv(bytes))
                 .then([this]() {
                   written_ = true;
                   lastSent_ = env_.timer.now();
                 })
                 .eagerlyEvaluate(nullptr);
}

kj::Promise<void> PackSender::waitWritten() {
  kj::Promise<void> writing = kj::mv(writing_);
  writing_ = kj::READY_NOW;
  return writing;
}

Co<void> PackSender::tell(int band, std::string text) {
  writer_.band(band, text, settings_.bandPacketBytes - 4);
  co_await writer_.send();
  lastSent_ = env_.timer.now();
}

Co<void> PackSender::plan() {
  for (;;) {
    bool done = false;
    auto planning = planOnWorker().then([&done](bool ended) { done = ended; });
    auto planned = waitFor(kj::mv(planning));
    co_await kj::mv(planned);
    if (done) break;
    co_await tellFound(work_->objectsFound());
  }
  co_await tellPlan(work_->builder->statistics(), work_->wholePacks());
}

// Now and then, while nothing is sent.
Co<void> PackSender::tellFound(uint64_t objects) {
  auto idle = env_.timer.now() - lastSent_;
  if (settings_.progress && idle >= kProgressInterval && objects > 0) {
    co_await tell(kBandProgress, "Enumerating objects: " + std::to_string(objects) + "\r");
  } else if (settings_.keepAlive > 0 * kj::SECONDS && idle >= settings_.keepAlive) {
    co_await keepAlive();
  }
}

Co<void> PackSender::tellPlan(const PackBuildStatistics& statistics, size_t wholePacks) {
  if (!settings_.progress) co_return;
  std::string count = std::to_string(statistics.objects);
  std::string text = "Enumerating objects: " + count + ", done.\n";
  if (wholePacks > 0) {
    text = "Sending " + count + " objects, " + std::to_string(wholePacks) +
           (wholePacks == 1 ? " pack as it is.\n" : " packs as they are.\n");
  }
  co_await tell(kBandProgress, text);
}

Co<void> PackSender::tellTotal(const PackBuildStatistics& statistics) {
  if (!settings_.progress) co_return;
  co_await tell(kBandProgress, "Total " + std::to_string(statistics.objects) + " objects, " +
                                   std::to_string(statistics.bytes) + " bytes; " +
                                   std::to_string(statistics.deflatedAnew) + " compressed anew.\n");
}

// What is published of it, until it has ended.
Co<void> PackSender::sendShared(CachedPack::Reader& reader) {
  co_await writer_.send();
  CachedPack& pack = reader.pack();
  for (bool told = false;;) {
    if (pack.planned && !told) {
      told = true;
      co_await tellPlan(pack.statistics, pack.wholePacks);
    }
    if (reader.sent() < pack.bytes()) {
      auto sending = reader.send(out_);
      co_await kj::mv(sending);
      lastSent_ = env_.timer.now();
    } else if (pack.ended()) {
      break;
    } else {
      co_await awaitMore(pack);
    }
  }
  KJ_IF_MAYBE(failure, pack.failure()) { kj::throwFatalException(kj::cp(*failure)); }
  co_await tellTotal(pack.statistics);
}

Co<void> PackSender::awaitMore(CachedPack& pack) {
  auto changed = waitFor(pack.whenChanged());
  co_await kj::mv(changed);
  if (!pack.planned && !pack.ended()) co_await tellFound(pack.objectsFound);
}

kj::Promise<bool> PackSender::planOnWorker() {
  return env_.workers.run([work = work_]() { return work->stepPlan(kPlanBudget); });
}

kj::Promise<PackSender::Piece> PackSender::makePieceOnWorker() {
  return env_.workers.run([work = work_, bytes = settings_.bandPacketBytes]() {
    return makePiece(*work, bytes);
  });
}

PackSender::Piece PackSender::makePiece(FetchWork& work, size_t bandPacketBytes) {
  BandFrames frames(bandPacketBytes, kPieceBytes + PackBuilder::kPieceOvershoot + 1024);
  Piece piece;
  piece.more = work.builder->produce(frames, kPieceBytes);
  piece.bytes = frames.finish();
  return piece;
}

Co<void> PackSender::transmit() {
  for (bool more = true; more;) {
    if (turn_ == nullptr) co_await takeTurn();
    Piece piece;
    auto making = makePieceOnWorker().then([&piece](Piece made) { piece = kj::mv(made); });
    auto made = waitFor(kj::mv(making));
    co_await kj::mv(made);
    more = piece.more;
    // Others go on while this one waits for its client, and take turns with it otherwise.
    if (!written_ || !more || queue_->waiting() > 0) turn_ = nullptr;
    co_await waitWritten();
    write(kj::mv(piece.bytes));
  }
  co_await waitWritten();
  co_await tellTotal(work_->builder->statistics());
}

}  // namespace packmoor::gitlayer
