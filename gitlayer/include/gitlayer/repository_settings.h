// RepositorySettings: what an operator has set of one repository: policies of pushes and fetches,
// hidden refs, limits.
//
// Why keyed text underneath: records and the state hold each setting as its key and its values. So an
// older version keeps what a newer one has set, and heeds it when it is upgraded. RepositorySettings is
// what this version understands of them, as plain data; the fields' defaults hold where nothing is set.
// Keys are git's own (git-config(1)) where git has them, without regard to case when they are given.
// HEAD and the description are changed in the same way and are kept in RepositoryInfo.
//
// A setting that is answered holds for every push ordered after it, at any node: a push that was
// checked against an older state is checked again (GitNode::push, verifyAgain).
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

namespace packmoor::gitlayer {

struct Setting {
  std::string key;                  // in the spelling of knownSettings()
  std::vector<std::string> values;  // most keys have one; in a change: none unsets it
};
using Settings = std::vector<Setting>;

constexpr size_t kSettingKeyBytesMax = 100;
constexpr size_t kSettingValueBytesMax = 4096;
constexpr size_t kSettingValuesMax = 100;    // of one key
constexpr size_t kSettingsMax = 100;         // of one repository, and of one change

constexpr const char* kHeadSetting = "HEAD";
constexpr const char* kDescriptionSetting = "description";

enum class DeleteCurrent : uint8_t { kRefuse, kWarn, kIgnore };

struct RepositorySettings {
  // Pushes: receive.*
  uint32_t receiveKeepAlive = 5;         // seconds; 0: none
  bool denyNonFastForwards = false;
  bool denyDeletes = false;
  DeleteCurrent denyDeleteCurrent = DeleteCurrent::kRefuse;
  bool fsckObjects = true;               // transfer.fsckObjects, and receive's
  bool advertisePushOptions = true;
  uint64_t maxInputBytes = 0;            // maxInputSize; 0: the node's own bound only
  uint32_t commandsMax = 0;              // maxCommands; likewise
  std::vector<std::string> receiveHidden;   // transfer.hideRefs, then receive.hideRefs

  // Fetches: uploadpack.*
  uint32_t uploadKeepAlive = 5;          // seconds; 0: none
  bool allowTipSha1InWant = false;       // values of hidden refs
  bool allowReachableSha1InWant = false;
  bool allowAnySha1InWant = false;
  bool allowFilter = true;
  std::vector<std::string> uploadHidden;    // transfer.hideRefs, then uploadpack.hideRefs

  bool archiveUnreachable = false;       // uploadarchive.allowUnreachable

  // All that is set, by key; those that this version does not know too. Not HEAD and description.
  Settings stored;

  // A value that this version cannot read counts as not set.
  static RepositorySettings of(Settings stored);
};

// Whether patterns as of receiveHidden hide the ref: the last one that matches it decides
// (transfer.hideRefs in git-config(1); '^' is taken, since refs have no namespaces here).
bool isHiddenRef(const std::vector<std::string>& patterns, std::string_view ref);

struct KnownSetting {
  const char* key;
  const char* fallback;             // what holds where it is not set
  const char* help;                 // one line for people
};
const std::vector<KnownSetting>& knownSettings();   // HEAD and description among them

// Checks a change that was asked for, and brings key and values into the form in which they are kept.
// Returns a sentence when something is wrong with it.
std::optional<std::string> normalizeSetting(Setting& change);

}  // namespace packmoor::gitlayer
