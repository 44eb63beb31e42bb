// A real etcd for tests: started on free ports of loopback with a folder of its own, stopped by its
// process id; and a TCP relay in front of it that can be told to lose answers.
#pragma once

#include <kj/async-io.h>

#include <sys/types.h>

#include <memory>
#include <string>

#include "rpc/tls.h"
#include "support/temp_dir.h"

namespace packmoor::rpc {

class EtcdProcess {
 public:
  // Throws when etcd cannot be started or does not answer within 30 s. Blocks. With `tls` there is an
  // endpoint besides that asks its clients for a certificate of the same authority.
  explicit EtcdProcess(TlsFiles tls = {});
  ~EtcdProcess();
  EtcdProcess(const EtcdProcess&) = delete;
  EtcdProcess& operator=(const EtcdProcess&) = delete;

  void stop();   // kill -9
  void start();  // on the same port, with the same data

  std::string endpoint() const { return "http://127.0.0.1:" + std::to_string(clientPort_); }
  std::string secureEndpoint() const { return "https://127.0.0.1:" + std::to_string(securePort_); }
  uint16_t port() const { return clientPort_; }
  // Sets a key behind everybody's back.
  void put(const std::string& key, const std::string& value) const;

 private:
  testing::TempDir folder_;
  const TlsFiles tls_;
  uint16_t clientPort_, peerPort_, securePort_;
  pid_t pid_ = -1;
};

// One for all tests of the program that do not stop it.
EtcdProcess& sharedEtcd();

// Relays a port of its own to `target`.
class TcpRelay final : private kj::TaskSet::ErrorHandler {
 public:
  TcpRelay(kj::AsyncIoContext& io, uint16_t target);
  ~TcpRelay() noexcept(false);

  std::string endpoint() const { return "http://127.0.0.1:" + std::to_string(port_); }
  // From now on transactions reach etcd, but their answers are lost and the connection ends.
  void loseTransactions(bool lose) { lose_ = lose; }
  // From now on connections are accepted and nothing happens on them.
  void hang() { hang_ = true; }
  size_t connections() const { return connections_; }

 private:
  kj::Promise<void> acceptLoop();
  kj::Promise<void> relay(kj::Own<kj::AsyncIoStream> client);
  // One direction; the requests' sets `lost` at a transaction, the answers' heeds it.
  kj::Promise<void> pump(kj::AsyncIoStream& from, kj::AsyncIoStream& to, bool& lost,
                         bool requests, kj::Array<kj::byte> buffer);
  void taskFailed(kj::Exception&&) override {}

  kj::AsyncIoContext& io_;
  uint16_t target_;
  uint16_t port_ = 0;
  bool lose_ = false, hang_ = false;
  size_t connections_ = 0;
  kj::Own<kj::ConnectionReceiver> receiver_;
  kj::TaskSet tasks_;
};

}  // namespace packmoor::rpc
