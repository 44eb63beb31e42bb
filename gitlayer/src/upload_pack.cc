#include "gitlayer/upload_pack.h"

#include "gitlayer/agent.h"
#include "pack_key.h"
#include "upload_pack_session.h"
#include "visible_view.h"

#include <kj/debug.h>

namespace packmoor::gitlayer {
namespace {

constexpr uint32_t kCommitBudget = 10'000;   // commits looked at in one job of a worker

// With all that fetch of protocol 2 can do beyond what it must.
std::string fetchFeatures(const UploadPolicy& policy) {
  std::string features = "fetch=shallow wait-for-done";
  if (policy.filters) features += " filter";
  if (policy.refInWant) features += " ref-in-want";
  if (policy.sidebandAll) features += " sideband-all";
  return features;
}

}  // namespace

UploadPackSession::UploadPackSession(GitNode& node, PackQueue& queue, GitRequest request,
                                     kj::Own<RepositoryView> view, UploadPolicy policy, PackCache* cache)
    : node_(node),
      queue_(kj::addRef(queue)),
      cache_(cache),
      request_(std::move(request)),
      policy_(policy),
      session_(newSessionId(node.env().random)),
      view_(std::make_shared<kj::Own<RepositoryView>>(visibleView(kj::mv(view)))) {}

// ---- the advertisement

kj::Promise<void> UploadPackSession::advertise(kj::AsyncOutputStream& out, bool httpBanner) {
  return advertiseInner(out, httpBanner);
}

Co<void> UploadPackSession::advertiseInner(kj::AsyncOutputStream& out, bool httpBanner) {
  PktWriter writer(out);
  if (request_.protocolVersion == 2) {
    writer.line("version 2");
    writer.line("agent=" + std::string(kAgent));
    writer.line("ls-refs=unborn");
    writer.line(fetchFeatures(policy_));
    writer.line("server-option");
    writer.line("object-format=sha1");
    writer.line("session-id=" + session_);
    if (policy_.objectInfo) writer.line("object-info");
  } else {
    if (httpBanner) {
      writer.line("# service=git-upload-pack");
      writer.flush();
    }
    if (request_.protocolVersion == 1) writer.line("version 1");
    auto view = view_;
    auto making = node_.env().workers.run([view, policy = policy_, session = session_]() {
      return std::make_shared<RefPrinter>(**view, GitService::kUploadPack,
                                          capabilitiesV0(**view, policy, session));
    });
    auto printer = co_await kj::mv(making);
    auto sending = sendRefs(node_.env(), kj::mv(printer), view_, writer);
    co_await kj::mv(sending);
  }
  writer.flush();
  co_await writer.send();
}

// ---- what both protocols share

// Once a session, however many commands a client sends.
void UploadPackSession::noteSession(const std::string& session) {
  if (session.empty() || sessionNoted_) return;
  sessionNoted_ = true;
  logSession("fetch", session, session_, request_);
}

kj::Promise<void> UploadPackSession::serve(kj::AsyncInputStream& in, kj::AsyncOutputStream& out) {
  // Nobody builds a pack for a client that is gone. One that has all its answers may go.
  auto gone = out.whenWriteDisconnected().then([this]() -> kj::Promise<void> {
    if (idle_) return kj::READY_NOW;
    return KJ_EXCEPTION(DISCONNECTED, "the client went away");
  });
  return serveInner(in, out).promise().exclusiveJoin(kj::mv(gone));
}

Co<void> UploadPackSession::serveInner(kj::AsyncInputStream& in, kj::AsyncOutputStream& out) {
  PktReader reader(in);
  PktWriter writer(out);
  kj::Promise<void> serving = request_.protocolVersion == 2
                                  ? kj::Promise<void>(serveV2(reader, writer, out))
                                  : kj::Promise<void>(serveV0(reader, writer, out));
  auto failure = co_await failureOf(kj::mv(serving));
  KJ_IF_MAYBE(exception, failure) {
    if (packBegun_ || exception->getType() == kj::Exception::Type::DISCONNECTED) {
      kj::throwFatalException(kj::mv(*exception));
    }
    co_await refuse(writer, "upload-pack: " + sentenceOf(*exception));
  }
}

Co<Problem> UploadPackSession::prepare(FetchRequest request) {
  Problem refused;
  for (bool fresh = false;; fresh = true) {
    if (fresh) {
      auto view = co_await node_.view(request_.repository, true);
      KJ_IF_MAYBE(found, view) {
        view_ = std::make_shared<kj::Own<RepositoryView>>(visibleView(kj::mv(*found)));
      } else {
        break;
      }
    }
    work_ = std::make_shared<FetchWork>(view_, request);
    co_await inTurns(&FetchWork::stepWants);
    refused = work_->refusedWant();
    if (!refused) {
      auto opening = openFilter();
      refused = co_await kj::mv(opening);
      co_return refused;
    }
    // Who asked for no more than what is here gets no more.
    if (fresh || request_.read.kind != ReadPolicy::Kind::kLinearizable) break;
  }
  co_return "upload-pack: " + *refused;
}

kj::Promise<Problem> UploadPackSession::openFilter() {
  if (!work_->request.filter) return Problem();
  return node_.env().workers.run([work = work_]() { return work->openFilter(); });
}

// `readiness`: also whether enough is common to build a pack.
Co<void> UploadPackSession::lookUpHaves(bool readiness) {
  for (bool done = false; !done;) {
    done = co_await onWorker(&FetchWork::stepHaves, kCommitBudget);
  }
  for (bool done = !readiness; !done;) {
    done = co_await onWorker(&FetchWork::stepReady, kCommitBudget);
  }
}

Co<Problem> UploadPackSession::planShallow() {
  if (!work_->request.shallow.any()) co_return std::nullopt;
  co_await inTurns(&FetchWork::stepShallow);
  co_return work_->shallow().problem();
}

void UploadPackSession::tellShallow(PktWriter& writer) {
  for (const ObjectId& id : work_->shallow().shallow()) {
    writer.line(std::string("shallow ") + id.hex().cStr());
  }
  for (const ObjectId& id : work_->shallow().unshallow()) {
    writer.line(std::string("unshallow ") + id.hex().cStr());
  }
}

// A short computation is made at once; a longer one takes turns with others, as packs do.
Co<void> UploadPackSession::inTurns(bool (FetchWork::*step)(uint32_t)) {
  kj::Maybe<kj::Own<PackQueue::Turn>> turn;
  for (;;) {
    auto decided = co_await onWorker(step, kCommitBudget);
    if (decided) co_return;
    if (turn != nullptr && queue_->waiting() == 0) continue;
    turn = nullptr;
    auto next = co_await queue_->turn(queueKey());
    turn = kj::mv(next);
  }
}

kj::Promise<bool> UploadPackSession::onWorker(bool (FetchWork::*step)(uint32_t), uint32_t budget) {
  return node_.env().workers.run(
      [work = work_, step, budget]() { return (work.get()->*step)(budget); });
}

Co<void> UploadPackSession::sendPack(PktWriter& writer, kj::AsyncOutputStream& out,
                                     size_t bandPacketBytes) {
  packBegun_ = true;
  PackSender::Settings settings;
  settings.bandPacketBytes = bandPacketBytes;
  settings.progress = bandPacketBytes > 0 && !work_->request.noProgress;
  settings.keepAlive = policy_.keepAliveSeconds * kj::SECONDS;
  settings.key = queueKey();
  settings.requestId = request_.requestId;
  std::optional<std::string> key;
  if (cache_ != nullptr) {
    auto making = node_.env().workers.run([work = work_, bandPacketBytes]() {
      return packKey(*work, bandPacketBytes);
    });
    key = co_await kj::mv(making);
  }
  PackSender sender(node_.env(), *queue_, work_, writer, out, std::move(settings));
  if (key) sender.share(cache_->get(*key, work_, bandPacketBytes, queueKey()));
  co_await sender.run();
  packBegun_ = false;
}

Co<void> UploadPackSession::refuse(PktWriter& writer, std::string message) {
  if (writer.bandsAll()) {
    writer.band(3, message);
  } else {
    writer.line("ERR " + message);
  }
  co_await writer.send();
}

kj::Own<GitSession> makeUploadPackSession(GitNode& node, PackQueue& queue, GitRequest request,
                                          kj::Own<RepositoryView> view, UploadPolicy policy,
                                          PackCache* cache) {
  return kj::heap<UploadPackSession>(node, queue, std::move(request), kj::mv(view), policy, cache);
}

kj::Own<GitSession> makeUploadPackSession(GitNode& node, GitRequest request,
                                          kj::Own<RepositoryView> view, UploadPolicy policy) {
  auto queue = kj::refcounted<PackQueue>(node.options().packBuildsMax);
  return makeUploadPackSession(node, *queue, std::move(request), kj::mv(view), policy);
}

}  // namespace packmoor::gitlayer
