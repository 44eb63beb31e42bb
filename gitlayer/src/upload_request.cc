#include "upload_request.h"

#include <algorithm>

namespace packmoor::gitlayer {
namespace {

constexpr size_t kQuotedMax = 80;

// Part of a client's line, fit for a message.
std::string quoted(std::string_view text) {
  std::string result = "'";
  for (char c : text.substr(0, kQuotedMax)) {
    result += static_cast<unsigned char>(c) < 0x20 || c == 0x7f ? '?' : c;
  }
  return result + (text.size() > kQuotedMax ? "...'" : "'");
}

bool cutPrefix(std::string_view& text, std::string_view prefix) {
  if (text.substr(0, prefix.size()) != prefix) return false;
  text.remove_prefix(prefix.size());
  return true;
}

Problem unexpected(std::string_view line) {
  return "upload-pack: unexpected line " + quoted(line);
}

Problem checkObjectFormat(std::string_view format) {
  if (format == "sha1") return std::nullopt;
  return "upload-pack: object format " + quoted(format) + " is not served here, only sha1";
}

// Longest packets, with their length digits (gitprotocol-capabilities(5)).
constexpr size_t kBandPacketBytes = 1000, kBand64kPacketBytes = 65520;

}  // namespace

Problem FetchRequest::addWant(std::string_view oid) {
  ObjectId id;
  if (!ObjectId::parseHex(oid, id)) {
    return "upload-pack: protocol error, expected to get object ID, not " + quoted(oid);
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
    return "upload-pack: expected SHA1 object, got " + quoted(oid);
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
    if (cutPrefix(rest, "shallow ") || cutPrefix(rest, "deepen") || cutPrefix(rest, "filter ")) {
      return "upload-pack: shallow and partial fetches are not served here";
    }
    return unexpected(line);
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
    } else if (cutPrefix(word, "object-format=")) {
      if (auto problem = checkObjectFormat(word)) return problem;
    }
    // Others, such as agent and session-id, ask for nothing.
  }
  return std::nullopt;
}

Problem FetchRequest::addHaveLineV0(std::string_view line) {
  std::string_view rest = line;
  if (line == "done") {
    done = true;
  } else if (cutPrefix(rest, "have ")) {
    return addHave(rest);
  } else {
    return "upload-pack: expected SHA1 list, got " + quoted(line);
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
  } else {
    return unexpected(line);
  }
  return std::nullopt;
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
    return "ls-refs: unexpected line " + quoted(line);
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

Problem CommandV2::add(std::string_view line) {
  std::string_view rest = line;
  if (cutPrefix(rest, "command=")) {
    if (name != Name::kNone) return "command " + quoted(rest) + " follows another command";
    if (rest == "ls-refs") {
      name = Name::kLsRefs;
    } else if (rest == "fetch") {
      name = Name::kFetch;
    } else {
      return "invalid command " + quoted(rest);
    }
    return std::nullopt;
  }
  if (cutPrefix(rest, "object-format=")) return checkObjectFormat(rest);
  if (cutPrefix(rest, "agent=")) return std::nullopt;
  return "unknown capability " + quoted(line);
}

}  // namespace packmoor::gitlayer
