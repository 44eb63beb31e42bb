// One client connection of GitHttpServer: routes its requests and answers them.
#pragma once

#include "http_streams.h"
#include "rpc/git_http.h"

#include <kj/compat/http.h>

namespace packmoor::rpc {

// The headers that are read or written by name.
class GitHttpHeaders {
 public:
  GitHttpHeaders();
  kj::HttpHeaderTable& table() { return *table_; }

 private:
  kj::HttpHeaderTable::Builder builder_;

 public:
  const kj::HttpHeaderId contentEncoding, gitProtocol, expect, cacheControl, expires, pragma, allow,
      retryAfter, packmoorRead;

 private:
  kj::Own<kj::HttpHeaderTable> table_;
};

// What all connections of a server share. Lives as long as the server.
struct GitHttpShared {
  kj::Timer& timer;
  gitlayer::GitFront& front;
  GitHttpOptions options;
  GitHttpHeaders headers;
  GitHttpStatistics statistics;
  uint64_t requestCount = 0;
  std::string problem;  // of /health; empty: ok
};

// Answers with one sentence of plain text.
kj::Promise<void> sendText(GitHttpHeaders& headers, kj::HttpService::Response& response,
                           uint32_t status, kj::StringPtr statusText, kj::String sentence,
                           kj::StringPtr allow = nullptr);

// The other end of a connection: "192.0.2.7", "2001:db8::7"; empty where there is none.
std::string peerAddress(int fd);

kj::Own<kj::HttpService> makeGitHttpConnection(GitHttpShared& shared, JoiningStream& stream);

}  // namespace packmoor::rpc
