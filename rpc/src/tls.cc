#include "rpc/tls.h"

#include <kj/compat/tls.h>
#include <kj/debug.h>
#include <kj/vector.h>

#include <openssl/err.h>
#include <openssl/pem.h>
#include <openssl/x509.h>
#include <openssl/x509v3.h>

#include <algorithm>
#include <cerrno>
#include <cstring>
#include <ctime>
#include <fstream>
#include <iterator>
#include <limits>
#include <memory>
#include <vector>

namespace packmoor::rpc {
namespace {

constexpr size_t kPemBytesMax = 1u << 20;

struct X509Free {
  void operator()(X509* p) const { X509_free(p); }
};
struct KeyFree {
  void operator()(EVP_PKEY* p) const { EVP_PKEY_free(p); }
};
struct BioFree {
  void operator()(BIO* p) const { BIO_free(p); }
};
struct StoreFree {
  void operator()(X509_STORE* p) const { X509_STORE_free(p); }
};
struct StoreContextFree {
  void operator()(X509_STORE_CTX* p) const { X509_STORE_CTX_free(p); }
};
struct ChainFree {
  void operator()(STACK_OF(X509) * p) const { sk_X509_free(p); }
};
using X509Own = std::unique_ptr<X509, X509Free>;
using Key = std::unique_ptr<EVP_PKEY, KeyFree>;
using Bio = std::unique_ptr<BIO, BioFree>;

template <typename... Parts>
[[noreturn]] void refuse(Parts&&... parts) {
  ERR_clear_error();
  kj::throwFatalException(kj::Exception(kj::Exception::Type::FAILED, __FILE__, __LINE__,
                                        kj::str(kj::fwd<Parts>(parts)...)));
}

std::string readPem(const std::string& path, const char* what) {
  if (path.empty()) refuse("No file is configured for ", what, ".");
  std::ifstream in(path, std::ios::binary);
  if (!in) refuse("Cannot read ", what, " ", path.c_str(), ": ", strerror(errno), ".");
  std::string text((std::istreambuf_iterator<char>(in)), {});
  if (in.bad()) refuse("Cannot read ", what, " ", path.c_str(), ": ", strerror(errno), ".");
  if (text.size() > kPemBytesMax) refuse(path.c_str(), " is too large to be ", what, ".");
  return text;
}

Bio bioOf(const std::string& text) {
  return Bio(BIO_new_mem_buf(text.data(), static_cast<int>(text.size())));
}

std::vector<X509Own> parseCertificates(const std::string& pem, const std::string& path,
                                       const char* what) {
  auto bio = bioOf(pem);
  std::vector<X509Own> certificates;
  for (;;) {
    X509Own certificate(PEM_read_bio_X509(bio.get(), nullptr, nullptr, nullptr));
    if (certificate == nullptr) {
      const auto error = ERR_peek_last_error();
      const bool ended = ERR_GET_LIB(error) == ERR_LIB_PEM &&
                         ERR_GET_REASON(error) == PEM_R_NO_START_LINE;
      if (!ended) refuse(path.c_str(), " is damaged: it holds a certificate that cannot be read.");
      break;
    }
    certificates.push_back(std::move(certificate));
  }
  ERR_clear_error();
  if (certificates.empty()) {
    refuse(path.c_str(), " is not ", what, ": it holds no PEM certificate.");
  }
  return certificates;
}

int noPassphrase(char*, int, int, void*) {
  return 0;
}

int64_t toMs(const ASN1_TIME* time) {
  struct tm parts = {};
  if (ASN1_TIME_to_tm(time, &parts) != 1) return 0;
  return static_cast<int64_t>(timegm(&parts)) * 1000;
}

kj::String dateText(int64_t ms) {
  const time_t seconds = ms / 1000;
  struct tm parts = {};
  gmtime_r(&seconds, &parts);
  char text[32];
  strftime(text, sizeof text, "%Y-%m-%d %H:%M UTC", &parts);
  return kj::str(text);
}

void checkDates(X509* certificate, const std::string& path, int64_t nowMs) {
  const int64_t begins = toMs(X509_get0_notBefore(certificate));
  const int64_t ends = toMs(X509_get0_notAfter(certificate));
  if (nowMs >= ends) {
    refuse("The certificate ", path.c_str(), " expired on ", dateText(ends), "; replace it.");
  }
  if (nowMs < begins) {
    refuse("The certificate ", path.c_str(), " is valid only from ", dateText(begins),
           " on; check the clock of this machine.");
  }
}

std::string commonName(X509* certificate) {
  char name[256] = {};
  X509_NAME_get_text_by_NID(X509_get_subject_name(certificate), NID_commonName, name,
                            sizeof name);
  return name;
}

void checkNames(X509* certificate, const std::string& path, const std::string& nodeId) {
  const std::string name = commonName(certificate);
  if (name != nodeId) {
    refuse("The certificate ", path.c_str(), " is of \"", name.c_str(), "\", but this node is \"",
           nodeId.c_str(), "\".");
  }
  if (X509_check_host(certificate, nodeId.data(), nodeId.size(), 0, nullptr) != 1) {
    refuse("The certificate ", path.c_str(), " lacks the DNS name \"", nodeId.c_str(), "\".");
  }
}

void checkSigned(const std::vector<X509Own>& chain, const std::vector<X509Own>& authorities,
                 const TlsFiles& files, int64_t nowMs) {
  std::unique_ptr<X509_STORE, StoreFree> store(X509_STORE_new());
  for (auto& authority : authorities) X509_STORE_add_cert(store.get(), authority.get());
  std::unique_ptr<STACK_OF(X509), ChainFree> others(sk_X509_new_null());
  for (size_t i = 1; i < chain.size(); ++i) sk_X509_push(others.get(), chain[i].get());
  std::unique_ptr<X509_STORE_CTX, StoreContextFree> context(X509_STORE_CTX_new());
  if (X509_STORE_CTX_init(context.get(), store.get(), chain[0].get(), others.get()) != 1) {
    refuse("The certificate ", files.certificate.c_str(), " cannot be checked.");
  }
  X509_STORE_CTX_set_time(context.get(), 0, static_cast<time_t>(nowMs / 1000));
  if (X509_verify_cert(context.get()) != 1) {
    refuse("The certificate ", files.certificate.c_str(), " is not signed by ",
           files.authority.c_str(), ": ",
           X509_verify_cert_error_string(X509_STORE_CTX_get_error(context.get())), ".");
  }
}

class LoadedTls final : public TlsMaterial {
 public:
  LoadedTls(kj::TlsContext::Options& options, int64_t certificateEndsMs, int64_t authorityEndsMs,
            std::string certificatePath, std::string authorityPath)
      : dialling_(verifying(options, false)),
        accepting_(verifying(options, true)),
        certificateEndsMs_(certificateEndsMs),
        authorityEndsMs_(authorityEndsMs),
        certificatePath_(std::move(certificatePath)),
        authorityPath_(std::move(authorityPath)) {}

