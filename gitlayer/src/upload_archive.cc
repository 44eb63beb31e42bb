#include "gitlayer/upload_archive.h"

#include "gitlayer/pkt_line.h"

#include "archive_builder.h"
#include "band_frames.h"
#include "keep_alive.h"
#include "pack_sender.h"
#include "visible_view.h"

#include <kj/debug.h>

namespace packmoor::gitlayer {
namespace {

constexpr std::string_view kArgument = "argument ";
constexpr size_t kPieceBytes = 512u << 10;
constexpr int kBandMessages = 2, kBandError = 3;

// What workers are given; it may outlive the session.
struct ArchiveWork {
  kj::Own<RepositoryView> view;
  ArchiveRequest request;
  std::unique_ptr<ArchiveBuilder> builder;   // null: the formats are told, and nothing else

  struct Piece {
    kj::Array<const kj::byte> frames;
    std::string messages;
    bool more = false;
  };

  // A sentence says why there is no such archive.
  std::optional<std::string> open(int64_t nowSeconds) {
    ArchiveStart start;
    auto problem = findArchiveStart(*view, request.treeish, view->info().settings.archiveUnreachable,
                                    nowSeconds, start);
    if (!problem) builder = std::make_unique<ArchiveBuilder>(view->objects(), request, start);
    return problem;
  }

  Piece next() {
    BandFrames frames(kPktBytesMax, kPieceBytes);
    Piece piece;
    if (builder != nullptr) {
      piece.more = builder->produce(frames, piece.messages, kPieceBytes);
    } else {
      const std::string names = archiveFormatNames();
      frames.write(kj::arrayPtr(reinterpret_cast<const kj::byte*>(names.data()), names.size()));
    }
    piece.frames = frames.finish();
    return piece;
  }
};

class UploadArchiveSession final : public GitSession {
 public:
  UploadArchiveSession(GitNode& node, PackQueue& queue, GitRequest request, kj::Own<RepositoryView> view)
      : node_(node),
        queue_(kj::addRef(queue)),
        request_(std::move(request)),
        work_(std::make_shared<ArchiveWork>()) {
    work_->view = visibleView(kj::mv(view));
  }

  kj::Promise<void> advertise(kj::AsyncOutputStream&, bool) override { return kj::READY_NOW; }
  kj::Promise<void> serve(kj::AsyncInputStream& in, kj::AsyncOutputStream& out) override {
    return serveInner(in, out);
  }

 private:
  Co<void> serveInner(kj::AsyncInputStream& in, kj::AsyncOutputStream& out) {
    PktReader reader(in);
    PktWriter writer(out);
    std::optional<std::string> problem;
    kj::Promise<void> reading = readRequest(reader, problem);
    auto failure = co_await failureOf(kj::mv(reading));
    writer.line("ACK");
    writer.flush();
    if (!problem && failure == nullptr) {
      kj::Promise<void> building = build(writer, problem);
      failure = co_await failureOf(kj::mv(building));
    }
    KJ_IF_MAYBE(exception, failure) {
      if (exception->getType() == kj::Exception::Type::DISCONNECTED) kj::throwFatalException(kj::mv(*exception));
      KJ_LOG(WARNING, "an archive could not be made", request_.requestId, request_.repository, *exception);
      problem = sentenceOf(*exception);
    }
    if (problem) writer.band(kBandError, "git upload-archive: " + *problem + "\n");
    writer.flush();
    co_await writer.send();
  }

  // `problem`: what is wrong with it.
  Co<void> readRequest(PktReader& reader, std::optional<std::string>& problem) {
    std::vector<std::string> words;
    for (;;) {
      Pkt pkt = co_await reader.read();
      if (pkt.kind == PktKind::kFlush) break;
      const std::string_view line = pkt.line();
      if (pkt.kind != PktKind::kData || line.substr(0, kArgument.size()) != kArgument) {
        problem = "'argument' token or flush expected";
        co_return;
      }
      if (words.size() == ArchiveRequest::kWordsMax) {
        problem = "Too many options (>" + std::to_string(ArchiveRequest::kWordsMax) + ")";
        co_return;
      }
      words.emplace_back(line.substr(kArgument.size()));
    }
    problem = work_->request.parse(words);
  }

  // `problem`: why nothing was built.
  Co<void> build(PktWriter& writer, std::optional<std::string>& problem) {
    auto opened = queue_->open();
    if (opened == nullptr) {
      problem = "too many fetches are being served; try again later";
      co_return;
    }
    co_await writer.send();
    kj::Maybe<kj::Own<PackQueue::Turn>> turn;
    if (!work_->request.list) {
      auto first = co_await takeTurn(writer);
      turn = kj::mv(first);
      auto opening = node_.env().workers.run(
          [work = work_, now = node_.env().clock.nowMs() / 1000]() { return work->open(now); });
      auto refused = co_await kj::mv(opening);
      problem = refused;
      if (problem) co_return;
    }
    for (bool more = true; more;) {
      if (turn == nullptr) {
        auto next = co_await takeTurn(writer);
        turn = kj::mv(next);
      }
      ArchiveWork::Piece piece;
      auto making = node_.env().workers.run([work = work_]() { return work->next(); })
                        .then([&piece](ArchiveWork::Piece made) { piece = kj::mv(made); });
      auto made = waitFor(kj::mv(making), writer);
      co_await kj::mv(made);
      more = piece.more;
      turn = nullptr;    // while this client's network takes what was made
      if (!piece.messages.empty()) writer.band(kBandMessages, piece.messages);
      writer.raw(piece.frames);
      co_await writer.send();
    }
  }

  // Ends as `work` does, and keeps the client alive meanwhile. Nothing else is being written.
  Co<void> waitFor(kj::Promise<void> work, PktWriter& writer) {
    const auto interval = work_->view->info().settings.uploadKeepAlive * kj::SECONDS;
    return waitAlive(node_.env().timer, interval, kj::mv(work), [&writer]() {
      writer.raw(kj::StringPtr(kKeepalivePacket.data(), kKeepalivePacket.size()).asBytes());
      return writer.send();
    });
  }

  Co<kj::Own<PackQueue::Turn>> takeTurn(PktWriter& writer) {
    kj::Own<PackQueue::Turn> taken;
    auto turn = queue_->turn(request_.repository + '\n' + request_.principal)
                    .then([&taken](kj::Own<PackQueue::Turn> turn) { taken = kj::mv(turn); });
    auto waiting = waitFor(kj::mv(turn), writer);
    co_await kj::mv(waiting);
    co_return kj::mv(taken);
  }

  GitNode& node_;
  kj::Own<PackQueue> queue_;
  GitRequest request_;
  std::shared_ptr<ArchiveWork> work_;
};

}  // namespace

kj::Own<GitSession> makeUploadArchiveSession(GitNode& node, PackQueue& queue, GitRequest request,
                                             kj::Own<RepositoryView> view) {
  return kj::heap<UploadArchiveSession>(node, queue, std::move(request), kj::mv(view));
}

}  // namespace packmoor::gitlayer
