// GitHttpServer over real loopback sockets, with a front that tells what it was asked. Requests
// are written byte by byte as a client would; what git itself makes of it is tested in
// tests/integration.
#include "rpc/git_http.h"

#include <gtest/gtest.h>
#include <kernelio/file_input.h>
#include <support/temp_dir.h>

#include <kj/async-io.h>
#include <kj/compat/gzip.h>
#include <kj/debug.h>

#include <fcntl.h>

#include <fstream>

namespace packmoor::rpc {
namespace {

using gitlayer::GitRequest;
using gitlayer::GitService;
using gitlayer::GitSession;
using gitlayer::OpenedSession;
using gitlayer::Refusal;

std::string readAll(kj::AsyncInputStream& in, kj::WaitScope& scope) {
  auto text = in.readAllText().wait(scope);
  return {text.begin(), text.size()};
}

// Answers with what it was asked, and for a POST with the size of the body.
class EchoSession final : public GitSession {
 public:
  explicit EchoSession(std::string greeting) : greeting_(std::move(greeting)) {}
  kj::Promise<void> advertise(kj::AsyncOutputStream& out, bool httpBanner) override {
    if (greeting_.find("fail-at-once") != std::string::npos) {
      return KJ_EXCEPTION(FAILED, "the session failed");
    }
    return out.write(greeting_.data(), greeting_.size());
  }
  kj::Promise<void> serve(kj::AsyncInputStream& in, kj::AsyncOutputStream& out) override {
    return in.readAllBytes().then([this, &out](kj::Array<kj::byte> body) -> kj::Promise<void> {
      answer_ = greeting_ + " body " + std::to_string(body.size()) + "\n";
      auto written = out.write(answer_.data(), answer_.size());
      if (greeting_.find("fail-late") == std::string::npos) return kj::mv(written);
      return written.then([]() -> kj::Promise<void> {
        return KJ_EXCEPTION(FAILED, "the session failed late");
      });
    });
  }

 private:
  std::string greeting_, answer_;
};

// Answers with a file between two words.
class FileSession final : public GitSession {
 public:
  explicit FileSession(int fd) : input_(fd, 3, 5'000'000) {}
  kj::Promise<void> advertise(kj::AsyncOutputStream& out, bool) override {
    return out.write("begin", 5)
        .then([this, &out]() { return input_.pumpTo(out, 5'000'000); })
        .then([&out](uint64_t) { return out.write("end", 3); });
  }
  kj::Promise<void> serve(kj::AsyncInputStream&, kj::AsyncOutputStream& out) override {
    return advertise(out, false);
  }

 private:
  kernelio::FileInput input_;
};

class FakeFront final : public gitlayer::GitFront {
 public:
  int file = -1;   // of repository "file"
  kj::Promise<OpenedSession> open(GitRequest request) override {
    OpenedSession opened;
    if (request.repository == "none") {
      opened.refusal = {Refusal::Reason::kNotFound, "There is no repository none."};
      return kj::mv(opened);
    }
    if (request.repository == "away") {
      opened.refusal = {Refusal::Reason::kUnavailable, "No quorum."};
      return kj::mv(opened);
    }
    if (request.repository == "file") {
      opened.session = kj::Own<GitSession>(kj::heap<FileSession>(file));
      return kj::mv(opened);
    }
    std::string greeting = request.repository + " " +
                           (request.service == GitService::kUploadPack ? "upload" : "receive") +
                           " v" + std::to_string(request.protocolVersion);
    client = request.client;
    opened.session = kj::Own<GitSession>(kj::heap<EchoSession>(greeting));
    return kj::mv(opened);
  }
  gitlayer::FrontStatistics statistics() override { return {}; }
  std::string client;   // of the last request
};

class GitHttp : public ::testing::Test {
 protected:
  ~GitHttp() noexcept override {}
  void start(GitHttpOptions options = {}, kj::UnixEventPort* events = nullptr) {
    server = GitHttpServer::create(io.provider->getTimer(), front, options, events);
    auto port = io.provider->getNetwork().parseAddress("127.0.0.1:0").wait(io.waitScope)->listen();
    address = kj::str("127.0.0.1:", port->getPort());
    serving = server->serve(kj::mv(port)).eagerlyEvaluate(nullptr);
  }
  kj::Own<kj::AsyncIoStream> connect() {
    return io.provider->getNetwork().parseAddress(address).wait(io.waitScope)->connect().wait(
        io.waitScope);
  }
  void send(kj::AsyncIoStream& stream, const std::string& text) {
    stream.write(text.data(), text.size()).wait(io.waitScope);
  }
  // One request on a connection of its own; the whole answer.
  std::string ask(const std::string& request) {
    auto stream = connect();
    send(*stream, request);
    stream->shutdownWrite();
    return readAll(*stream, io.waitScope);
  }
  std::string get(const std::string& path, const std::string& headers = "") {
    return ask("GET " + path + " HTTP/1.1\r\nHost: h\r\n" + headers + "\r\n");
  }
  std::string post(const std::string& path, const std::string& body,
                   const std::string& headers = "") {
    return ask("POST " + path + " HTTP/1.1\r\nHost: h\r\nContent-Type: application/x-" +
               path.substr(path.rfind('/') + 1) + "-request\r\nContent-Length: " +
               std::to_string(body.size()) + "\r\n" + headers + "\r\n" + body);
  }
  // Reads one answer with a Content-Length or chunked body from a connection that stays open.
  std::string readUntil(kj::AsyncIoStream& stream, const std::string& end) {
    std::string got;
    char byte;
    while (got.size() < end.size() || got.compare(got.size() - end.size(), end.size(), end) != 0) {
      if (stream.tryRead(&byte, 1, 1).wait(io.waitScope) == 0) break;
      got += byte;
    }
    return got;
  }