  int64_t certificateEndsMs() const override { return certificateEndsMs_; }
  int64_t authorityEndsMs() const override { return authorityEndsMs_; }
  std::string warning(int64_t nowMs) const override {
    const bool authorityFirst = authorityEndsMs_ < certificateEndsMs_;
    const int64_t ends = authorityFirst ? authorityEndsMs_ : certificateEndsMs_;
    if (ends - nowMs > kCertificateWarningMs) return {};
    return kj::str("The certificate ", (authorityFirst ? authorityPath_ : certificatePath_).c_str(),
                   nowMs >= ends ? " expired on " : " expires on ", dateText(ends),
                   "; replace it.")
        .cStr();
  }
  kj::TlsContext& dialling() override { return dialling_; }
  kj::TlsContext& accepting() override { return accepting_; }

 private:
  static kj::TlsContext::Options& verifying(kj::TlsContext::Options& options, bool clients) {
    options.verifyClients = clients;
    return options;
  }

  kj::TlsContext dialling_, accepting_;
  int64_t certificateEndsMs_, authorityEndsMs_;
  std::string certificatePath_, authorityPath_;
};

kj::TlsCertificate authorityForKj(X509* certificate) {
  kj::byte* encoded = nullptr;
  const int bytes = i2d_X509(certificate, &encoded);
  if (bytes <= 0) refuse("An authority's certificate cannot be encoded.");
  KJ_DEFER(OPENSSL_free(encoded));
  return kj::TlsCertificate(kj::arrayPtr(encoded, static_cast<size_t>(bytes)));
}

struct Trusted {
  std::vector<X509Own> certificates;
  kj::Vector<kj::TlsCertificate> forKj;
  int64_t endsMs = std::numeric_limits<int64_t>::max();
};

Trusted loadAuthorities(const TlsFiles& files, const char* what) {
  Trusted trusted;
  const auto pem = readPem(files.authority, what);
  trusted.certificates = parseCertificates(pem, files.authority, "an authority's certificate");
  for (auto& authority : trusted.certificates) {
    trusted.endsMs = std::min(trusted.endsMs, toMs(X509_get0_notAfter(authority.get())));
    trusted.forKj.add(authorityForKj(authority.get()));
  }
  return trusted;
}

struct Own {
  std::string certificatePem, keyPem;
  std::vector<X509Own> chain;
};

Own loadOwn(const TlsFiles& files, const char* certificateName, const char* keyName) {
  Own own;
  own.certificatePem = readPem(files.certificate, certificateName);
  own.keyPem = readPem(files.key, keyName);
  own.chain = parseCertificates(own.certificatePem, files.certificate, "a certificate");
  Key key(PEM_read_bio_PrivateKey(bioOf(own.keyPem).get(), nullptr, &noPassphrase, nullptr));
  if (key == nullptr) {
    refuse(files.key.c_str(), " is not a private key in PEM without a passphrase.");
  }
  if (X509_check_private_key(own.chain[0].get(), key.get()) != 1) {
    refuse("The key ", files.key.c_str(), " does not belong to the certificate ",
           files.certificate.c_str(), ".");
  }
  return own;
}

kj::TlsKeypair keypairOf(const Own& own) {
  return {kj::TlsPrivateKey(kj::StringPtr(own.keyPem.c_str(), own.keyPem.size())),
          kj::TlsCertificate(
              kj::StringPtr(own.certificatePem.c_str(), own.certificatePem.size()))};
}

kj::TlsContext::Options optionsFor(const Trusted& trusted) {
  kj::TlsContext::Options options;
  options.useSystemTrustStore = false;
  options.trustedCertificates = trusted.forKj.asPtr();
  options.minVersion = kj::TlsVersion::TLS_1_2;
  return options;
}

}  // namespace

kj::Own<TlsMaterial> TlsMaterial::load(const TlsFiles& files, const std::string& nodeId,
                                       int64_t nowMs) {
  ERR_clear_error();
  auto trusted = loadAuthorities(files, "the cluster's authority");
  auto own = loadOwn(files, "this node's certificate", "this node's key");
  checkNames(own.chain[0].get(), files.certificate, nodeId);
  checkDates(own.chain[0].get(), files.certificate, nowMs);
  checkSigned(own.chain, trusted.certificates, files, nowMs);
  auto options = optionsFor(trusted);
  const kj::TlsKeypair keypair = keypairOf(own);
  options.defaultKeypair = keypair;
  return kj::heap<LoadedTls>(options, toMs(X509_get0_notAfter(own.chain[0].get())), trusted.endsMs,
                             files.certificate, files.authority);
}

kj::Own<TlsMaterial> TlsMaterial::loadForClient(const TlsFiles& files, int64_t nowMs) {
  ERR_clear_error();
  auto trusted = loadAuthorities(files, "etcd's authority");
  auto options = optionsFor(trusted);
  if (files.certificate.empty()) {
    return kj::heap<LoadedTls>(options, std::numeric_limits<int64_t>::max(), trusted.endsMs,
                               files.certificate, files.authority);
  }
  auto own = loadOwn(files, "the certificate for etcd", "the key for etcd");
  checkDates(own.chain[0].get(), files.certificate, nowMs);
  const kj::TlsKeypair keypair = keypairOf(own);
  options.defaultKeypair = keypair;
  return kj::heap<LoadedTls>(options, toMs(X509_get0_notAfter(own.chain[0].get())), trusted.endsMs,
                             files.certificate, files.authority);
}

}  // namespace packmoor::rpc
