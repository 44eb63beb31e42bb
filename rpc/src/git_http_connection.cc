#include "git_http_connection.h"

#include "git_url.h"
#include "rpc/sentence.h"
#include "rpc/ssh_command.h"

#include <kernelio/co.h>

#include <kj/compat/gzip.h>
#include <kj/debug.h>

#include <netdb.h>
#include <optional>
#include <string_view>
#include <sys/socket.h>

namespace packmoor::rpc {
namespace {

using gitlayer::GitService;
using gitlayer::Refusal;

std::string_view view(kj::StringPtr text) { return {text.begin(), text.size()}; }

// The type without parameters.
std::string_view mediaType(std::string_view type) {
  type = type.substr(0, type.find(';'));
  while (!type.empty() && (type.back() == ' ' || type.back() == '\t')) type.remove_suffix(1);
  return type;
}

kj::StringPtr serviceName(GitService service) {
  return service == GitService::kUploadPack ? "git-upload-pack"_kj : "git-receive-pack"_kj;
}

// Inflates a request body, and remembers when what came was not gzip.
class InflatedBody final : public kj::AsyncInputStream {
 public:
  explicit InflatedBody(BoundedBody& packed) : packed_(packed), gzip_(packed) {}
  kj::Promise<size_t> tryRead(void* buffer, size_t minBytes, size_t maxBytes) override {
    return gzip_.tryRead(buffer, minBytes, maxBytes).catch_([this](kj::Exception&& e) -> size_t {
      // kj-gzip's own complaints: FAILED, and DISCONNECTED for a stream that ends too early.
      broken_ = packed_.problem() == BoundedBody::Problem::kNone &&
                (e.getType() == kj::Exception::Type::FAILED || packed_.ended());
      kj::throwFatalException(kj::mv(e));
    });
  }
  bool broken() const { return broken_; }

 private:
  BoundedBody& packed_;
  kj::GzipAsyncInputStream gzip_;
  bool broken_ = false;
};

// The body of an answer; status and headers go out with its first bytes, so that until then an
// error can still be answered as one.
class AnswerStream final : public kj::AsyncOutputStream {
 public:
  AnswerStream(GitHttpHeaders& names, kj::HttpService::Response& response, kj::String contentType)
      : names_(names), response_(response), contentType_(kj::mv(contentType)) {}

  kj::Promise<void> write(const void* buffer, size_t size) override {
    return stream().write(buffer, size);
  }
  kj::Promise<void> write(kj::ArrayPtr<const kj::ArrayPtr<const kj::byte>> pieces) override {
    return stream().write(pieces);
  }
  kj::Promise<void> whenWriteDisconnected() override { return kj::NEVER_DONE; }
  kj::Maybe<kj::Promise<uint64_t>> tryPumpFrom(kj::AsyncInputStream& input,
                                               uint64_t amount) override {
    return stream().tryPumpFrom(input, amount);
  }

  void setReadNote(std::string note) { readNote_ = kj::mv(note); }
  bool begun() const { return inner_ != nullptr; }
  void end() {
    stream();
    inner_ = nullptr;  // ends the body
  }

 private:
  kj::AsyncOutputStream& stream() {
    KJ_IF_MAYBE(inner, inner_) { return **inner; }
    kj::HttpHeaders headers(names_.table());
    headers.set(kj::HttpHeaderId::CONTENT_TYPE, contentType_);
    headers.set(names_.cacheControl, "no-cache, max-age=0, must-revalidate");
    headers.set(names_.expires, "Fri, 01 Jan 1980 00:00:00 GMT");
    headers.set(names_.pragma, "no-cache");
    if (!readNote_.empty()) headers.set(names_.packmoorRead, kj::str(readNote_.c_str()));
    return *inner_.emplace(response_.send(200, "OK", headers));
  }

  GitHttpHeaders& names_;
  kj::HttpService::Response& response_;
  kj::String contentType_;
  std::string readNote_;
  kj::Maybe<kj::Own<kj::AsyncOutputStream>> inner_;
};

class Connection final : public kj::HttpService {
 public:
  Connection(GitHttpShared& shared, JoiningStream& stream) : shared_(shared), stream_(stream) {}