  static std::string withoutChunks(const std::string& body) {
    std::string text;
    for (size_t at = 0; at < body.size();) {
      const size_t bytes = std::stoul(body.substr(at), nullptr, 16);
      at = body.find("\r\n", at) + 2;
      text += body.substr(at, bytes);
      at += bytes + 2;
    }
    return text;
  }

  kj::AsyncIoContext io = kj::setupAsyncIo();
  FakeFront front;
  kj::Own<GitHttpServer> server;
  kj::String address;
  kj::Promise<void> serving = nullptr;
};

// What lies in a file reaches the client whole, by the system's own hand or by copies.
TEST_F(GitHttp, AnAnswerThatLiesInAFileArrivesWhole) {
  std::string content;
  for (int i = 0; content.size() < 5'000'003; ++i) content += std::to_string(i) + ",";
  content.resize(5'000'003);
  packmoor::testing::TempDir folder;
  const std::string path = folder.path("content");
  std::ofstream(path, std::ios::binary) << content;
  kj::AutoCloseFd fd(open(path.c_str(), O_RDONLY | O_CLOEXEC));
  front.file = fd;
  for (kj::UnixEventPort* events : {static_cast<kj::UnixEventPort*>(nullptr), &io.unixEventPort}) {
    start({}, events);
    auto stream = connect();
    send(*stream, "GET /file/info/refs?service=git-upload-pack HTTP/1.0\r\n\r\n");
    stream->shutdownWrite();
    const std::string answer = readAll(*stream, io.waitScope);
    const size_t body = answer.find("begin");
    ASSERT_NE(body, std::string::npos) << answer.substr(0, 200);
    std::string unchunked = withoutChunks(answer.substr(answer.find("\r\n\r\n") + 4));
    EXPECT_TRUE(unchunked == "begin" + content.substr(3) + "end") << unchunked.size();
    serving = nullptr;
    server = nullptr;
  }
}

#define EXPECT_HAS(text, part) EXPECT_NE((text).find(part), std::string::npos) << (text)

TEST_F(GitHttp, AdvertisementHasGitsHeaders) {
  start();
  std::string answer = get("/team/app.git/info/refs?service=git-upload-pack",
                           "Git-Protocol: version=2\r\n");
  EXPECT_HAS(answer, "HTTP/1.1 200 OK\r\n");
  EXPECT_HAS(answer, "Content-Type: application/x-git-upload-pack-advertisement\r\n");
  EXPECT_HAS(answer, "Cache-Control: no-cache, max-age=0, must-revalidate\r\n");
  EXPECT_HAS(answer, "Pragma: no-cache\r\n");
  EXPECT_HAS(answer, "Expires: Fri, 01 Jan 1980 00:00:00 GMT\r\n");
  EXPECT_HAS(answer, "team/app.git upload v2");
  EXPECT_EQ(front.client, "127.0.0.1");
}

TEST_F(GitHttp, GitProtocolHeaderGivesTheHighestVersion) {
  start();
  std::string path = "/a/info/refs?service=git-upload-pack";
  EXPECT_HAS(get(path), "a upload v0");
  EXPECT_HAS(get(path, "Git-Protocol: version=1\r\n"), "a upload v1");
  EXPECT_HAS(get(path, "Git-Protocol: version=1:version=2:x=y\r\n"), "a upload v2");
  EXPECT_HAS(get(path, "Git-Protocol: version=7\r\n"), "a upload v0");
}

TEST_F(GitHttp, ServicesTakePlainChunkedAndGzippedBodies) {
  start();
  std::string answer = post("/a/git-receive-pack", std::string(100'000, 'x'));
  EXPECT_HAS(answer, "Content-Type: application/x-git-receive-pack-result\r\n");
  EXPECT_HAS(answer, "a receive v0 body 100000");
  EXPECT_HAS(ask("POST /a/git-upload-pack HTTP/1.1\r\nHost: h\r\n"
                 "Content-Type: application/x-git-upload-pack-request\r\n"
                 "Transfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n6\r\n world\r\n0\r\n\r\n"),
             "a upload v0 body 11");
  kj::VectorOutputStream packed;
  {
    kj::GzipOutputStream gzip(packed);
    std::string text(50'000, 'h');
    gzip.write(text.data(), text.size());
  }
  auto bytes = packed.getArray();
  std::string body(reinterpret_cast<const char*>(bytes.begin()), bytes.size());
  EXPECT_HAS(post("/a/git-upload-pack", body, "Content-Encoding: gzip\r\n"),
             "a upload v0 body 50000");
  EXPECT_HAS(post("/a/git-upload-pack", body, "Content-Encoding: x-gzip\r\n"), "body 50000");
}

TEST_F(GitHttp, BombsAndBrokenBodiesAreRefused) {
  GitHttpOptions options;
  options.fetchBodyBytesMax = 10'000;
  start(options);
  kj::VectorOutputStream packed;
  {
    kj::GzipOutputStream gzip(packed);
    std::string text(1 << 20, '0');
    gzip.write(text.data(), text.size());
  }
  auto bytes = packed.getArray();
  std::string bomb(reinterpret_cast<const char*>(bytes.begin()), bytes.size());
  ASSERT_LT(bomb.size(), options.fetchBodyBytesMax);
  EXPECT_HAS(post("/a/git-upload-pack", bomb, "Content-Encoding: gzip\r\n"), "413 Payload");
  EXPECT_HAS(post("/a/git-upload-pack", std::string(10'001, 'x')), "413 Payload");
  EXPECT_HAS(post("/a/git-upload-pack", std::string(10'000, 'x')), "body 10000");
  EXPECT_HAS(post("/a/git-upload-pack", "not gzip at all", "Content-Encoding: gzip\r\n"),
             "400 Bad Request");
  EXPECT_HAS(post("/a/git-upload-pack", bomb.substr(0, 20), "Content-Encoding: gzip\r\n"),
             "400 Bad Request");
  EXPECT_HAS(post("/a/git-upload-pack", "x", "Content-Encoding: br\r\n"), "415 Unsupported");
  EXPECT_HAS(ask("POST /a/git-upload-pack HTTP/1.1\r\nHost: h\r\nContent-Type: "
                 "application/x-git-upload-pack-request\r\nContent-Length: 10\r\n\r\nab"),
             "ended too early");
}

TEST_F(GitHttp, RefusalsAreSentencesOfPlainText) {
  start();
  std::string answer = get("/none/info/refs?service=git-upload-pack");
  EXPECT_HAS(answer, "HTTP/1.1 404 Not Found\r\n");
  EXPECT_HAS(answer, "Content-Type: text/plain; charset=utf-8\r\n");
  EXPECT_HAS(answer, "\r\n\r\nThere is no repository none.\n");
  answer = get("/away/info/refs?service=git-upload-pack");
  EXPECT_HAS(answer, "503 Service Unavailable");
  EXPECT_HAS(answer, "Retry-After: 1\r\n");
  EXPECT_HAS(get("/a/../b/info/refs?service=git-upload-pack"), "400 Bad Request");
  EXPECT_HAS(get("/a/info/refs"), "403 Forbidden");
  EXPECT_HAS(get("/a/HEAD"), "smart HTTP protocol only");
  EXPECT_HAS(get("/nothing"), "404 Not Found");
  EXPECT_HAS(get("/a/git-upload-pack"), "405 Method Not Allowed");
  EXPECT_HAS(get("/a/git-upload-pack"), "Allow: POST\r\n");
  EXPECT_HAS(ask("DELETE /a/info/refs?service=git-upload-pack HTTP/1.1\r\nHost: h\r\n\r\n"),
             "405 Method Not Allowed");
  EXPECT_HAS(ask("POST /a/git-upload-pack HTTP/1.1\r\nHost: h\r\nContent-Type: text/plain\r\n"
                 "Content-Length: 0\r\n\r\n"),
             "415 Unsupported");
}

TEST_F(GitHttp, HealthAndHead) {
  start();
  EXPECT_HAS(get("/health"), "\r\n\r\nok\n");
  std::string head = ask("HEAD /health HTTP/1.1\r\nHost: h\r\n\r\n");
  EXPECT_HAS(head, "200 OK");
  EXPECT_EQ(head.substr(head.size() - 4), "\r\n\r\n");
  head = ask("HEAD /a/info/refs?service=git-upload-pack HTTP/1.1\r\nHost: h\r\n\r\n");
  EXPECT_HAS(head, "200 OK");
  EXPECT_EQ(head.substr(head.size() - 4), "\r\n\r\n");
  server->setHealth("Starting.");
  EXPECT_HAS(get("/health"), "503 Service Unavailable");
  EXPECT_HAS(get("/health"), "Starting.");
}

TEST_F(GitHttp, FailuresBeforeAndAfterTheFirstByte) {
  start();
  EXPECT_HAS(get("/fail-at-once/info/refs?service=git-upload-pack"), "500 Internal Server Error");
  std::string late = post("/fail-late/git-upload-pack", "x");
  EXPECT_HAS(late, "200 OK");
  EXPECT_EQ(late.find("\r\n0\r\n\r\n"), std::string::npos) << "a broken answer must not look whole";
  EXPECT_EQ(server->statistics().failures, 2u);
}

TEST_F(GitHttp, ConnectionsAreKeptForFurtherRequests) {
  start();
  auto stream = connect();
  for (int i = 0; i < 3; ++i) {
    send(*stream, "POST /a/git-upload-pack HTTP/1.1\r\nHost: h\r\nContent-Type: "
                  "application/x-git-upload-pack-request\r\nContent-Length: 2\r\n\r\nab");
    EXPECT_HAS(readUntil(*stream, "\r\n0\r\n\r\n"), "a upload v0 body 2");
  }
  // Two at once, in order.
  send(*stream, "GET /health HTTP/1.1\r\nHost: h\r\n\r\nGET /health HTTP/1.1\r\nHost: h\r\n\r\n");
  EXPECT_HAS(readUntil(*stream, "ok\n"), "200 OK");
  EXPECT_HAS(readUntil(*stream, "ok\n"), "200 OK");
  EXPECT_EQ(server->statistics().connections, 1u);
}

TEST_F(GitHttp, ExpectContinueIsAnswered) {
  start();
  auto stream = connect();
  send(*stream, "POST /a/git-upload-pack HTTP/1.1\r\nHost: h\r\nContent-Type: "
                "application/x-git-upload-pack-request\r\nContent-Length: 2\r\n"
                "Expect: 100-continue\r\n\r\n");
  EXPECT_EQ(readUntil(*stream, "\r\n\r\n"), "HTTP/1.1 100 Continue\r\n\r\n");
  send(*stream, "ab");
  EXPECT_HAS(readUntil(*stream, "\r\n0\r\n\r\n"), "body 2");
}

TEST_F(GitHttp, GarbageEndsItsOwnConnectionOnly) {
  start();
  std::string binary;
  for (int i = 0; i < 4096; ++i) binary += static_cast<char>(i * 37);
  for (const std::string& garbage :
       {std::string("garbage\r\n\r\n"), std::string("GET\r\n\r\n"), binary + "\r\n\r\n",
        std::string("\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03", 11) + "\r\n\r\n",
        std::string("GET / HTTP/1.1\r\nno colon here\r\n\r\n"),
        std::string("POST /a/git-upload-pack HTTP/1.1\r\nContent-Length: -1\r\n\r\n"),
        std::string("POST /a/git-upload-pack HTTP/1.1\r\nTransfer-Encoding: chunked\r\n"
                    "Content-Type: application/x-git-upload-pack-request\r\n\r\nzz\r\n")}) {
    std::string answer = ask(garbage);
    EXPECT_EQ(answer.find("200 OK"), std::string::npos) << answer;
  }
  ask("GET /health HTTP/1.1\r\nX: " + std::string(200'000, 'x') + "\r\n\r\n");
  connect();  // opened and dropped
  EXPECT_HAS(get("/health"), "ok");
}

TEST_F(GitHttp, ConnectionsOverTheLimitAreRefusedWithASentence) {
  GitHttpOptions options;
  options.connectionsMax = 2;
  start(options);
  auto first = connect(), second = connect();
  send(*first, "GET /health HTTP/1.1\r\nHost: h\r\n\r\n");
  readUntil(*first, "ok\n");
  send(*second, "GET /health HTTP/1.1\r\nHost: h\r\n\r\n");
  readUntil(*second, "ok\n");
  std::string answer = get("/health");
  EXPECT_HAS(answer, "503 Service Unavailable");
  EXPECT_HAS(answer, "http.connections_max");
  size_t body = answer.find("\r\n\r\n") + 4;
  EXPECT_HAS(answer, "Content-Length: " + std::to_string(answer.size() - body) + "\r\n");
  EXPECT_EQ(server->statistics().connectionsRefused, 1u);
  first = nullptr;
  while (server->statistics().connections > 1) {
    io.provider->getTimer().afterDelay(1 * kj::MILLISECONDS).wait(io.waitScope);
  }
  EXPECT_HAS(get("/health"), "200 OK");
}

TEST_F(GitHttp, OneAddressMayNotTakeAllConnections) {
  GitHttpOptions options;
  options.connectionsPerClientMax = 1;
  start(options);
  auto first = connect();
  send(*first, "GET /health HTTP/1.1\r\nHost: h\r\n\r\n");
  readUntil(*first, "ok\n");
  std::string answer = get("/health");
  EXPECT_HAS(answer, "429 Too Many Requests");
  EXPECT_HAS(answer, "http.connections_per_client_max");
  size_t body = answer.find("\r\n\r\n") + 4;
  EXPECT_HAS(answer, "Content-Length: " + std::to_string(answer.size() - body) + "\r\n");
  EXPECT_EQ(server->statistics().connectionsRefused, 1u);
  first = nullptr;
  while (server->statistics().connections > 0) {
    io.provider->getTimer().afterDelay(1 * kj::MILLISECONDS).wait(io.waitScope);
  }
  EXPECT_HAS(get("/health"), "200 OK");
}

TEST_F(GitHttp, BodiesThatAreTooLargeAreToldWhichSetting) {
  GitHttpOptions options;
  options.fetchBodyBytesMax = 10;
  options.pushBodyBytesMax = 20;
  start(options);
  auto post = [&](const std::string& service, size_t bytes) {
    return ask("POST /a/git-" + service + " HTTP/1.1\r\nHost: h\r\nContent-Type: application/x-git-" +
               service + "-request\r\nContent-Length: " + std::to_string(bytes) + "\r\n\r\n" +
               std::string(bytes, 'b'));
  };
  EXPECT_HAS(post("upload-pack", 10), "200 OK");
  EXPECT_HAS(post("upload-pack", 11), "than the 10 bytes that this server takes (http.fetch_body_max).");
  EXPECT_HAS(post("receive-pack", 20), "200 OK");
  EXPECT_HAS(post("receive-pack", 21), "than the 20 bytes that this server takes (git.pack_max).");
}

TEST_F(GitHttp, StalledBodiesTimeOut) {
  GitHttpOptions options;
  options.stallTimeoutMs = 30;
  start(options);
  auto stream = connect();
  send(*stream, "POST /a/git-upload-pack HTTP/1.1\r\nHost: h\r\nContent-Type: "
                "application/x-git-upload-pack-request\r\nContent-Length: 10\r\n\r\nab");
  EXPECT_HAS(readUntil(*stream, "too long.\n"), "408 Request Timeout");
}

TEST_F(GitHttp, DrainEndsIdleConnections) {
  start();
  auto stream = connect();
  send(*stream, "GET /health HTTP/1.1\r\nHost: h\r\n\r\n");
  readUntil(*stream, "ok\n");
  server->drain().wait(io.waitScope);
  EXPECT_EQ(readAll(*stream, io.waitScope), "");
}

}  // namespace
}  // namespace packmoor::rpc
