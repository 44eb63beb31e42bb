#include "gitlayer/git_front.h"

#include "gitlayer/receive_pack.h"
#include "gitlayer/upload_archive.h"
#include "gitlayer/upload_pack.h"

#include <kernelio/co.h>

namespace packmoor::gitlayer {

namespace {

class CountedInput final : public kj::AsyncInputStream {
 public:
  CountedInput(kj::AsyncInputStream& inner, uint64_t& bytes) : inner_(inner), bytes_(bytes) {}

  kj::Promise<size_t> tryRead(void* buffer, size_t minBytes, size_t maxBytes) override {
    return inner_.tryRead(buffer, minBytes, maxBytes).then([this](size_t got) {
      bytes_ += got;
      return got;
    });
  }
  kj::Maybe<uint64_t> tryGetLength() override { return inner_.tryGetLength(); }

 private:
  kj::AsyncInputStream& inner_;
  uint64_t& bytes_;
};

class CountedOutput final : public kj::AsyncOutputStream {
 public:
  CountedOutput(kj::AsyncOutputStream& inner, uint64_t& bytes) : inner_(inner), bytes_(bytes) {}

  kj::Promise<void> write(const void* buffer, size_t size) override {
    bytes_ += size;
    return inner_.write(buffer, size);
  }
  kj::Promise<void> write(kj::ArrayPtr<const kj::ArrayPtr<const kj::byte>> pieces) override {
    for (auto piece : pieces) bytes_ += piece.size();
    return inner_.write(pieces);
  }
  kj::Promise<void> whenWriteDisconnected() override { return inner_.whenWriteDisconnected(); }
  kj::Maybe<kj::Promise<uint64_t>> tryPumpFrom(kj::AsyncInputStream& input,
                                               uint64_t amount) override {
    auto pumped = inner_.tryPumpFrom(input, amount);
    KJ_IF_MAYBE(promise, pumped) {
      return promise->then([this](uint64_t done) {
        bytes_ += done;
        return done;
      });
    }
    return nullptr;
  }

 private:
  kj::AsyncOutputStream& inner_;
  uint64_t& bytes_;
};

// Counts what passes through a session.
class CountedSession final : public GitSession {
 public:
  CountedSession(kj::Own<GitSession> inner, GitService service, FrontStatistics& statistics)
      : inner_(kj::mv(inner)), service_(service), statistics_(statistics) {
    ++statistics_.sessions;
  }
  ~CountedSession() noexcept(false) { --statistics_.sessions; }

  kj::Promise<void> advertise(kj::AsyncOutputStream& out, bool httpBanner) override {
    ++statistics_.advertisements;
    auto counted = kj::heap<CountedOutput>(out, statistics_.bytesOut);
    auto done = inner_->advertise(*counted, httpBanner);
    return done.attach(kj::mv(counted));
  }
  kj::Promise<void> serve(kj::AsyncInputStream& in, kj::AsyncOutputStream& out) override {
    if (service_ == GitService::kUploadPack) ++statistics_.fetches;
    if (service_ == GitService::kUploadArchive) ++statistics_.archives;
    auto countedIn = kj::heap<CountedInput>(in, statistics_.bytesIn);
    auto countedOut = kj::heap<CountedOutput>(out, statistics_.bytesOut);
    auto done = inner_->serve(*countedIn, *countedOut);
    return done.attach(kj::mv(countedIn), kj::mv(countedOut));
  }

 private:
  kj::Own<GitSession> inner_;
  GitService service_;
  FrontStatistics& statistics_;
};

OpenedSession refused(Refusal::Reason reason, std::string message) {
  OpenedSession opened;
  opened.refusal.reason = reason;
  opened.refusal.message = std::move(message);
  return opened;
}

std::string_view withoutGitSuffix(std::string_view name) {
  constexpr std::string_view kSuffix = ".git";
  while (!name.empty() && name.front() == '/') name.remove_prefix(1);
  while (!name.empty() && name.back() == '/') name.remove_suffix(1);
  if (name.size() > kSuffix.size() && name.substr(name.size() - kSuffix.size()) == kSuffix) {
    name.remove_suffix(kSuffix.size());
  }
  return name;
}

constexpr int64_t kAtLeastTimeoutMs = 10'000;

class GitFrontImpl final : public GitFront {
 public:
  explicit GitFrontImpl(GitNode& node)
      : node_(node), packs_(kj::refcounted<PackQueue>(node.options().packBuildsMax)) {
    const kj::StringPtr root = node.env().disk.root();
    if (root.size() == 0 || node.options().fetchCacheBytes == 0) return;
    cache_ = kj::heap<PackCache>(node.env(), kj::addRef(*packs_), kj::str(root, "/fetch-cache").cStr(),
                                 node.options().fetchCacheBytes);
  }