  kj::Promise<void> request(kj::HttpMethod method, kj::StringPtr url,
                            const kj::HttpHeaders& headers, kj::AsyncInputStream& body,
                            Response& response) override {
    ++shared_.statistics.requests;
    GitUrl target = parseGitUrl(view(url));
    bool read = method == kj::HttpMethod::GET || method == kj::HttpMethod::HEAD;
    switch (target.target) {
      case GitTarget::kHealth:
        if (!read) return wrongMethod(response, "GET, HEAD");
        if (!shared_.problem.empty()) {
          return sendText(shared_.headers, response, 503, "Service Unavailable",
                          kj::str(shared_.problem));
        }
        return sendText(shared_.headers, response, 200, "OK", kj::str("ok"));
      case GitTarget::kRoot:
        if (!read) return wrongMethod(response, "GET, HEAD");
        return sendText(shared_.headers, response, 200, "OK",
                        kj::str("This is a Packmoor node. Clone with "
                                "`git clone http://HOST:PORT/REPOSITORY`."));
      case GitTarget::kBad:
        return sendText(shared_.headers, response, 400, "Bad Request", kj::str(target.problem));
      case GitTarget::kUnknown:
        return sendText(shared_.headers, response, 404, "Not Found",
                        kj::str("There is nothing at this path. A repository's URL is "
                                "http://HOST:PORT/REPOSITORY, for git's smart HTTP protocol."));
      case GitTarget::kDumb:
        if (!read) return wrongMethod(response, "GET, HEAD");
        return sendText(shared_.headers, response, 403, "Forbidden",
                        kj::str("This server speaks git's smart HTTP protocol only. "
                                "Use git 1.6.6 or newer."));
      case GitTarget::kInfoRefs:
        if (!read) return wrongMethod(response, "GET, HEAD");
        if (!readPolicy(headers)) return wrongPolicy(response);
        return guarded(advertise(kj::mv(target), headers, response));
      case GitTarget::kService:
        if (method != kj::HttpMethod::POST) return wrongMethod(response, "POST");
        if (!readPolicy(headers)) return wrongPolicy(response);
        return guarded(serve(kj::mv(target), headers, body, response));
    }
    KJ_UNREACHABLE;
  }

 private:
  kj::Promise<void> wrongMethod(Response& response, kj::StringPtr allow) {
    return sendText(shared_.headers, response, 405, "Method Not Allowed",
                    kj::str("This path takes ", allow, " only."), allow);
  }

  std::optional<gitlayer::ReadPolicy> readPolicy(const kj::HttpHeaders& headers) {
    KJ_IF_MAYBE(text, headers.get(shared_.headers.packmoorRead)) {
      return gitlayer::parseReadPolicy(view(*text));
    }
    return gitlayer::ReadPolicy();
  }
  kj::Promise<void> wrongPolicy(Response& response) {
    return sendText(shared_.headers, response, 400, "Bad Request",
                    kj::str("Packmoor-Read must be linearizable, at-least=VOLUME:INDEX or "
                            "available."));
  }

  // A client that is gone takes its request with it.
  kj::Promise<void> guarded(Co<void> work) {
    auto gone = stream_.whenWriteDisconnected().then([]() -> kj::Promise<void> {
      return KJ_EXCEPTION(DISCONNECTED, "the client closed its connection");
    });
    return kj::mv(work).promise().exclusiveJoin(kj::mv(gone));
  }

  // The other end of the connection, as a number. Behind a proxy it is the proxy's.
  const std::string& clientAddress() {
    if (client_.has_value()) return *client_;
    client_.emplace();
    KJ_IF_MAYBE(fd, stream_.getFd()) { *client_ = peerAddress(*fd); }
    return *client_;
  }

  gitlayer::GitRequest gitRequest(const GitUrl& url, const kj::HttpHeaders& headers) {
    gitlayer::GitRequest request;
    request.repository = url.repository;
    request.service = url.service;
    KJ_IF_MAYBE(protocol, headers.get(shared_.headers.gitProtocol)) {
      request.protocolVersion = gitProtocolVersion(view(*protocol));
    }
    request.read = *readPolicy(headers);
    request.client = clientAddress();
    request.requestId = "r" + std::to_string(++shared_.requestCount);
    return request;
  }

  kj::Promise<void> refused(const Refusal& refusal, Response& response) {
    kj::String sentence = kj::str(refusal.message);
    switch (refusal.reason) {
      case Refusal::Reason::kNotFound:
        return sendText(shared_.headers, response, 404, "Not Found", kj::mv(sentence));
      case Refusal::Reason::kBadRequest:
        return sendText(shared_.headers, response, 400, "Bad Request", kj::mv(sentence));
      case Refusal::Reason::kUnavailable:
        return sendText(shared_.headers, response, 503, "Service Unavailable", kj::mv(sentence));
      case Refusal::Reason::kTooMany:
        return sendText(shared_.headers, response, 429, "Too Many Requests", kj::mv(sentence));
    }
    KJ_UNREACHABLE;
  }

