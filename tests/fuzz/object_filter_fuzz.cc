// module: gitlayer
// Filters of partial clones: the first line is the filter, what follows up to an empty line is the text
// of each sparse specification in it, and the rest are paths. Whatever it says, an answer comes in
// bounded work; and a pattern that spells a path out matches it.
#include "decoder_fuzz.h"
#include "object_filter.h"

#include <kernelio/check.h>
#include <kj/exception.h>

#include <algorithm>

using namespace packmoor::gitlayer;

namespace {

void checkSpeltOut(const std::string& path) {
  std::string pattern = "/";
  for (char c : path) {
    if (std::string_view("*?[]\\ ").find(c) != std::string_view::npos) pattern += '\\';
    pattern += c;
  }
  PathPatterns patterns;
  uint64_t work = 0;
  if (path.empty() || path.front() == '/' || path.back() == '/' || path.back() == '\r') return;
  if (pattern.size() > PathPatterns::kPatternBytesMax || patterns.parse(pattern)) return;
  PACKMOOR_CHECK(patterns.decide(path, false, work) == true, path.c_str());
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  std::string_view rest(reinterpret_cast<const char*>(data), std::min<size_t>(size, 20'000));
  const auto cut = [&rest](std::string_view end) { return packmoor::fuzz::cutAt(rest, end); };
  ObjectFilter filter;
  if (filter.parse(cut("\n"))) return 0;
  std::string_view text = cut("\n\n");
  for (size_t i = 0; i < filter.sparseNames().size(); ++i) {
    if (filter.setSparse(i, text)) return 0;
  }
  filter.setWorkMax(5'000'000);
  kj::runCatchingExceptions([&]() {
    for (uint32_t depth = 0; !rest.empty(); ++depth) {
      ObjectFilter::Place place{depth, 0, std::string(cut("\n"))};
      checkSpeltOut(place.path);
      bool sends = filter.sendsTree(place);
      if (filter.byDepth() && filter.opensTree(place)) {
        PACKMOOR_CHECK(sends || !filter.sendsCommits(), "opened what is left out");
      }
    }
  });
  return 0;
}
