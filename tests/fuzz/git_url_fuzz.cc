// module: rpc
// Targets of HTTP requests: what names a repository is a list of plain parts, whatever was encoded, and
// what is refused has a sentence.
#include "git_url.h"

#include "decoder_fuzz.h"

#include <string_view>

using namespace packmoor;
using namespace packmoor::rpc;

namespace {

void requirePlain(std::string_view path) {
  fuzz::require(!path.empty());
  for (char c : path) {
    fuzz::require(static_cast<unsigned char>(c) >= 0x20 && c != 0x7f && c != '\\');
  }
  for (size_t at = 0; at <= path.size();) {
    const size_t end = std::min(path.find('/', at), path.size());
    const std::string_view part = path.substr(at, end - at);
    fuzz::require(!part.empty() && part != "." && part != "..");
    at = end + 1;
  }
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  const GitUrl url = parseGitUrl({reinterpret_cast<const char*>(data), size});
  switch (url.target) {
    case GitTarget::kBad: fuzz::require(!url.problem.empty()); break;
    case GitTarget::kInfoRefs:
    case GitTarget::kService: requirePlain(url.repository); break;
    default: break;
  }
  return 0;
}