  Co<void> advertise(GitUrl url, const kj::HttpHeaders& headers, Response& response) {
    auto request = gitRequest(url, headers);
    request.advertise = true;
    std::string id = request.requestId;
    AnswerStream answer(shared_.headers, response,
                        kj::str("application/x-", serviceName(url.service), "-advertisement"));
    kj::Maybe<kj::Exception> failure;
    co_await advertiseInto(kj::mv(request), answer, response)
        .promise()
        .catch_([&failure](kj::Exception&& e) { failure = kj::mv(e); });
    KJ_IF_MAYBE(e, failure) {
      co_await failed(kj::mv(*e), answer.begun(), id, response);
    }
  }

  Co<void> advertiseInto(gitlayer::GitRequest request, AnswerStream& answer, Response& response) {
    auto opened = co_await shared_.front.open(kj::mv(request));
    KJ_IF_MAYBE(session, opened.session) {
      answer.setReadNote(opened.readNote);
      co_await (*session)->advertise(answer, true);
      answer.end();
    } else {
      co_await refused(opened.refusal, response);
    }
  }

  // A sentence when the request's headers do not fit its path.
  kj::Maybe<kj::String> headerProblem(const GitUrl& url, const kj::HttpHeaders& headers,
                                      bool& gzip) {
    kj::String expected = kj::str("application/x-", serviceName(url.service), "-request");
    auto type = headers.get(kj::HttpHeaderId::CONTENT_TYPE).orDefault("");
    if (mediaType(view(type)) != view(expected)) {
      return kj::str("The content type must be ", expected, ".");
    }
    auto encoding = headers.get(shared_.headers.contentEncoding).orDefault("identity");
    gzip = encoding == "gzip" || encoding == "x-gzip";
    if (!gzip && encoding != "identity") {
      return kj::str("The content encoding must be gzip or none.");
    }
    return nullptr;
  }

  Co<void> serve(GitUrl url, const kj::HttpHeaders& headers, kj::AsyncInputStream& body,
                 Response& response) {
    bool gzip = false;
    auto problem = headerProblem(url, headers, gzip);
    KJ_IF_MAYBE(sentence, problem) {
      co_await sendText(shared_.headers, response, 415, "Unsupported Media Type",
                        kj::mv(*sentence));
      co_return;
    }
    auto request = gitRequest(url, headers);
    std::string id = request.requestId;
    const GitHttpOptions& options = shared_.options;
    const bool fetches = url.service == GitService::kUploadPack;
    BodyLimits limits;
    limits.bytesMax = fetches ? options.fetchBodyBytesMax : options.pushBodyBytesMax;
    limits.setting = fetches ? "http.fetch_body_max"_kj : "git.pack_max"_kj;
    limits.stallTimeout = options.stallTimeoutMs * kj::MILLISECONDS;
    limits.rateMin = options.bodyRateMin;
    BoundedBody raw(body, shared_.timer, limits);
    InflatedBody inflated(raw);
    limits.rateMin = 0;   // of what came, however well it was packed
    BoundedBody bounded(inflated, shared_.timer, limits);
    AnswerStream answer(shared_.headers, response,
                        kj::str("application/x-", serviceName(url.service), "-result"));
    bool expects = headers.get(shared_.headers.expect) != nullptr;
    kj::Maybe<kj::Exception> failure;
    kj::AsyncInputStream& input = gzip ? static_cast<kj::AsyncInputStream&>(bounded) : raw;
    co_await serveInto(kj::mv(request), input, answer, response, expects)
        .promise()
        .catch_([&failure](kj::Exception&& e) { failure = kj::mv(e); });
    KJ_IF_MAYBE(e, failure) {
      auto reason = gzip && raw.problem() == BoundedBody::Problem::kNone ? bounded.problem()
                                                                         : raw.problem();
      if (reason == BoundedBody::Problem::kTooLarge && !answer.begun()) {
        co_await sendText(shared_.headers, response, 413, "Payload Too Large", raw.tooLarge());
        co_return;
      }
      co_await bodyFailed(kj::mv(*e), reason, inflated.broken(), answer.begun(), id, response);
    }
  }

