#include "upload_request.h"

#include "gitlayer/agent.h"
#include "gitlayer/repository.h"

#include <algorithm>
#include <charconv>

namespace packmoor::gitlayer {
namespace {

constexpr size_t kQuotedMax = 80;

bool cutPrefix(std::string_view& text, std::string_view prefix) {
  if (text.substr(0, prefix.size()) != prefix) return false;
  text.remove_prefix(prefix.size());
  return true;
}

Problem unexpected(std::string_view line) {
  return "upload-pack: unexpected line " + quotedLine(line);
}

Problem checkObjectFormat(std::string_view format) {
  if (format == "sha1") return std::nullopt;
  return "upload-pack: object format " + quotedLine(format) + " is not served here, only sha1";
}

// Longest packets, with their length digits (gitprotocol-capabilities(5)).
constexpr size_t kBandPacketBytes = 1000, kBand64kPacketBytes = 65520;

// A whole decimal number.
bool parseNumber(std::string_view text, int64_t& number) {
  auto parsed = std::from_chars(text.data(), text.data() + text.size(), number);
  return parsed.ec == std::errc() && parsed.ptr == text.data() + text.size();
}

}  // namespace

std::string quotedLine(std::string_view text) {
  std::string result = "'";
  for (char c : text.substr(0, kQuotedMax)) {
    result += static_cast<unsigned char>(c) < 0x20 || c == 0x7f ? '?' : c;
  }
  return result + (text.size() > kQuotedMax ? "...'" : "'");
}

std::optional<Problem> ShallowRequest::addLine(std::string_view line) {
  std::string_view rest = line;
  int64_t number = 0;
  if (cutPrefix(rest, "shallow ")) {
    ObjectId id;
    if (!ObjectId::parseHex(rest, id)) return "upload-pack: invalid shallow line: " + quotedLine(line);
    shallows.add(id);
    if (shallows.size() > kShallowsMax) {
      return "upload-pack: more than " + std::to_string(kShallowsMax) + " shallow commits";
    }
  } else if (cutPrefix(rest, "deepen ")) {
    if (!parseNumber(rest, number) || number <= 0) {
      return "upload-pack: Invalid deepen: " + quotedLine(line);
    }
    depth = static_cast<uint32_t>(std::min<int64_t>(number, kWhole));
  } else if (cutPrefix(rest, "deepen-since ")) {
    if (!parseNumber(rest, number) || number < 0) {
      return "upload-pack: Invalid deepen-since: " + quotedLine(line);
    }
    since = number;
  } else if (cutPrefix(rest, "deepen-not ")) {
    if (rest.size() > kRefNameBytesMax) {
      return "upload-pack: deepen-not is not the name of one ref: " + quotedLine(rest);
    }
    notRefs.emplace_back(rest);
    if (notRefs.size() > kDeepenNotMax) {
      return "upload-pack: more than " + std::to_string(kDeepenNotMax) + " deepen-not lines";
    }
  } else if (line == "deepen-relative") {
    relative = true;
  } else {
    return std::nullopt;
  }
  return Problem();
}

Problem ShallowRequest::finish() const {
  if (depth == 0 || (!since && notRefs.empty())) return std::nullopt;
  return "upload-pack: deepen and deepen-since (or deepen-not) cannot be used together";
}

Problem FetchRequest::addWant(std::string_view oid) {
  ObjectId id;
  if (!ObjectId::parseHex(oid, id)) {
    return "upload-pack: protocol error, expected to get object ID, not " + quotedLine(oid);
  }
  wants.add(id);
  if (wants.size() > kWantsMax) {
    return "upload-pack: more than " + std::to_string(kWantsMax) + " objects are wanted at once";
  }
  return std::nullopt;
}

Problem FetchRequest::addHave(std::string_view oid) {
  ObjectId id;
  if (!ObjectId::parseHex(oid, id)) {
    return "upload-pack: expected SHA1 object, got " + quotedLine(oid);
  }
  if (haves.size() >= kHavesMax) {
    return "upload-pack: more than " + std::to_string(kHavesMax) + " haves in one request";
  }
  haves.push_back(id);
  return std::nullopt;
}

Problem FetchRequest::addLineV0(std::string_view line) {
  std::string_view rest = line;
  if (!cutPrefix(rest, "want ")) {
    if (auto problem = shallow.addLine(line)) return *problem;
    if (!cutPrefix(rest, "filter ")) return unexpected(line);
    if (!filterAsked) return "upload-pack: filtering capability not negotiated";
    return addFilter(rest);
  }
  bool first = wants.empty();
  if (auto problem = addWant(rest.substr(0, kOidHexChars))) return problem;
  rest.remove_prefix(kOidHexChars);
  if (rest.empty()) return std::nullopt;
  if (!first || rest.front() != ' ') return unexpected(line);
  return addCapabilities(rest);
}

Problem FetchRequest::addCapabilities(std::string_view rest) {
  while (!rest.empty()) {
    size_t end = std::min(rest.find(' '), rest.size());
    std::string_view word = rest.substr(0, end);
    rest.remove_prefix(std::min(end + 1, rest.size()));
    if (word == "multi_ack_detailed") {
      multiAck = MultiAck::kDetailed;
    } else if (word == "multi_ack") {
      if (multiAck == MultiAck::kNone) multiAck = MultiAck::kContinue;
    } else if (word == "no-done") {
      noDone = true;
    } else if (word == "thin-pack") {
      thinPack = true;
    } else if (word == "ofs-delta") {
      ofsDelta = true;
    } else if (word == "side-band-64k") {
      bandPacketBytes = kBand64kPacketBytes;
    } else if (word == "side-band") {
      bandPacketBytes = std::max(bandPacketBytes, kBandPacketBytes);
    } else if (word == "no-progress") {
      noProgress = true;
    } else if (word == "include-tag") {
      includeTag = true;
    } else if (word == "deepen-relative") {
      shallow.relative = true;
    } else if (word == "filter" && policy.filters) {
      filterAsked = true;
    } else if (cutPrefix(word, "object-format=")) {
      if (auto problem = checkObjectFormat(word)) return problem;
    } else if (cutPrefix(word, "session-id=")) {
      session = shownSession(word);
    }
    // Others, such as agent, ask for nothing.
  }
  return std::nullopt;
}

Problem FetchRequest::addFilter(std::string_view specification) {
  if (!filter) filter.emplace();
  filterText.append(specification).append(1, '\n');
  auto problem = filter->parse(specification);
  if (!problem) return std::nullopt;
  return "upload-pack: " + *problem;
}

Problem FetchRequest::addHaveLineV0(std::string_view line) {
  std::string_view rest = line;
  if (line == "done") {
    done = true;
  } else if (cutPrefix(rest, "have ")) {
    return addHave(rest);
  } else {
    return "upload-pack: expected SHA1 list, got " + quotedLine(line);
  }
  return std::nullopt;
}

Problem FetchRequest::addArgumentV2(std::string_view line) {
  std::string_view rest = line;
  if (cutPrefix(rest, "want ")) return addWant(rest);
  if (cutPrefix(rest, "have ")) return addHave(rest);
  if (line == "done") {
    done = true;
  } else if (line == "thin-pack") {
    thinPack = true;
  } else if (line == "no-progress") {
    noProgress = true;
  } else if (line == "include-tag") {
    includeTag = true;
  } else if (line == "ofs-delta") {
    ofsDelta = true;
  } else if (auto problem = shallow.addLine(line)) {
    return *problem;
  } else if (policy.filters && cutPrefix(rest, "filter ")) {
    return addFilter(rest);
  } else if (policy.refInWant && cutPrefix(rest, "want-ref ")) {
    return addWantRef(rest);
  } else if (line == "wait-for-done") {
    waitForDone = true;
  } else {
    return unexpected(line);
  }
  return std::nullopt;
}

Problem FetchRequest::addWantRef(std::string_view name) {
  if (name.size() > kRefNameBytesMax) return "upload-pack: unknown ref " + quotedLine(name);
  wantRefs.emplace_back(name);
  if (wantRefs.size() <= kWantRefsMax) return std::nullopt;
  return "upload-pack: more than " + std::to_string(kWantRefsMax) + " refs are wanted at once";
}

Problem FetchRequest::finishV2() const {
  std::vector<std::string_view> names(wantRefs.begin(), wantRefs.end());
  std::sort(names.begin(), names.end());
  auto twice = std::adjacent_find(names.begin(), names.end());
  if (twice == names.end()) return std::nullopt;
  return "upload-pack: duplicate want-ref " + quotedLine(*twice);
}

Problem ListRequest::addArgument(std::string_view line) {
  std::string_view rest = line;
  if (line == "peel") {
    peel = true;
  } else if (line == "symrefs") {
    symrefs = true;
  } else if (line == "unborn") {
    unborn = true;
  } else if (cutPrefix(rest, "ref-prefix ")) {
    prefixBytes += rest.size();
    if (prefixes.size() >= kPrefixesMax || prefixBytes > kPrefixBytesMax) tooManyPrefixes = true;
    if (!tooManyPrefixes) prefixes.emplace_back(rest);
  } else {
    return "ls-refs: unexpected line " + quotedLine(line);
  }
  return std::nullopt;
}

void ListRequest::finish() {
  if (tooManyPrefixes) prefixes.clear();
  std::sort(prefixes.begin(), prefixes.end());
  std::vector<std::string> distinct;
  for (std::string& prefix : prefixes) {
    // What begins with another sorts right behind it.
    if (distinct.empty() || prefix.compare(0, distinct.back().size(), distinct.back()) != 0) {
      distinct.push_back(std::move(prefix));
    }
  }
  prefixes = std::move(distinct);
}

bool ListRequest::matches(std::string_view name) const {
  if (prefixes.empty()) return true;
  return std::any_of(prefixes.begin(), prefixes.end(), [name](const std::string& prefix) {
    return name.substr(0, prefix.size()) == prefix;
  });
}

Problem InfoRequest::addArgument(std::string_view line) {
  std::string_view rest = line;
  ObjectId id;
  if (line == "size") {
    size = true;
  } else if (!cutPrefix(rest, "oid ")) {
    return "object-info: unexpected line: " + quotedLine(line);
  } else if (!ObjectId::parseHex(rest, id)) {
    return "object-info: protocol error, expected to get oid, not " + quotedLine(rest);
  } else if (objects.size() == kInfosMax) {
    return "object-info: more than " + std::to_string(kInfosMax) + " objects are asked about";
  } else {
    objects.push_back(id);
  }
  return std::nullopt;
}

Problem CommandV2::add(std::string_view line) {
  std::string_view rest = line;
  if (cutPrefix(rest, "command=")) {
    if (name != Name::kNone) return "command " + quotedLine(rest) + " follows another command";
    if (rest == "ls-refs") {
      name = Name::kLsRefs;
    } else if (rest == "fetch") {
      name = Name::kFetch;
    } else if (rest == "object-info") {
      name = Name::kObjectInfo;
    } else {
      return "invalid command " + quotedLine(rest);
    }
    return std::nullopt;
  }
  if (cutPrefix(rest, "object-format=")) return checkObjectFormat(rest);
  if (cutPrefix(rest, "session-id=")) {
    session = shownSession(rest);
    return std::nullopt;
  }
  if (cutPrefix(rest, "agent=") || cutPrefix(rest, "server-option=")) return std::nullopt;
  return "unknown capability " + quotedLine(line);
}

}  // namespace packmoor::gitlayer
