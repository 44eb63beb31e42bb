#include "etcd_client.h"

#include <kj/debug.h>

#include <nlohmann/json.hpp>

#include <algorithm>
#include <charconv>
#include <cstring>

#include "describe.h"

namespace packmoor::rpc {
namespace {

using nlohmann::json;
using Type = kj::Exception::Type;

constexpr kj::uint kUnauthorized = 401;
constexpr size_t kReasonBytesMax = 200;

template <typename... Parts>
kj::Exception failure(Type type, Parts&&... parts) {
  return kj::Exception(type, __FILE__, __LINE__, kj::str(kj::fwd<Parts>(parts)...));
}

// What the gateway says in the body of an error.
kj::String messageIn(kj::StringPtr body) {
  auto parsed = json::parse(body.begin(), body.end(), nullptr, false);
  if (parsed.is_object()) {
    for (const char* name : {"message", "error"}) {
      auto found = parsed.find(name);
      if (found != parsed.end() && found->is_string()) {
        return kj::str(found->get<std::string>().c_str());
      }
    }
  }
  // Not JSON: a line of text, of which an operator may make something.
  std::string line(body.begin(), std::find(body.begin(), body.end(), '\n'));
  if (line.size() > kReasonBytesMax) line.resize(kReasonBytesMax);
  for (char& c : line) {
    if (c < ' ' || c > '~') c = '?';
  }
  return line.empty() ? kj::str("no reason given") : kj::str(line.c_str());
}

EtcdHeader headerOf(const json& answer) {
  EtcdHeader result;
  auto header = answer.find("header");
  if (header == answer.end()) return result;
  if (!header->is_object()) {
    kj::throwFatalException(failure(Type::FAILED, "its answer is not what etcd sends"));
  }
  auto found = header->find("cluster_id");
  if (found != header->end() && found->is_string()) {
    const auto& text = found->get_ref<const std::string&>();
    std::from_chars(text.data(), text.data() + text.size(), result.clusterId);
  }
  result.revision = etcdInteger(*header, "revision");
  return result;
}

}  // namespace

int64_t etcdInteger(const json& object, const char* name) {
  if (!object.is_object()) return 0;
  auto found = object.find(name);
  if (found == object.end()) return 0;
  if (found->is_number_integer()) return found->get<int64_t>();
  if (found->is_string()) {
    const auto& text = found->get_ref<const std::string&>();
    int64_t value = 0;
    auto end = text.data() + text.size();
    auto parsed = std::from_chars(text.data(), end, value);
    if (parsed.ec == std::errc() && parsed.ptr == end) return value;
  }
  kj::throwFatalException(failure(Type::FAILED, "\"", name, "\" in its answer is not a number"));
}

EtcdClient::EtcdClient(EtcdOptions options, EtcdPast& past, std::function<void()> recovered)
    : options_(kj::mv(options)), past_(past), recovered_(kj::mv(recovered)), removals_(*this) {
  if (options_.endpoints.empty()) {
    kj::throwFatalException(failure(Type::FAILED, "No etcd endpoint is configured."));
  }
  for (const auto& url : options_.endpoints) {
    endpoints_.add(kj::heap<EtcdEndpoint>(options_, url, headerTable_));
  }
}

kj::Promise<EtcdAnswer> EtcdClient::callAny(std::string path, std::string body) {
  return anyBody(kj::mv(path), kj::mv(body), Trust::kKnownOnly);
}
kj::Promise<EtcdAnswer> EtcdClient::callOnce(std::string path, std::string body) {
  return onceBody(kj::mv(path), kj::mv(body));
}
kj::Promise<EtcdAnswer> EtcdClient::askAny(std::string path, std::string body) {
  return anyBody(kj::mv(path), kj::mv(body), Trust::kAny);
}
kj::Promise<EtcdAnswer> EtcdClient::askAt(size_t endpoint, std::string path, std::string body) {
  return call(endpoint % endpoints_.size(), kj::mv(path), kj::mv(body), Trust::kAny);
}

Co<EtcdAnswer> EtcdClient::anyBody(std::string path, std::string body, Trust trust) {
  kj::Vector<kj::String> causes;
  const size_t first = current_, count = endpoints_.size();
  foreign_ = nullptr;
  for (size_t i = 0; i < count; ++i) {
    if (trust == Trust::kKnownOnly) past_.requireTrusted(past_.tag());
    const size_t endpoint = (first + i) % count;
    for (int attempt = 0; attempt < 2; ++attempt) {
      try {
        auto answer = co_await call(endpoint, path, body, trust);
        current_ = endpoint;
        succeeded();
        co_return kj::mv(answer);
      } catch (kj::Exception& e) {
        // A connection that was kept from the last request breaks when etcd was restarted; the
        // second attempt makes a new one.
        if (attempt == 0 && e.getType() == Type::DISCONNECTED) continue;
        causes.add(kj::str(e.getDescription()));
        break;
      }
    }
  }
  KJ_IF_MAYBE(header, foreign_) { past_.foreign(*header); }
  if (trust == Trust::kKnownOnly) requireNoDoubt();
  auto all = failure(Type::DISCONNECTED, kj::strArray(causes, " "));
  failed(all);
  kj::throwFatalException(kj::mv(all));
}

Co<EtcdAnswer> EtcdClient::onceBody(std::string path, std::string body) {
  past_.requireTrusted(past_.tag());
  kj::Maybe<kj::Exception> cause;
  try {
    auto answer = co_await call(current_, kj::mv(path), kj::mv(body), Trust::kKnownOnly);
    succeeded();
    co_return kj::mv(answer);
  } catch (kj::Exception& e) {
    cause = kj::mv(e);
  }
  requireNoDoubt();
  auto unknown = failure(Type::DISCONNECTED, KJ_ASSERT_NONNULL(cause).getDescription());
  failed(unknown);
  kj::throwFatalException(kj::mv(unknown));
}

// After a failure: an etcd in doubt has answered.
void EtcdClient::requireNoDoubt() {
  if (past_.doubt().empty()) return;
  reachable_ = true;
  problem_.clear();
  past_.requireTrusted(past_.tag());
}

void EtcdClient::succeeded() {
  const bool back = !reachable_;
  reachable_ = true;
  if (!problem_.empty()) {
    notify(options_.notices, NoticeLevel::kInfo,
           kj::str("etcd at ", endpoint().c_str(), " answers again."));
  }
  problem_.clear();
  if (back) recovered_();
}

void EtcdClient::failed(const kj::Exception& cause) {
  reachable_ = false;
  std::string text = kj::str(cause.getDescription()).cStr();
  if (text != problem_) notify(options_.notices, NoticeLevel::kWarning, text.c_str());
  problem_ = kj::mv(text);
}

// One attempt at one endpoint, in time, with every failure told as a sentence: DISCONNECTED when the
// connection could not be made or broke, OVERLOADED when it was late, FAILED for a bad answer.
Co<EtcdAnswer> EtcdClient::call(size_t endpoint, std::string path, std::string body, Trust trust) {
  const auto& name = endpoints_[endpoint]->url();
  const int64_t timeoutMs = options_.requestTimeoutMs;
  auto late = options_.timer.afterDelay(timeoutMs * kj::MILLISECONDS)
                  .then([timeoutMs]() -> kj::Promise<EtcdAnswer> {
                    return failure(Type::OVERLOADED, "no answer within ", timeoutMs, " ms");
                  });
  kj::Maybe<kj::Exception> cause;
  try {
    auto answering = kj::Promise<EtcdAnswer>(exchange(endpoint, kj::mv(path), kj::mv(body), trust))
                         .exclusiveJoin(kj::mv(late));
    auto answer = co_await kj::mv(answering);
    co_return kj::mv(answer);
  } catch (kj::Exception& e) {
    cause = kj::mv(e);
  }
  auto& e = KJ_ASSERT_NONNULL(cause);
  kj::throwFatalException(failure(e.getType(), "etcd at ", name.c_str(), " failed: ",
                                  describeCause(e).c_str(), "."));
}

Co<EtcdAnswer> EtcdClient::exchange(size_t endpoint, std::string path, std::string body,
                                    Trust trust) {
  const EtcdPast::Tag tag = past_.tag();
  for (int attempt = 0;; ++attempt) {
    co_await withToken(endpoint);
    const std::string token = token_;
    auto response = co_await endpoints_[endpoint]->post(path, body, token);
    const auto status = response.statusCode;
    auto text = co_await response.body->readAllText(kEtcdAnswerBytesMax);
    // Etcd checks the token before it does anything, so that asking again is safe.
    if (attempt == 0 && refusesToken(status, text, token)) continue;
    if (status != 200) {
      kj::throwFatalException(
          failure(Type::FAILED, "it answered ", status, " (", messageIn(text), ")"));
    }
    auto parsed = std::make_shared<json>(json::parse(text.begin(), text.end(), nullptr, false));
    if (!parsed->is_object()) {
      kj::throwFatalException(failure(Type::FAILED, "its answer is not what etcd sends"));
    }
    EtcdAnswer answer;
    answer.header = headerOf(*parsed);
    answer.body = kj::mv(parsed);
    answer.tag = tag;
    if (trust == Trust::kKnownOnly) judge(answer);
    co_return kj::mv(answer);
  }
}

void EtcdClient::judge(const EtcdAnswer& answer) {
  if (answer.header.clusterId == 0) {
    kj::throwFatalException(failure(Type::FAILED, "its answer names no cluster"));
  }
  switch (past_.judge(answer.tag, answer.header)) {
    case EtcdPast::Verdict::kKnown: return;
    case EtcdPast::Verdict::kRefused: past_.requireTrusted(answer.tag); return;
    case EtcdPast::Verdict::kForeign:
      foreign_ = answer.header;
      kj::throwFatalException(failure(
          Type::FAILED, "it belongs to another etcd cluster (",
          clusterIdText(answer.header.clusterId).c_str(), ") than the one used before (",
          clusterIdText(past_.memory().clusterId).c_str(), ")"));
  }
}

// True when the request is to be made again with a new token.
bool EtcdClient::refusesToken(kj::uint status, kj::StringPtr text, const std::string& used) {
  if (options_.user.empty() || status == 200) return false;
  const bool refused = status == kUnauthorized ||
                       strstr(text.cStr(), "invalid auth token") != nullptr ||
                       strstr(text.cStr(), "auth: revision in header is old") != nullptr ||
                       strstr(text.cStr(), "user name is empty") != nullptr;
  if (!refused) return false;
  if (token_ == used) token_.clear();
  authenticationOff_ = false;
  return true;
}

// One authentication at a time and endpoint, whoever wants it, and one that goes on when its request
// is late: etcd takes long over each (bcrypt), and would have the less time the more were waiting.
kj::Promise<void> EtcdClient::withToken(size_t endpoint) {
  if (!needsToken()) return kj::READY_NOW;
  auto running = authenticating_.find(endpoint);
  if (running == authenticating_.end()) {
    auto done = options_.timer.timeoutAfter(kEtcdAuthenticationMs * kj::MILLISECONDS,
                                            kj::Promise<void>(authenticate(endpoint)));
    // Taken out in a turn of its own: a promise may not be destroyed by what it resolves.
    auto shared = done.fork();
    auto remove = shared.addBranch().catch_([](kj::Exception&&) {}).then([this, endpoint]() {
      removals_.add(kj::evalLater([this, endpoint]() { authenticating_.erase(endpoint); }));
    });
    removals_.add(kj::mv(remove));
    running = authenticating_.emplace(endpoint, kj::mv(shared)).first;
  }
  return running->second.addBranch();
}

Co<void> EtcdClient::authenticate(size_t endpoint) {
  const std::string password = options_.password ? options_.password() : std::string();
  const json body = {{"name", options_.user}, {"password", password}};
  auto response = co_await endpoints_[endpoint]->post(
      "/v3/auth/authenticate", body.dump(-1, ' ', false, json::error_handler_t::replace), {});
  const auto status = response.statusCode;
  auto text = co_await response.body->readAllText(kEtcdAnswerBytesMax);
  if (status != 200) {
    if (strstr(text.cStr(), "authentication is not enabled") != nullptr) {
      authenticationOff_ = true;
      notify(options_.notices, NoticeLevel::kWarning,
             "etcd does not authenticate its clients, although a user is configured.");
      co_return;
    }
    kj::throwFatalException(failure(Type::FAILED, "it does not let in the user \"",
                                    options_.user.c_str(), "\" (", messageIn(text), ")"));
  }
  auto parsed = json::parse(text.begin(), text.end(), nullptr, false);
  auto token = parsed.is_object() ? parsed.find("token") : parsed.end();
  if (!parsed.is_object() || token == parsed.end() || !token->is_string()) {
    kj::throwFatalException(failure(Type::FAILED, "it gave no token to the user \"",
                                    options_.user.c_str(), "\""));
  }
  token_ = token->get<std::string>();
}

kj::Promise<kj::Own<kj::AsyncInputStream>> EtcdClient::open(size_t endpoint, std::string path,
                                                             std::string body) {
  endpoint %= endpoints_.size();
  return options_.timer.timeoutAfter(
      options_.requestTimeoutMs * kj::MILLISECONDS,
      kj::Promise<kj::Own<kj::AsyncInputStream>>(
          openBody(endpoint, kj::mv(path), kj::mv(body))));
}

Co<kj::Own<kj::AsyncInputStream>> EtcdClient::openBody(size_t endpoint, std::string path,
                                                        std::string body) {
  co_await withToken(endpoint);
  const std::string token = token_;
  auto response = co_await endpoints_[endpoint]->post(kj::mv(path), kj::mv(body), token);
  if (response.statusCode != 200) {
    auto text = co_await response.body->readAllText(kEtcdAnswerBytesMax);
    refusesToken(response.statusCode, text, token);
    kj::throwFatalException(failure(Type::FAILED, "etcd at ", endpoints_[endpoint]->url().c_str(),
                                    " answered ", response.statusCode, " to a watch (",
                                    messageIn(text), ")."));
  }
  co_return kj::mv(response.body);
}

}  // namespace packmoor::rpc
