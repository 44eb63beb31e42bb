// What clients of upload-pack ask for, parsed line by line (gitprotocol-pack(5),
// gitprotocol-v2(5)). Pure functions of their input: no stream, no repository.
//
// Every add() takes one line without its newline and answers with a sentence when the request is
// to be refused. Bounds: kWantsMax, kHavesMax, kShallowsMax, kDeepenNotMax, kPrefixesMax.
#pragma once

#include "gitlayer/object_id.h"
#include "gitlayer/oid_index.h"
#include "gitlayer/upload_policy.h"

#include "object_filter.h"

#include <optional>
#include <string>
#include <string_view>
#include <vector>

namespace packmoor::gitlayer {

constexpr size_t kWantsMax = 1'000'000;
constexpr size_t kHavesMax = 1'000'000;      // per request; real clients send tens of thousands
constexpr size_t kShallowsMax = 200'000;     // commits at which a client's history is cut
constexpr size_t kDeepenNotMax = 1'000;
constexpr size_t kWantRefsMax = 200'000;
constexpr size_t kInfosMax = 200'000;        // objects asked about at once
constexpr size_t kPrefixesMax = 65'536;      // more: all refs are listed, as git does
constexpr size_t kPrefixBytesMax = 8u << 20; // of all together; likewise

using Problem = std::optional<std::string>;  // a sentence, or nothing is wrong

// How far the history is to go that is sent, and where the client's own history is cut.
struct ShallowRequest {
  static constexpr uint32_t kWhole = 0x7fffffff;  // a depth that means all of history

  OidIndex shallows;                   // "shallow <oid>": the client has these, not their parents
  uint32_t depth = 0;                  // "deepen <n>"; 0: not asked
  bool relative = false;               // depth counts from `shallows` instead of from the wants
  std::optional<int64_t> since;        // seconds: commits before are left out
  std::vector<std::string> notRefs;    // what these reach is left out

  bool deepens() const { return depth > 0 || since || !notRefs.empty(); }
  bool any() const { return deepens() || !shallows.empty(); }
  // "shallow ...", "deepen ..." and the like. nullopt: the line is another one.
  std::optional<Problem> addLine(std::string_view line);
  // What only shows when all lines are there.
  Problem finish() const;
};

struct FetchRequest {
  enum class MultiAck : uint8_t { kNone, kContinue, kDetailed };

  UploadPolicy policy;           // what may be asked; set before the first line
  OidIndex wants;
  std::vector<ObjectId> haves;   // of this round
  ShallowRequest shallow;
  std::optional<ObjectFilter> filter;
  std::string filterText;        // as the client wrote it, all parts
  bool done = false;
  bool thinPack = false, noProgress = false, includeTag = false, ofsDelta = false;
  // Protocol 2 only.
  std::vector<std::string> wantRefs;   // full names; finishV2() checks that none comes twice
  bool waitForDone = false;
  // Protocol 0 and 1 only.
  MultiAck multiAck = MultiAck::kNone;
  bool noDone = false;
  bool filterAsked = false;      // as a capability
  size_t bandPacketBytes = 0;    // longest packet with its length; 0: no side-band
  std::string session;           // the client's session-id, fit for a log; may be empty

  Problem addWant(std::string_view oid);
  Problem addHave(std::string_view oid);
  // A line before the first flush of protocol 0 or 1: "want <oid>[ capabilities]", "shallow <oid>"...
  Problem addLineV0(std::string_view line);
  // A line after it: "have <oid>" or "done".
  Problem addHaveLineV0(std::string_view line);
  // An argument of protocol 2's fetch.
  Problem addArgumentV2(std::string_view line);
  Problem finishV2() const;

 private:
  Problem addWantRef(std::string_view name);
  Problem addFilter(std::string_view specification);
  Problem addCapabilities(std::string_view capabilities);
};

// Part of a client's line, in quotes, fit for a message.
std::string quotedLine(std::string_view text);

struct ListRequest {
  bool peel = false, symrefs = false, unborn = false;
  // Empty: all refs. After finish(): sorted, and none begins with another.
  std::vector<std::string> prefixes;
  bool tooManyPrefixes = false;
  size_t prefixBytes = 0;

  Problem addArgument(std::string_view line);
  void finish();
  bool matches(std::string_view name) const;
};

// The arguments of object-info.
struct InfoRequest {
  bool size = false;
  std::vector<ObjectId> objects;
  Problem addArgument(std::string_view line);
};

// The lines of a protocol 2 request before its delimiter: the command and its capabilities.
struct CommandV2 {
  enum class Name : uint8_t { kNone, kLsRefs, kFetch, kObjectInfo };
  Name name = Name::kNone;
  std::string session;   // the client's session-id, fit for a log; may be empty
  Problem add(std::string_view line);
};

}  // namespace packmoor::gitlayer