  // What went wrong with the body comes first; a failure of the session may follow from it.
  kj::Promise<void> bodyFailed(kj::Exception&& e, BoundedBody::Problem reason, bool notGzip,
                               bool begun, const std::string& id, Response& response) {
    using Problem = BoundedBody::Problem;
    if (begun || (reason == Problem::kNone && !notGzip)) {
      return failed(kj::mv(e), begun, id, response);
    }
    if (notGzip) {
      return sendText(shared_.headers, response, 400, "Bad Request",
                      kj::str("The request's body is not what gzip makes."));
    }
    if (reason == Problem::kStalled) {
      return sendText(shared_.headers, response, 408, "Request Timeout",
                      kj::str("The request's body made no progress for too long."));
    }
    return sendText(shared_.headers, response, 400, "Bad Request",
                    kj::str("The request's body ended too early, or is not framed as "
                            "HTTP wants it."));
  }

  Co<void> serveInto(gitlayer::GitRequest request, kj::AsyncInputStream& body,
                     AnswerStream& answer, Response& response, bool expectsContinue) {
    auto opened = co_await shared_.front.open(kj::mv(request));
    KJ_IF_MAYBE(session, opened.session) {
      if (expectsContinue) co_await stream_.write(kContinue.begin(), kContinue.size());
      answer.setReadNote(opened.readNote);
      co_await (*session)->serve(body, answer);
      answer.end();
    } else {
      co_await refused(opened.refusal, response);
    }
  }

  // After the first byte of an answer the only way to tell is to break the connection off.
  kj::Promise<void> failed(kj::Exception&& e, bool begun, const std::string& id,
                           Response& response) {
    ++shared_.statistics.failures;
    if (begun) {
      KJ_LOG(INFO, "A git request was broken off.", id, e.getDescription());
      stream_.breakOff();
      return kj::mv(e);
    }
    KJ_LOG(WARNING, "A git request failed.", id, e.getDescription());
    if (e.getType() == kj::Exception::Type::OVERLOADED ||
        e.getType() == kj::Exception::Type::DISCONNECTED) {
      return sendText(shared_.headers, response, 503, "Service Unavailable",
                      kj::str("The node cannot serve this now. ", sentenceOf(e)));
    }
    return sendText(shared_.headers, response, 500, "Internal Server Error",
                    kj::str("The request failed inside the server; its log says why, at request ",
                            id, "."));
  }

  static constexpr kj::StringPtr kContinue = "HTTP/1.1 100 Continue\r\n\r\n"_kj;

  GitHttpShared& shared_;
  JoiningStream& stream_;
  std::optional<std::string> client_;
};

}  // namespace

std::string peerAddress(int fd) {
  sockaddr_storage address;
  socklen_t bytes = sizeof address;
  char host[NI_MAXHOST];
  auto* general = reinterpret_cast<sockaddr*>(&address);
  const bool told = getpeername(fd, general, &bytes) == 0 && address.ss_family != AF_UNIX &&
                    getnameinfo(general, bytes, host, sizeof host, nullptr, 0, NI_NUMERICHOST) == 0;
  return told ? host : std::string();
}

GitHttpHeaders::GitHttpHeaders()
    : contentEncoding(builder_.add("Content-Encoding")), gitProtocol(builder_.add("Git-Protocol")),
      expect(builder_.add("Expect")), cacheControl(builder_.add("Cache-Control")),
      expires(builder_.add("Expires")), pragma(builder_.add("Pragma")),
      allow(builder_.add("Allow")), retryAfter(builder_.add("Retry-After")),
      packmoorRead(builder_.add("Packmoor-Read")),
      table_(builder_.build()) {}

kj::Promise<void> sendText(GitHttpHeaders& names, kj::HttpService::Response& response,
                           uint32_t status, kj::StringPtr statusText, kj::String sentence,
                           kj::StringPtr allow) {
  kj::HttpHeaders headers(names.table());
  headers.set(kj::HttpHeaderId::CONTENT_TYPE, "text/plain; charset=utf-8");
  headers.set(names.cacheControl, "no-cache");
  if (allow != nullptr) headers.set(names.allow, allow);
  if (status == 503 || status == 429) headers.set(names.retryAfter, "1");
  kj::String text = kj::str(sentence, "\n");
  auto body = response.send(status, statusText, headers, text.size());
  auto written = body->write(text.begin(), text.size());
  return written.attach(kj::mv(body), kj::mv(text));
}

kj::Own<kj::HttpService> makeGitHttpConnection(GitHttpShared& shared, JoiningStream& stream) {
  return kj::heap<Connection>(shared, stream);
}

}  // namespace packmoor::rpc
