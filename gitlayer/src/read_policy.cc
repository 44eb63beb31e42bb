#include "gitlayer/read_policy.h"

#include <charconv>

namespace packmoor::gitlayer {

std::optional<ReadPolicy> parseReadPolicy(std::string_view text) {
  constexpr std::string_view kAtLeast = "at-least=";
  ReadPolicy policy;
  if (text == "linearizable") return policy;
  if (text == "available") {
    policy.kind = ReadPolicy::Kind::kAvailable;
    return policy;
  }
  if (text.substr(0, kAtLeast.size()) != kAtLeast) return std::nullopt;
  text.remove_prefix(kAtLeast.size());
  const size_t colon = text.find(':');
  if (colon == 0 || colon == std::string_view::npos) return std::nullopt;
  uint64_t index = 0;
  const char* end = text.data() + text.size();
  auto [stopped, error] = std::from_chars(text.data() + colon + 1, end, index);
  if (error != std::errc() || stopped != end) return std::nullopt;
  policy.kind = ReadPolicy::Kind::kAtLeast;
  policy.volume = text.substr(0, colon);
  policy.index = replicator::RecordIndex(index);
  return policy;
}

}  // namespace packmoor::gitlayer
