#include "object_filter.h"

#include <kj/debug.h>

#include <algorithm>
#include <charconv>

namespace packmoor::gitlayer {
namespace {

constexpr size_t kQuotedMax = 80;

std::string invalid(std::string_view specification) {
  return "invalid filter-spec '" + std::string(specification.substr(0, kQuotedMax)) + "'";
}

bool cutPrefix(std::string_view& text, std::string_view prefix) {
  if (text.substr(0, prefix.size()) != prefix) return false;
  text.remove_prefix(prefix.size());
  return true;
}

// As git's own numbers: "10", "4k", "1M", "2g".
std::optional<uint64_t> scaledNumber(std::string_view text) {
  uint64_t number = 0;
  auto parsed = std::from_chars(text.data(), text.data() + text.size(), number);
  if (parsed.ec != std::errc()) return std::nullopt;
  text.remove_prefix(parsed.ptr - text.data());
  if (text.empty()) return number;
  if (text.size() > 1) return std::nullopt;
  int shift = 0;
  switch (text[0] | 0x20) {
    case 'k': shift = 10; break;
    case 'm': shift = 20; break;
    case 'g': shift = 30; break;
    default: return std::nullopt;
  }
  if (number > UINT64_MAX >> shift) return std::nullopt;
  return number << shift;
}

// "%2B" and the like; what must be written so and is not is refused.
std::optional<std::string> decoded(std::string_view text) {
  constexpr std::string_view kReserved = "~`!@#$^&*()[]{}\\;'\",<>?";
  std::string result;
  for (size_t at = 0; at < text.size(); ++at) {
    char c = text[at];
    if (static_cast<unsigned char>(c) <= ' ' || kReserved.find(c) != kReserved.npos) {
      return std::nullopt;
    }
    if (c == '%') {
      unsigned value = 0;
      auto digits = text.substr(at + 1, 2);
      auto parsed = std::from_chars(digits.data(), digits.data() + digits.size(), value, 16);
      if (digits.size() != 2 || parsed.ptr != digits.data() + 2) return std::nullopt;
      c = static_cast<char>(value);
      at += 2;
    }
    result += c;
  }
  return result;
}

}  // namespace

std::optional<std::string> ObjectFilter::parse(std::string_view specification) {
  if (parts_ > 0) return "multiple filter-specs cannot be combined";
  return addPart(specification, 0);
}

std::optional<std::string> ObjectFilter::addPart(std::string_view specification,
                                                 uint32_t nesting) {
  if (++parts_ > kPartsMax || nesting > kNestingMax) {
    return "too many filters are combined; at most " + std::to_string(kPartsMax) + " are served";
  }
  std::string_view rest = specification;
  if (rest == "blob:none") {
    noBlobs_ = true;
  } else if (cutPrefix(rest, "blob:limit=")) {
    auto bytes = scaledNumber(rest);
    if (!bytes) return invalid(specification);
    limit_ = std::min(limit_.value_or(UINT64_MAX), *bytes);
  } else if (cutPrefix(rest, "tree:")) {
    auto depth = scaledNumber(rest);
    if (!depth) return "expected 'tree:<depth>'";
    depth_ = static_cast<uint32_t>(std::min<uint64_t>(depth_.value_or(UINT32_MAX), *depth));
  } else if (cutPrefix(rest, "object:type=")) {
    std::optional<ObjectType> type;
    for (ObjectType one : {ObjectType::kCommit, ObjectType::kTree, ObjectType::kBlob,
                           ObjectType::kTag}) {
      if (rest == objectTypeName(one)) type = one;
    }
    if (!type) return invalid(specification);
    type_ = type_ && *type_ != *type ? ObjectType::kNone : *type;
  } else if (cutPrefix(rest, "sparse:oid=")) {
    if (sparse_.size() == kSparsePartsMax) return "too many sparse filters are combined";
    sparse_.push_back({std::string(rest), {}});
  } else if (cutPrefix(rest, "sparse:path=")) {
    return "sparse:path filters support has been dropped";
  } else if (cutPrefix(rest, "combine:")) {
    return addCombined(rest, nesting + 1);
  } else {
    return invalid(specification);
  }
  return std::nullopt;
}

std::optional<std::string> ObjectFilter::addCombined(std::string_view parts, uint32_t nesting) {
  if (parts.empty()) return "expected something after combine:";
  while (!parts.empty()) {
    size_t end = std::min(parts.find('+'), parts.size());
    std::string_view part = parts.substr(0, end);
    parts.remove_prefix(std::min(end + 1, parts.size()));
    if (part.empty()) continue;
    auto text = decoded(part);
    if (!text) return invalid(part);
    if (auto problem = addPart(*text, nesting)) return problem;
  }
  return std::nullopt;
}

std::vector<std::string> ObjectFilter::sparseNames() const {
  std::vector<std::string> names;
  for (const Sparse& sparse : sparse_) names.push_back(sparse.name);
  return names;
}

std::optional<std::string> ObjectFilter::setSparse(size_t which, std::string_view text) {
  auto problem = sparse_[which].patterns.parse(text);
  if (!problem) return std::nullopt;
  return "the sparse specification '" + sparse_[which].name.substr(0, kQuotedMax) + "' " + *problem;
}

std::optional<bool> ObjectFilter::decide(size_t sparse, const Place& place, bool isFolder) const {
  KJ_REQUIRE(work_ < workMax_, "the patterns of the sparse specification take too long; ask for "
                               "fewer or simpler ones");
  return sparse_[sparse].patterns.decide(place.path, isFolder, work_);
}

bool ObjectFilter::sendsTree(Place& place) const {
  for (size_t i = 0; i < sparse_.size(); ++i) {
    auto decided = decide(i, place, true);
    if (!decided) continue;
    uint8_t bit = static_cast<uint8_t>(1u << i);
    place.inherited = static_cast<uint8_t>(*decided ? place.inherited | bit
                                                    : place.inherited & ~bit);
  }
  return (!depth_ || place.depth < *depth_) && (!type_ || *type_ == ObjectType::kTree);
}

bool ObjectFilter::opensTree(const Place& place) const {
  if (depth_ && (place.depth >= *depth_ || *depth_ - place.depth < 2)) return false;
  return !type_ || *type_ == ObjectType::kTree || *type_ == ObjectType::kBlob;
}

bool ObjectFilter::sendsBlob(ObjectSource& source, const ObjectId& id, const Place& place) const {
  if (noBlobs_ || (type_ && *type_ != ObjectType::kBlob)) return false;
  if (depth_ && place.depth >= *depth_) return false;
  for (size_t i = 0; i < sparse_.size(); ++i) {
    auto decided = decide(i, place, false);
    if (!decided.value_or((place.inherited >> i & 1) != 0)) return false;
  }
  if (!limit_) return true;
  KJ_IF_MAYBE(header, source.header(id)) { return header->bytes < *limit_; }
  return true;
}

}  // namespace packmoor::gitlayer
