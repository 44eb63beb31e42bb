// TlsMaterial: this node's certificate, its key and the cluster's authority, read and checked.
//
// Why: nodes prove who they are to each other with certificates that the cluster's own authority
// signed. A certificate that is missing, expired, not ours or not matched by its key must be
// refused at start with a sentence, not at the first connection with an OpenSSL error.
//
// A node's certificate carries its node id as common name and as DNS name. The authority file may
// hold several certificates, so that an authority can be replaced. Keys without a passphrase only.
//
// Read once, at start; lives as long as the connections made with it. Loop: any, not shared.
#pragma once

#include <kj/memory.h>

#include <cstdint>
#include <string>

namespace kj {
class TlsContext;
}

namespace packmoor::rpc {

struct TlsFiles {
  std::string authority;    // PEM: the cluster's CA certificates
  std::string certificate;  // PEM: this node's, with intermediates after it
  std::string key;          // PEM: of the certificate
};

constexpr int64_t kCertificateWarningMs = 30LL * 24 * 3600 * 1000;  // before its end

class TlsMaterial {
 public:
  // Reads and checks the files. `nodeId` is who the certificate must name; `nowMs` the wall clock.
  // Throws a KJ exception whose description is a sentence that names the file.
  static kj::Own<TlsMaterial> load(const TlsFiles& files, const std::string& nodeId,
                                   int64_t nowMs);
  // For connections to a service that is no node, such as etcd: `certificate` and `key` may be empty,
  // and the certificate may name anybody and be signed by anybody. accepting() is of no use.
  static kj::Own<TlsMaterial> loadForClient(const TlsFiles& files, int64_t nowMs);
  virtual ~TlsMaterial() noexcept(false) {}

  // Wall-clock milliseconds at which the certificate, or an authority, ends.
  virtual int64_t certificateEndsMs() const = 0;
  virtual int64_t authorityEndsMs() const = 0;
  // Empty, or a sentence for the operator when an end is nearer than kCertificateWarningMs.
  virtual std::string warning(int64_t nowMs) const = 0;

  // For connections between nodes: both sides must be signed by the authority; TLS 1.2 or newer.
  // Two, because KJ tells why a server's certificate is not good only to a context that does not
  // verify clients.
  virtual kj::TlsContext& dialling() = 0;
  virtual kj::TlsContext& accepting() = 0;
};

}  // namespace packmoor::rpc
