// EtcdClient: requests to etcd's JSON gateway, with failover among its endpoints, deadlines,
// authentication, and each answer judged by what is known of etcd (etcd_past.h).
//
// An answer is the parsed JSON object of a 200; anything else rejects with a sentence. Owned by
// the coordinator, on its loop.
#pragma once

#include <rpc/etcd_coordinator.h>

#include <kernelio/co.h>

#include <nlohmann/json_fwd.hpp>

#include <map>
#include <memory>

#include "etcd_endpoint.h"
#include "etcd_past.h"

namespace packmoor::rpc {

struct EtcdAnswer {
  std::shared_ptr<const nlohmann::json> body;
  EtcdHeader header;
  EtcdPast::Tag tag;                   // of the question
};

constexpr int64_t kEtcdAuthenticationMs = 30'000;

class EtcdClient final : private kj::TaskSet::ErrorHandler {
 public:
  // `past` outlives this. `recovered` is called when etcd answers after it did not.
  EtcdClient(EtcdOptions options, EtcdPast& past, std::function<void()> recovered);

  // POST, once at each endpoint until one answers, and once more where the connection breaks: what
  // is sent may be carried out twice. Rejects with the doubt while there is one.
  kj::Promise<EtcdAnswer> callAny(std::string path, std::string body);
  // POST at the endpoint that answered last, and nowhere else.
  kj::Promise<EtcdAnswer> callOnce(std::string path, std::string body);
  // As callAny, whatever cluster answers: for looking at an etcd that is in doubt.
  kj::Promise<EtcdAnswer> askAny(std::string path, std::string body);
  // Likewise at one endpoint, and no matter for reachable() and problem().
  kj::Promise<EtcdAnswer> askAt(size_t endpoint, std::string path, std::string body);
  // Opens a streamed answer at an endpoint of the caller's choice, counted round.
  kj::Promise<kj::Own<kj::AsyncInputStream>> open(size_t endpoint, std::string path,
                                                  std::string body);
  // The next request authenticates anew.
  void forgetToken() { token_.clear(); }

  const EtcdOptions& options() const { return options_; }
  size_t endpointCount() const { return endpoints_.size(); }
  size_t current() const { return current_; }
  const std::string& endpoint() const { return endpoints_[current_]->url(); }
  const std::string& problem() const { return problem_; }
  bool reachable() const { return reachable_; }

 private:
  enum class Trust : uint8_t { kKnownOnly, kAny };
  Co<EtcdAnswer> anyBody(std::string path, std::string body, Trust trust);
  Co<EtcdAnswer> onceBody(std::string path, std::string body);
  Co<EtcdAnswer> call(size_t endpoint, std::string path, std::string body, Trust trust);
  Co<EtcdAnswer> exchange(size_t endpoint, std::string path, std::string body, Trust trust);
  Co<kj::Own<kj::AsyncInputStream>> openBody(size_t endpoint, std::string path, std::string body);
  kj::Promise<void> withToken(size_t endpoint);
  Co<void> authenticate(size_t endpoint);
  bool needsToken() const {
    return !options_.user.empty() && token_.empty() && !authenticationOff_;
  }
  bool refusesToken(kj::uint status, kj::StringPtr text, const std::string& used);
  void taskFailed(kj::Exception&&) override {}
  void judge(const EtcdAnswer& answer);
  void requireNoDoubt();
  void succeeded();
  void failed(const kj::Exception& cause);

  EtcdOptions options_;
  EtcdPast& past_;
  std::function<void()> recovered_;
  kj::HttpHeaderTable headerTable_;
  kj::Vector<kj::Own<EtcdEndpoint>> endpoints_;
  size_t current_ = 0;
  std::string token_;                  // a secret
  bool authenticationOff_ = false;     // etcd said that it does not authenticate
  std::map<size_t, kj::ForkedPromise<void>> authenticating_;   // by endpoint
  bool reachable_ = false;
  std::string problem_;
  kj::Maybe<EtcdHeader> foreign_;      // of the last answer of another cluster
  kj::TaskSet removals_;               // last: they use the above
};

// An integer that the gateway writes as a string, 0 when absent. Throws when it is neither.
int64_t etcdInteger(const nlohmann::json& object, const char* name);

}  // namespace packmoor::rpc
