// module: gitlayer
// Requests of `git archive --remote` and the .gitattributes of what is archived: words up to an empty line, the
// file up to two of them, and the rest are paths. Whatever they say, an answer comes in bounded work; a path
// that a pathspec selects is one that its folders lead to; a file in which lines end anew is only longer by that.
#include "archive_attributes.h"
#include "archive_request.h"
#include "decoder_fuzz.h"

#include <kernelio/check.h>

#include <algorithm>

using namespace packmoor::gitlayer;

namespace {

void checkPath(const Pathspec& spec, const std::string& path) {
  uint64_t work = 0;
  const size_t slash = path.rfind('/');
  if (slash == path.npos || !spec.selects(path, false, work)) return;
  PACKMOOR_CHECK(spec.mayBeBelow(path.substr(0, slash)), spec.text().c_str(), path.c_str());
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  std::string_view rest(reinterpret_cast<const char*>(data), std::min<size_t>(size, 20'000));
  const auto cut = [&rest](std::string_view end) { return packmoor::fuzz::cutAt(rest, end); };
  std::vector<std::string> words;
  for (auto word = cut("\n"); !word.empty(); word = cut("\n")) words.emplace_back(word);
  ArchiveRequest request;
  if (request.parse(words)) return 0;
  ArchiveAttributes attributes;
  const std::string_view file = cut("\n\n");
  if (attributes.enter("", file)) return 0;
  while (!rest.empty()) {
    std::string path(cut("\n"));
    if (path.empty() || path.front() == '/' || path.back() == '/') continue;
    for (const Pathspec& spec : request.paths) checkPath(spec, path);
    uint64_t work = 0;
    const auto found = attributes.of(path, false, work);
    auto content = kj::arrayPtr(reinterpret_cast<const kj::byte*>(file.data()), file.size());
    auto converted = found.converted(content);
    PACKMOOR_CHECK(converted == nullptr || found.converts(), path.c_str());
    if (converted == nullptr) continue;
    std::string text(reinterpret_cast<const char*>(converted.begin()), converted.size());
    text.erase(std::remove(text.begin(), text.end(), '\r'), text.end());
    std::string before(file);
    before.erase(std::remove(before.begin(), before.end(), '\r'), before.end());
    PACKMOOR_CHECK(text == before, path.c_str());
  }
  return 0;
}
