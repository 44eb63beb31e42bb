// GitFront: git's wire protocol over byte streams, above a GitNode.
//
// Why: smart HTTP and ssh differ only in how they carry two streams. The front parses
// what git clients say, checks it, and answers in git's own words; it knows no HTTP.
//
// A session is one request of a stateless client: either the advertisement, or one body in and
// one answer out; or all that a client asks on a connection of its own (stateful). Dropping a session's promise abandons the work: nothing is left but, for a
// large push, an extent that expires. Limits and time-outs are in GitOptions and here.
// Sources: gitprotocol-common(5), gitprotocol-pack(5), gitprotocol-v2(5), gitprotocol-http(5),
// gitprotocol-capabilities(5).
#pragma once

#include "gitlayer/git_node.h"
#include "gitlayer/read_policy.h"

#include <kj/async-io.h>

namespace packmoor::gitlayer {

enum class GitService : uint8_t { kUploadPack, kReceivePack, kUploadArchive };

struct GitRequest {
  std::string repository;          // as in the URL; ".git" is cut off
  GitService service = GitService::kUploadPack;
  uint32_t protocolVersion = 0;    // 0, 1 or 2, from Git-Protocol; receive-pack speaks 0 and 1
  bool advertise = false;          // the request asks for the refs, and nothing else
  bool stateful = false;           // ssh: advertise() and serve() on one stream, which has no end of
                                   // its own behind what the client sends
  ReadPolicy read;                 // of upload-pack and upload-archive
  std::string principal;           // who, for the log; empty: anonymous
  std::string client;              // the address that it came from, for the log; may be empty
  std::string requestId;           // for log lines
};

// Why a request is not served. `message` is a sentence for a person at a terminal.
struct Refusal {
  enum class Reason : uint8_t { kNotFound, kBadRequest, kUnavailable, kTooMany };
  Reason reason = Reason::kNotFound;
  std::string message;
};

class GitSession {
 public:
  virtual ~GitSession() noexcept(false) {}
  // The answer to GET info/refs, from "# service=..." where HTTP wants it to the last flush.
  virtual kj::Promise<void> advertise(kj::AsyncOutputStream& out, bool httpBanner) = 0;
  // The answer to a POST. `in` is the request body, already inflated. What is wrong with the
  // request after output has begun is said in git's way (ERR, side-band 3, report-status).
  virtual kj::Promise<void> serve(kj::AsyncInputStream& in, kj::AsyncOutputStream& out) = 0;
};

struct OpenedSession {
  kj::Maybe<kj::Own<GitSession>> session;
  Refusal refusal;                 // when there is no session
  // With ReadPolicy::kAvailable: what is shown, and how old it may be, for the client's programs:
  // "available=main:1234; stale-ms=40".
  std::string readNote;
};

struct FrontStatistics {
  uint64_t pushes = 0, pushesRefused = 0, fetches = 0, advertisements = 0, archives = 0;
  uint64_t bytesIn = 0, bytesOut = 0;
  uint64_t sessions = 0;   // open now
  // Packs that are kept for later requests (pack_cache.h).
  uint64_t cacheHits = 0, cacheMisses = 0, cachedPacks = 0, cachedBytes = 0;
};

class GitFront {
 public:
  static kj::Own<GitFront> create(GitNode& node);
  virtual ~GitFront() noexcept(false) {}
  virtual kj::Promise<OpenedSession> open(GitRequest request) = 0;
  virtual FrontStatistics statistics() = 0;
};

}  // namespace packmoor::gitlayer
