#include "pack_key.h"

#include <kj/debug.h>
#include <openssl/evp.h>

#include <algorithm>

namespace packmoor::gitlayer {
namespace {

class KeyHash {
 public:
  KeyHash() : context_(EVP_MD_CTX_new()) {
    KJ_REQUIRE(context_ != nullptr && EVP_DigestInit_ex(context_, EVP_sha256(), nullptr) == 1,
               "libcrypto has no SHA-256");
  }
  ~KeyHash() noexcept(false) { EVP_MD_CTX_free(context_); }
  KJ_DISALLOW_COPY(KeyHash);

  void number(uint64_t value) { EVP_DigestUpdate(context_, &value, sizeof value); }
  void text(std::string_view value) {
    number(value.size());
    EVP_DigestUpdate(context_, value.data(), value.size());
  }
  void id(const ObjectId& value) { EVP_DigestUpdate(context_, value.bytes.data(), kOidBytes); }
  // In any order.
  void ids(std::vector<ObjectId> values) {
    std::sort(values.begin(), values.end());
    number(values.size());
    for (const ObjectId& value : values) id(value);
  }
  std::string finish() {
    std::string result(32, '\0');
    unsigned int bytes = 0;
    EVP_DigestFinal_ex(context_, reinterpret_cast<unsigned char*>(result.data()), &bytes);
    return result;
  }

 private:
  EVP_MD_CTX* const context_;
};

}  // namespace

std::optional<std::string> packKey(FetchWork& work, size_t bandPacketBytes) {
  const FetchRequest& request = work.request;
  // What is left out by refs or by a file's content may change with the repository.
  if (!request.shallow.notRefs.empty() || (request.filter && request.filter->byPath())) {
    return std::nullopt;
  }
  KeyHash hash;
  const RepositoryId& repository = work.view().info().id;
  hash.text({reinterpret_cast<const char*>(&repository), sizeof repository});
  hash.number(bandPacketBytes);
  hash.number(request.thinPack | request.ofsDelta << 1 | request.includeTag << 2 |
              request.shallow.relative << 3 | request.shallow.since.has_value() << 4 |
              request.filter.has_value() << 5);
  hash.ids(request.wants.names());
  hash.ids(work.common().names());
  hash.text(request.filterText);
  hash.ids(request.shallow.shallows.names());
  hash.number(request.shallow.depth);
  hash.number(static_cast<uint64_t>(request.shallow.since.value_or(0)));
  if (request.includeTag) {
    work.view().forEachRef("refs/tags/", [&](const Ref& ref) {
      if (ref.peeled.isZero()) return true;
      hash.id(ref.id);
      hash.id(ref.peeled);
      return true;
    });
  }
  return hash.finish();
}

}  // namespace packmoor::gitlayer
