// EtcdClient: requests to etcd's JSON gateway, with failover among its endpoints.
//
// An answer is the parsed JSON object of a 200; anything else rejects with a sentence. Owned by
// the coordinator, on its loop.
#pragma once

#include <rpc/etcd_coordinator.h>

#include <kernelio/co.h>

#include <kj/compat/http.h>

#include <nlohmann/json_fwd.hpp>

#include <memory>

namespace packmoor::rpc {

using EtcdAnswer = std::shared_ptr<const nlohmann::json>;

class EtcdClient {
 public:
  explicit EtcdClient(EtcdOptions options);

  // POST, once at each endpoint until one answers.
  kj::Promise<EtcdAnswer> callAny(std::string path, std::string body);
  // POST at the endpoint that answered last, and nowhere else.
  kj::Promise<EtcdAnswer> callOnce(std::string path, std::string body);
  // Opens a streamed answer at an endpoint of the caller's choice, counted round.
  kj::Promise<kj::Own<kj::AsyncInputStream>> open(size_t endpoint, std::string path,
                                                  std::string body);

  const EtcdOptions& options() const { return options_; }
  const EtcdIdentity& identity() const { return identity_; }
  const std::string& endpoint() const { return options_.endpoints[current_]; }
  const std::string& problem() const { return problem_; }
  bool reachable() const { return reachable_; }

 private:
  Co<EtcdAnswer> anyBody(std::string path, std::string body);
  Co<EtcdAnswer> call(size_t endpoint, std::string path, std::string body);
  Co<EtcdAnswer> exchange(size_t endpoint, std::string path, std::string body);
  Co<kj::HttpClient::Response> post(size_t endpoint, std::string path, std::string body);
  void learn(const nlohmann::json& answer, size_t endpoint);
  void succeeded();
  void failed(const kj::Exception& cause);

  EtcdOptions options_;
  kj::HttpHeaderTable headerTable_;
  kj::Own<kj::HttpClient> http_;
  size_t current_ = 0;
  EtcdIdentity identity_;
  bool reachable_ = false;
  std::string problem_;
};

// An integer that the gateway writes as a string, 0 when absent. Throws when it is neither.
int64_t etcdInteger(const nlohmann::json& object, const char* name);

}  // namespace packmoor::rpc
