#include "etcd_endpoint.h"

#include <kj/compat/tls.h>
#include <kj/compat/url.h>
#include <kj/debug.h>

#include "rpc/tls.h"

namespace packmoor::rpc {
namespace {

constexpr kj::uint kHttpPort = 80, kHttpsPort = 443;

[[noreturn]] void fail(kj::String sentence) {
  kj::throwFatalException(
      kj::Exception(kj::Exception::Type::FAILED, __FILE__, __LINE__, kj::mv(sentence)));
}

std::string withoutPort(const std::string& host) {
  std::string name = host;
  const auto colon = name.rfind(':');
  if (colon != std::string::npos && name.find(']', colon) == std::string::npos) name.resize(colon);
  if (name.size() > 2 && name.front() == '[') name = name.substr(1, name.size() - 2);
  return name;
}

class Address final : public kj::NetworkAddress {
 public:
  Address(kj::Network& network, std::string host, kj::uint port, kj::TlsContext* tls,
          std::string serverName)
      : network_(network), host_(kj::mv(host)), port_(port), tls_(tls),
        serverName_(kj::mv(serverName)) {}

  kj::Promise<kj::Own<kj::AsyncIoStream>> connect() override {
    auto connected = network_.parseAddress(host_.c_str(), port_)
                         .then([](kj::Own<kj::NetworkAddress> address) {
                           auto stream = address->connect();
                           return stream.attach(kj::mv(address));
                         });
    if (tls_ == nullptr) return connected;
    return connected.then([this](kj::Own<kj::AsyncIoStream> stream) {
      return tls_->wrapClient(kj::mv(stream), serverName_.c_str());
    });
  }
  kj::Own<kj::ConnectionReceiver> listen() override { KJ_UNIMPLEMENTED("only connects"); }
  kj::Own<kj::NetworkAddress> clone() override {
    return kj::heap<Address>(network_, host_, port_, tls_, serverName_);
  }
  kj::String toString() override { return kj::str(host_.c_str()); }

 private:
  kj::Network& network_;
  const std::string host_;
  const kj::uint port_;
  kj::TlsContext* tls_;
  const std::string serverName_;
};

}  // namespace

EtcdEndpoint::EtcdEndpoint(const EtcdOptions& options, std::string url,
                           const kj::HttpHeaderTable& table)
    : table_(table), url_(kj::mv(url)) {
  while (!url_.empty() && url_.back() == '/') url_.pop_back();
  auto parsed = kj::Url::tryParse(kj::StringPtr(url_.c_str()), kj::Url::Context::REMOTE_HREF);
  bool secure = false, good = false;
  KJ_IF_MAYBE(p, parsed) {
    secure = p->scheme == "https";
    good = (secure || p->scheme == "http") && p->host.size() > 0 && p->path.size() == 0;
    host_ = p->host.cStr();
  }
  if (!good) {
    fail(kj::str("\"", url_.c_str(), "\" is not an etcd endpoint; write it as http://HOST:PORT or "
                 "https://HOST:PORT."));
  }
  if (secure && options.tls == nullptr) {
    fail(kj::str("The etcd endpoint ", url_.c_str(), " uses https, and no authority (CA file) is "
                 "configured by which to verify it."));
  }
  const std::string name = options.serverName.empty() ? withoutPort(host_) : options.serverName;
  address_ = kj::heap<Address>(options.network, host_, secure ? kHttpsPort : kHttpPort,
                               secure ? &options.tls->dialling() : nullptr, name);
  http_ = kj::newHttpClient(options.timer, table_, *address_);
}

Co<kj::HttpClient::Response> EtcdEndpoint::post(std::string path, std::string body,
                                                std::string token) {
  kj::HttpHeaders headers(table_);
  headers.set(kj::HttpHeaderId::HOST, kj::str(host_.c_str()));
  if (!token.empty()) headers.add(kj::str("Authorization"), kj::str(token.c_str()));
  auto request = http_->request(kj::HttpMethod::POST, kj::StringPtr(path.c_str()), headers,
                                uint64_t(body.size()));
  auto written = request.body->write(body.data(), body.size());
  co_await kj::mv(written);
  request.body = nullptr;
  auto response = co_await kj::mv(request.response);
  co_return kj::mv(response);
}

}  // namespace packmoor::rpc
