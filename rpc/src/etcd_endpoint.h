// EtcdEndpoint: the connections to one endpoint of etcd, plain or over TLS.
//
// Why not KJ's network clients: they cannot verify a server under another name than the URL's, and
// etcd is often configured by address. The host is resolved anew for each connection.
#pragma once

#include <rpc/etcd_coordinator.h>

#include <kernelio/co.h>

#include <kj/compat/http.h>

namespace packmoor::rpc {

class EtcdEndpoint {
 public:
  // Throws a sentence when `url` is not an endpoint. The options outlive this.
  EtcdEndpoint(const EtcdOptions& options, std::string url, const kj::HttpHeaderTable& table);

  const std::string& url() const { return url_; }
  // POST; `token` is left out when it is empty. No deadline.
  Co<kj::HttpClient::Response> post(std::string path, std::string body, std::string token);

 private:
  const kj::HttpHeaderTable& table_;
  std::string url_, host_;  // host_ with the port
  kj::Own<kj::NetworkAddress> address_;
  kj::Own<kj::HttpClient> http_;
};

}  // namespace packmoor::rpc