  kj::Promise<OpenedSession> open(GitRequest request) override {
    request.repository = withoutGitSuffix(request.repository);
    auto problem = repositoryNameProblem(request.repository);
    if (problem) return refused(Refusal::Reason::kBadRequest, std::move(*problem));
    return find(kj::mv(request)).promise().catch_([](kj::Exception&& exception) {
      return refused(Refusal::Reason::kUnavailable, exception.getDescription().cStr());
    });
  }

  FrontStatistics statistics() override {
    FrontStatistics result = statistics_;
    result.pushes = receive_.pushes;
    result.pushesRefused = receive_.pushesRefused;
    if (cache_.get() != nullptr) {
      const PackCacheStatistics cache = cache_->statistics();
      result.cacheHits = cache.hits;
      result.cacheMisses = cache.misses;
      result.cachedPacks = cache.entries;
      result.cachedBytes = cache.bytes;
    }
    return result;
  }

 private:
  // What is fetched or shown must be as new as any earlier answer. A push is ordered by the primary
  // and looks again by itself, so it begins with what is at hand.
  Co<OpenedSession> find(GitRequest request) {
    using Kind = ReadPolicy::Kind;
    const bool fetches = request.service != GitService::kReceivePack;
    const Kind kind = fetches ? request.read.kind : Kind::kLinearizable;
    if (kind == Kind::kAtLeast) {
      auto volume = node_.replicator().findVolume(request.read.volume.c_str());
      if (volume == nullptr) {
        co_return refused(Refusal::Reason::kBadRequest,
                          "there is no volume '" + request.read.volume + "' on this node");
      }
      auto reached = reach(KJ_ASSERT_NONNULL(volume), request.read);
      co_await kj::mv(reached);
    }
    const bool fresh = (fetches || request.advertise) && kind == Kind::kLinearizable;
    auto finding = node_.view(request.repository, fresh);
    auto view = co_await kj::mv(finding);
    if (view == nullptr && !fresh && kind == Kind::kLinearizable) {
      auto again = node_.view(request.repository, true);
      view = co_await kj::mv(again);
    }
    KJ_IF_MAYBE(found, view) {
      OpenedSession opened;
      if (kind == Kind::kAvailable) opened.readNote = readNote(**found);
      opened.session = makeSession(kj::mv(request), kj::mv(*found));
      co_return opened;
    }
    co_return refused(Refusal::Reason::kNotFound,
                      node_.formerText(request.repository)
                          .value_or("there is no repository '" + request.repository + "'"));
  }

  // Until this node has applied what the policy names.
  kj::Promise<void> reach(replicator::Volume& volume, const ReadPolicy& policy) {
    auto late = node_.env().timer.afterDelay(kAtLeastTimeoutMs * kj::MILLISECONDS)
                    .then([policy]() -> kj::Promise<void> {
                      return KJ_EXCEPTION(OVERLOADED, "this node has not got as far in time",
                                          policy.volume.c_str(), policy.index);
                    });
    return volume.whenApplied(policy.index).exclusiveJoin(kj::mv(late));
  }

  std::string readNote(RepositoryView& view) {
    auto volume = node_.volumeOf(view.info().id);
    KJ_IF_MAYBE(held, volume) {
      const int64_t staleMs = held->status().staleMs;
      return kj::str("available=", held->name().c_str(), ":", view.index(), "; stale-ms=",
                     staleMs < 0 ? kj::str("unknown") : kj::str(staleMs)).cStr();
    }
    return "available";
  }

  kj::Own<GitSession> makeSession(GitRequest request, kj::Own<RepositoryView> view) {
    GitService service = request.service;
    kj::Own<GitSession> session;
    switch (service) {
      case GitService::kUploadPack:
        session = upload(kj::mv(request), kj::mv(view));
        break;
      case GitService::kReceivePack:
        session = makeReceivePackSession(node_, kj::mv(request), kj::mv(view), receive_);
        break;
      case GitService::kUploadArchive:
        session = makeUploadArchiveSession(node_, *packs_, kj::mv(request), kj::mv(view));
        break;
    }
    return kj::heap<CountedSession>(kj::mv(session), service, statistics_);
  }

  kj::Own<GitSession> upload(GitRequest request, kj::Own<RepositoryView> view) {
    const RepositorySettings& settings = view->info().settings;
    UploadPolicy policy;
    if (settings.allowAnySha1InWant) policy.wants = UploadPolicy::Wants::kAny;
    policy.hiddenTips = settings.allowTipSha1InWant;
    policy.filters = settings.allowFilter;
    policy.keepAliveSeconds = settings.uploadKeepAlive;
    return makeUploadPackSession(node_, *packs_, kj::mv(request), kj::mv(view), policy, cache_.get());
  }

  GitNode& node_;
  FrontStatistics statistics_;
  ReceiveCounters receive_;
  kj::Own<PackQueue> packs_;
  kj::Own<PackCache> cache_;   // null: none
};

}  // namespace

kj::Own<GitFront> GitFront::create(GitNode& node) { return kj::heap<GitFrontImpl>(node); }

}  // namespace packmoor::gitlayer
