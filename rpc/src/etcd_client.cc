#include "etcd_client.h"

#include <kj/compat/url.h>
#include <kj/debug.h>

#include <nlohmann/json.hpp>

#include <charconv>

#include "describe.h"

namespace packmoor::rpc {
namespace {

using nlohmann::json;

template <typename... Parts>
kj::Exception failure(kj::Exception::Type type, Parts&&... parts) {
  return kj::Exception(type, __FILE__, __LINE__, kj::str(kj::fwd<Parts>(parts)...));
}
using Type = kj::Exception::Type;

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
  return kj::str("no reason given");
}

void checkEndpoint(const std::string& endpoint) {
  auto url = kj::Url::tryParse(kj::StringPtr(endpoint.c_str()), kj::Url::Context::REMOTE_HREF);
  KJ_IF_MAYBE(parsed, url) {
    if (parsed->scheme == "https") {
      kj::throwFatalException(failure(Type::FAILED, "The etcd endpoint ", endpoint.c_str(),
                                      " uses https, which is not supported yet; use http."));
    }
    if (parsed->scheme == "http" && parsed->host.size() > 0 && parsed->path.size() == 0) return;
  }
  kj::throwFatalException(failure(Type::FAILED, "\"", endpoint.c_str(),
                                  "\" is not an etcd endpoint; write it as http://HOST:PORT."));
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

EtcdClient::EtcdClient(EtcdOptions options) : options_(kj::mv(options)) {
  if (options_.endpoints.empty()) {
    kj::throwFatalException(failure(Type::FAILED, "No etcd endpoint is configured."));
  }
  for (auto& endpoint : options_.endpoints) {
    while (!endpoint.empty() && endpoint.back() == '/') endpoint.pop_back();
    checkEndpoint(endpoint);
  }
  http_ = kj::newHttpClient(options_.timer, headerTable_, options_.network, nullptr);
}

kj::Promise<EtcdAnswer> EtcdClient::callAny(std::string path, std::string body) {
  return anyBody(kj::mv(path), kj::mv(body));
}

kj::Promise<EtcdAnswer> EtcdClient::callOnce(std::string path, std::string body) {
  return kj::Promise<EtcdAnswer>(call(current_, kj::mv(path), kj::mv(body)))
      .then(
          [this](EtcdAnswer answer) {
            succeeded();
            return answer;
          },
          [this](kj::Exception&& e) -> EtcdAnswer {
            failed(e);
            kj::throwFatalException(kj::mv(e));
          });
}

Co<EtcdAnswer> EtcdClient::anyBody(std::string path, std::string body) {
  kj::Vector<kj::String> causes;
  const size_t first = current_, count = options_.endpoints.size();
  for (size_t i = 0; i < count; ++i) {
    const size_t endpoint = (first + i) % count;
    try {
      auto answer = co_await call(endpoint, path, body);
      current_ = endpoint;
      succeeded();
      co_return kj::mv(answer);
    } catch (kj::Exception& e) {
      causes.add(kj::str(e.getDescription()));
    }
  }
  auto all = failure(Type::DISCONNECTED, kj::strArray(causes, " "));
  failed(all);
  kj::throwFatalException(kj::mv(all));
}

void EtcdClient::succeeded() {
  reachable_ = true;
  if (!problem_.empty()) {
    notify(options_.notices, NoticeLevel::kInfo,
           kj::str("etcd at ", endpoint().c_str(), " answers again."));
  }
  problem_.clear();
}

void EtcdClient::failed(const kj::Exception& cause) {
  reachable_ = false;
  std::string text = kj::str(cause.getDescription()).cStr();
  if (text != problem_) notify(options_.notices, NoticeLevel::kWarning, text.c_str());
  problem_ = kj::mv(text);
}

// One attempt at one endpoint, in time, with every failure told as a sentence.
Co<EtcdAnswer> EtcdClient::call(size_t endpoint, std::string path, std::string body) {
  const auto& name = options_.endpoints[endpoint];
  const int64_t timeoutMs = options_.requestTimeoutMs;
  auto late = options_.timer.afterDelay(timeoutMs * kj::MILLISECONDS)
                  .then([timeoutMs]() -> kj::Promise<EtcdAnswer> {
                    return failure(Type::DISCONNECTED, "no answer within ", timeoutMs, " ms");
                  });
  kj::Maybe<kj::Exception> cause;
  try {
    auto answering = kj::Promise<EtcdAnswer>(exchange(endpoint, kj::mv(path), kj::mv(body)))
                         .exclusiveJoin(kj::mv(late));
    auto answer = co_await kj::mv(answering);
    co_return kj::mv(answer);
  } catch (kj::Exception& e) {
    cause = kj::mv(e);
  }
  kj::throwFatalException(failure(Type::DISCONNECTED, "etcd at ", name.c_str(), " failed: ",
                                  describeCause(KJ_ASSERT_NONNULL(cause)).c_str(), "."));
}

Co<EtcdAnswer> EtcdClient::exchange(size_t endpoint, std::string path, std::string body) {
  auto response = co_await post(endpoint, kj::mv(path), kj::mv(body));
  const auto status = response.statusCode;
  auto text = co_await response.body->readAllText(kEtcdAnswerBytesMax);
  if (status != 200) {
    kj::throwFatalException(
        failure(Type::FAILED, "it answered ", status, " (", messageIn(text), ")"));
  }
  auto answer = std::make_shared<json>(json::parse(text.begin(), text.end(), nullptr, false));
  if (!answer->is_object()) {
    kj::throwFatalException(failure(Type::FAILED, "its answer is not what etcd sends"));
  }
  learn(*answer, endpoint);
  EtcdAnswer result = kj::mv(answer);
  co_return kj::mv(result);
}

Co<kj::HttpClient::Response> EtcdClient::post(size_t endpoint, std::string path,
                                              std::string body) {
  const std::string url = options_.endpoints[endpoint] + path;
  kj::HttpHeaders headers(headerTable_);
  auto request = http_->request(kj::HttpMethod::POST, kj::StringPtr(url.c_str()), headers,
                                uint64_t(body.size()));
  co_await request.body->write(body.data(), body.size());
  request.body = nullptr;
  auto response = co_await kj::mv(request.response);
  co_return kj::mv(response);
}

void EtcdClient::learn(const json& answer, size_t endpoint) {
  auto header = answer.find("header");
  if (header == answer.end()) return;
  uint64_t clusterId = 0;
  auto found = header->find("cluster_id");
  if (found != header->end() && found->is_string()) {
    const auto& text = found->get_ref<const std::string&>();
    std::from_chars(text.data(), text.data() + text.size(), clusterId);
  }
  if (identity_.clusterId != 0 && clusterId != identity_.clusterId) {
    kj::throwFatalException(failure(Type::FAILED, "it belongs to another etcd cluster (",
                                    kj::hex(clusterId), ") than the one used before (",
                                    kj::hex(identity_.clusterId), ")"));
  }
  identity_.clusterId = clusterId;
  identity_.revision = kj::max(identity_.revision, etcdInteger(*header, "revision"));
}

kj::Promise<kj::Own<kj::AsyncInputStream>> EtcdClient::open(size_t endpoint, std::string path,
                                                             std::string body) {
  endpoint %= options_.endpoints.size();
  const std::string name = options_.endpoints[endpoint];
  return options_.timer
      .timeoutAfter(options_.requestTimeoutMs * kj::MILLISECONDS,
                    kj::Promise<kj::HttpClient::Response>(
                        post(endpoint, kj::mv(path), kj::mv(body))))
      .then([name](kj::HttpClient::Response response) {
        if (response.statusCode != 200) {
          kj::throwFatalException(failure(Type::FAILED, "etcd at ", name.c_str(), " answered ",
                                          response.statusCode, " to a watch."));
        }
        return kj::mv(response.body);
      });
}

}  // namespace packmoor::rpc
