#include "fake_etcd.h"

#include <kj/debug.h>
#include <kj/encoding.h>

#include <nlohmann/json.hpp>

#include <algorithm>

namespace packmoor::rpc {
namespace {

using nlohmann::json;

std::string encode(const std::string& text) {
  return kj::encodeBase64(kj::StringPtr(text.c_str(), text.size()).asBytes(), false).cStr();
}
std::string decode(const std::string& text) {
  auto bytes = kj::decodeBase64(kj::StringPtr(text.c_str(), text.size()));
  return {bytes.asChars().begin(), bytes.size()};
}

json headerOf(const FakeEtcd::History& history) {
  return {{"cluster_id", std::to_string(history.clusterId)},
          {"member_id", "1"},
          {"revision", std::to_string(history.revision)}};
}

}  // namespace

// One endpoint: its connections, and what it does with requests.
class FakeEtcd::Host final : public kj::HttpService, private kj::TaskSet::ErrorHandler {
 public:
  Host(FakeEtcd& etcd, std::string name, Mode mode)
      : name(kj::mv(name)), mode(mode), etcd_(etcd),
        server_(etcd.timer_, *etcd.table_, *this), tasks_(newTasks()) {}

  const std::string name;
  Mode mode;

  kj::Own<kj::AsyncIoStream> newConnection() {
    auto pipe = kj::newTwoWayPipe();
    tasks_->add(server_.listenHttp(kj::mv(pipe.ends[0])));
    return kj::mv(pipe.ends[1]);
  }
  void endConnections() { tasks_ = newTasks(); }

  kj::Promise<void> request(kj::HttpMethod, kj::StringPtr url, const kj::HttpHeaders& headers,
                            kj::AsyncInputStream& body, Response& response) override {
    ++etcd_.requests;
    std::string path = url.cStr(), token;
    KJ_IF_MAYBE(value, headers.get(etcd_.authorization_)) { token = value->cStr(); }
    return body.readAllText().then(
        [this, path, token, &response](kj::String text) -> kj::Promise<void> {
          if (mode == Mode::kHangs) return kj::NEVER_DONE;
          if (mode == Mode::kError) {
            return etcd_.respond(response, 503, "{\"error\":\"etcdserver: no leader\",\"code\":14}");
          }
          return etcd_.handle(*this, path, token, text.cStr(), response);
        });
  }

 private:
  kj::Own<kj::TaskSet> newTasks() {
    return kj::heap<kj::TaskSet>(static_cast<kj::TaskSet::ErrorHandler&>(*this));
  }
  void taskFailed(kj::Exception&&) override {}  // of a connection that ended

  FakeEtcd& etcd_;
  kj::HttpServer server_;
  kj::Own<kj::TaskSet> tasks_;
};

class FakeEtcd::Place final : public kj::NetworkAddress {
 public:
  Place(FakeEtcd& etcd, std::string host) : etcd_(etcd), host_(kj::mv(host)) {}
  kj::Promise<kj::Own<kj::AsyncIoStream>> connect() override { return etcd_.dial(host_); }
  kj::Own<kj::ConnectionReceiver> listen() override { KJ_UNIMPLEMENTED("only connects"); }
  kj::Own<kj::NetworkAddress> clone() override { return kj::heap<Place>(etcd_, host_); }
  kj::String toString() override { return kj::str(host_.c_str()); }

 private:
  FakeEtcd& etcd_;
  const std::string host_;
};

class FakeEtcd::Net final : public kj::Network {
 public:
  explicit Net(FakeEtcd& etcd) : etcd_(etcd) {}
  kj::Promise<kj::Own<kj::NetworkAddress>> parseAddress(kj::StringPtr address, kj::uint) override {
    std::string host = address.cStr();
    return kj::Own<kj::NetworkAddress>(kj::heap<Place>(etcd_, host.substr(0, host.find(':'))));
  }
  kj::Own<kj::NetworkAddress> getSockaddr(const void*, kj::uint) override {
    KJ_UNIMPLEMENTED("only names");
  }
  kj::Own<kj::Network> restrictPeers(kj::ArrayPtr<const kj::StringPtr>,
                                     kj::ArrayPtr<const kj::StringPtr>) override {
    KJ_UNIMPLEMENTED("not restricted");
  }

 private:
  FakeEtcd& etcd_;
};

struct FakeEtcd::Watcher {
  FakeEtcd& etcd;
  Host& host;
  kj::Own<kj::AsyncOutputStream> stream;
  kj::Promise<void> writing = kj::READY_NOW;

