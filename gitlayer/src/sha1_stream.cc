#include "sha1_stream.h"

#include <kj/debug.h>
#include <openssl/evp.h>

namespace packmoor::gitlayer {

namespace {
EVP_MD_CTX* raw(void* context) { return static_cast<EVP_MD_CTX*>(context); }
}  // namespace

Sha1Stream::Sha1Stream() : context_(EVP_MD_CTX_new()) {
  KJ_REQUIRE(context_ != nullptr && EVP_DigestInit_ex(raw(context_), EVP_sha1(), nullptr) == 1,
             "libcrypto has no SHA-1");
}

Sha1Stream::~Sha1Stream() noexcept { EVP_MD_CTX_free(raw(context_)); }

void Sha1Stream::update(kj::ArrayPtr<const kj::byte> bytes) {
  EVP_DigestUpdate(raw(context_), bytes.begin(), bytes.size());
}

ObjectId Sha1Stream::finish() {
  ObjectId id;
  unsigned int size = 0;
  EVP_DigestFinal_ex(raw(context_), id.bytes.data(), &size);
  KJ_ASSERT(size == kOidBytes);
  return id;
}

}  // namespace packmoor::gitlayer
