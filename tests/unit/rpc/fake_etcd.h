// FakeEtcd: an etcd in memory that speaks the JSON gateway in virtual time, for what a real one
// cannot be made to do at will: be gone for an hour, hang, answer late, forget tokens, or go back.
//
// It is one history behind any number of endpoints ("http://e1:1", "http://e2:1", ..), which are
// reached through network(). It knows ranges, puts, transactions with one comparison, watches that
// tell of every change, and authentication with one user.
#pragma once

#include <kj/async-io.h>
#include <kj/compat/http.h>

#include <map>
#include <string>
#include <vector>

namespace packmoor::rpc {

class FakeEtcd final {
 public:
  explicit FakeEtcd(kj::Timer& timer);
  ~FakeEtcd() noexcept(false);

  struct Entry {
    std::string value;
    int64_t revision = 0;
  };
  struct History {
    uint64_t clusterId = 0xc1;
    int64_t revision = 1;
    std::map<std::string, Entry> entries;
  };
  History history;                      // copy it for a backup, and put the copy back

  enum class Mode : uint8_t { kUp, kRefuses, kHangs, kError };
  void setMode(const std::string& host, Mode mode);   // kRefuses ends its connections, too
  void setMode(Mode mode);                            // of every host
  // While set, answers are held back until release(); their requests have been carried out.
  void hold(bool holds) { holds_ = holds; }
  void release();
  size_t held() const { return held_.size(); }

  std::string user, password;           // empty: no authentication
  kj::Duration authenticationTime = 0 * kj::SECONDS;
  void forgetTokens() { ++tokenSeries_; }

  // Puts behind everybody's back, but watches tell of it.
  void put(const std::string& key, const std::string& value);

  kj::Network& network();
  size_t requests = 0;                  // that arrived, watches among them
  size_t dials = 0;
  size_t authentications = 0;
  size_t watches(const std::string& host) const;

 private:
  struct Watcher;
  class Net;
  class Place;
  class Host;

  Host& host(const std::string& name);
  kj::Promise<kj::Own<kj::AsyncIoStream>> dial(const std::string& name);
  kj::Promise<void> respond(kj::HttpService::Response& response, kj::uint status, std::string text);
  kj::Promise<void> handle(Host& host, std::string path, std::string token, std::string body,
                           kj::HttpService::Response& response);
  kj::Promise<void> watch(Host& host, kj::HttpService::Response& response);
  std::string range(const std::string& body) const;
  std::string write(const std::string& body);
  std::string txn(const std::string& body);

  kj::Timer& timer_;
  kj::HttpHeaderTable::Builder builder_;
  kj::HttpHeaderId authorization_;
  kj::Own<kj::HttpHeaderTable> table_;
  kj::Own<Net> network_;
  bool holds_ = false;
  int tokenSeries_ = 1;
  std::vector<kj::Own<kj::PromiseFulfiller<void>>> held_;
  std::vector<Watcher*> watchers_;
  std::map<std::string, kj::Own<Host>> hosts_;
  Mode everywhere_ = Mode::kUp;
};

}  // namespace packmoor::rpc