  Watcher(FakeEtcd& etcd, Host& host, kj::Own<kj::AsyncOutputStream> stream)
      : etcd(etcd), host(host), stream(kj::mv(stream)) {
    etcd.watchers_.push_back(this);
  }
  ~Watcher() noexcept(false) { std::erase(etcd.watchers_, this); }
  void tell() {
    auto line = kj::str(json({{"result", {{"header", headerOf(etcd.history)}}}}).dump().c_str(), "\n");
    writing = writing.then([this, line = kj::mv(line)]() mutable {
      auto done = stream->write(line.begin(), line.size());
      return done.attach(kj::mv(line));
    }).eagerlyEvaluate([](kj::Exception&&) {});  // whoever watched is gone
  }
};

FakeEtcd::FakeEtcd(kj::Timer& timer)
    : timer_(timer), authorization_(builder_.add("Authorization")), table_(builder_.build()),
      network_(kj::heap<Net>(*this)) {}
FakeEtcd::~FakeEtcd() noexcept(false) {}

kj::Network& FakeEtcd::network() { return *network_; }

FakeEtcd::Host& FakeEtcd::host(const std::string& name) {
  auto& host = hosts_[name];
  if (host.get() == nullptr) host = kj::heap<Host>(*this, name, everywhere_);
  return *host;
}

void FakeEtcd::setMode(const std::string& name, Mode mode) {
  host(name).mode = mode;
  if (mode == Mode::kRefuses) host(name).endConnections();
}

void FakeEtcd::setMode(Mode mode) {
  everywhere_ = mode;
  for (auto& [name, host] : hosts_) setMode(name, mode);
}

void FakeEtcd::release() {
  holds_ = false;
  for (auto& fulfiller : held_) fulfiller->fulfill();
  held_.clear();
}

size_t FakeEtcd::watches(const std::string& name) const {
  return std::count_if(watchers_.begin(), watchers_.end(),
                       [&](const Watcher* watcher) { return watcher->host.name == name; });
}

kj::Promise<kj::Own<kj::AsyncIoStream>> FakeEtcd::dial(const std::string& name) {
  ++dials;
  if (host(name).mode == Mode::kRefuses) {
    return KJ_EXCEPTION(DISCONNECTED, "connect(): Connection refused");
  }
  return host(name).newConnection();
}

kj::Promise<void> FakeEtcd::respond(kj::HttpService::Response& response, kj::uint status,
                                    std::string text) {
  kj::Promise<void> may = kj::READY_NOW;
  if (holds_) {
    auto paf = kj::newPromiseAndFulfiller<void>();
    held_.push_back(kj::mv(paf.fulfiller));
    may = kj::mv(paf.promise);
  }
  return may.then([this, &response, status, text]() {
    kj::HttpHeaders headers(*table_);
    auto stream = response.send(status, "", headers, uint64_t(text.size()));
    auto copy = kj::str(text.c_str());
    auto done = stream->write(copy.begin(), copy.size());
    return done.attach(kj::mv(stream), kj::mv(copy));
  });
}

kj::Promise<void> FakeEtcd::handle(Host& host, std::string path, std::string token,
                                   std::string body, kj::HttpService::Response& response) {
  const std::string good = "token-" + std::to_string(tokenSeries_);
  if (path == "/v3/auth/authenticate") {
    ++authentications;
    auto asked = json::parse(body);
    if (user.empty()) {
      return respond(response, 400, "{\"error\":\"etcdserver: authentication is not enabled\"}");
    }
    if (asked["name"] != user || asked["password"] != password) {
      return respond(response, 400,
                     "{\"error\":\"etcdserver: authentication failed, invalid user ID or "
                     "password\",\"code\":3}");
    }
    const std::string text = json({{"header", headerOf(history)}, {"token", good}}).dump();
    return timer_.afterDelay(authenticationTime).then([this, text, &response]() {
      return respond(response, 200, text);
    });
  }
  if (!user.empty() && token != good) {
    return respond(response, 401, "{\"error\":\"etcdserver: invalid auth token\",\"code\":16}");
  }
  if (path == "/v3/watch") return watch(host, response);
  if (path == "/v3/kv/range") return respond(response, 200, range(body));
  if (path == "/v3/kv/put") return respond(response, 200, write(body));
  if (path == "/v3/kv/txn") return respond(response, 200, txn(body));
  return respond(response, 404, "{\"error\":\"Not Found\"}");
}

kj::Promise<void> FakeEtcd::watch(Host& host, kj::HttpService::Response& response) {
  kj::HttpHeaders headers(*table_);
  auto watcher = kj::heap<Watcher>(*this, host, response.send(200, "OK", headers));
  watcher->tell();  // created
  return kj::Promise<void>(kj::NEVER_DONE).attach(kj::mv(watcher));
}

std::string FakeEtcd::range(const std::string& body) const {
  auto asked = json::parse(body);
  const std::string key = decode(asked["key"]);
  const bool one = !asked.contains("range_end");
  const std::string end = one ? std::string() : decode(asked["range_end"]);
  json answer = {{"header", headerOf(history)}};
  for (auto& [name, entry] : history.entries) {
    if (one ? name != key : name < key || name >= end) continue;
    answer["kvs"].push_back({{"key", encode(name)},
                             {"value", encode(entry.value)},
                             {"mod_revision", std::to_string(entry.revision)}});
  }
  return answer.dump();
}

void FakeEtcd::put(const std::string& key, const std::string& value) {
  ++history.revision;
  history.entries[key] = {value, history.revision};
  for (Watcher* watcher : watchers_) {
    if (watcher->host.mode == Mode::kUp) watcher->tell();
  }
}

std::string FakeEtcd::write(const std::string& body) {
  auto asked = json::parse(body);
  put(decode(asked["key"]), decode(asked["value"]));
  return json({{"header", headerOf(history)}}).dump();
}

std::string FakeEtcd::txn(const std::string& body) {
  auto asked = json::parse(body);
  const std::string key = decode(asked["compare"][0]["key"]);
  auto found = history.entries.find(key);
  const int64_t revision = found == history.entries.end() ? 0 : found->second.revision;
  const bool equal = std::to_string(revision) == asked["compare"][0]["mod_revision"];
  if (equal) put(key, decode(asked["success"][0]["request_put"]["value"]));
  json answer = {{"header", headerOf(history)}};
  if (equal) answer["succeeded"] = true;
  return answer.dump();
}

}  // namespace packmoor::rpc
