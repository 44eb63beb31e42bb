#include "gitlayer/repository_settings.h"

#include "gitlayer/repository.h"

#include <algorithm>
#include <cstring>
#include <limits>
#include <strings.h>

namespace packmoor::gitlayer {

namespace {

constexpr std::string_view kBranches = "refs/heads/";

bool sameWord(std::string_view a, std::string_view b) {
  return a.size() == b.size() && strncasecmp(a.data(), b.data(), a.size()) == 0;
}

// As git's configuration reads them.
std::optional<bool> boolOf(std::string_view text) {
  for (const char* word : {"true", "yes", "on", "1"}) {
    if (sameWord(text, word)) return true;
  }
  for (const char* word : {"false", "no", "off", "0"}) {
    if (sameWord(text, word)) return false;
  }
  return std::nullopt;
}

// A number, with k, m or g behind it for powers of 1024.
std::optional<uint64_t> numberOf(std::string_view text) {
  uint64_t unit = 1;
  if (!text.empty()) {
    switch (text.back()) {
      case 'k': case 'K': unit = 1ull << 10; break;
      case 'm': case 'M': unit = 1ull << 20; break;
      case 'g': case 'G': unit = 1ull << 30; break;
      default: break;
    }
  }
  if (unit != 1) text.remove_suffix(1);
  constexpr uint64_t kMax = std::numeric_limits<int64_t>::max();
  uint64_t number = 0;
  for (char c : text) {
    if (c < '0' || c > '9' || number > kMax / 10 - 1) return std::nullopt;
    number = number * 10 + static_cast<uint64_t>(c - '0');
  }
  if (text.empty() || number > kMax / unit) return std::nullopt;
  return number * unit;
}

std::optional<DeleteCurrent> deleteCurrentOf(std::string_view text) {
  if (sameWord(text, "refuse")) return DeleteCurrent::kRefuse;
  if (sameWord(text, "warn")) return DeleteCurrent::kWarn;
  if (sameWord(text, "ignore")) return DeleteCurrent::kIgnore;
  auto deny = boolOf(text);
  if (!deny.has_value()) return std::nullopt;
  return *deny ? DeleteCurrent::kRefuse : DeleteCurrent::kIgnore;
}

// --- what each key is ----------------------------------------------------------------------

using Problem = std::optional<std::string>;

Problem checkBool(std::string& value) {
  auto read = boolOf(value);
  if (!read.has_value()) return "must be true or false";
  value = *read ? "true" : "false";
  return std::nullopt;
}
Problem checkNumber(std::string& value) {
  auto read = numberOf(value);
  if (!read.has_value()) return "must be a number, which k, m or g may follow; 0 sets no bound";
  value = std::to_string(*read);
  return std::nullopt;
}
Problem checkCount(std::string& value) {
  auto problem = checkNumber(value);
  if (problem.has_value() || *numberOf(value) <= std::numeric_limits<uint32_t>::max()) return problem;
  return "is too large";
}
Problem checkDeleteCurrent(std::string& value) {
  auto read = deleteCurrentOf(value);
  if (!read.has_value()) return "must be refuse, warn or ignore";
  constexpr const char* kWords[] = {"refuse", "warn", "ignore"};
  value = kWords[static_cast<size_t>(*read)];
  return std::nullopt;
}
Problem checkPattern(std::string& value) {
  while (!value.empty() && value.back() == '/') value.pop_back();
  const size_t name = value.find_first_not_of("!^");
  if (name != std::string::npos && name <= 2) return std::nullopt;
  return "must be a ref or what refs begin with, such as refs/hidden, after '!' where it shall be shown";
}
Problem checkHead(std::string& value) {
  if (value.compare(0, 5, "refs/") != 0) value.insert(0, kBranches);
  if (value.compare(0, kBranches.size(), kBranches) == 0 && isValidRefName(value)) return std::nullopt;
  return "must name a branch, such as main";
}
Problem checkText(std::string&) { return std::nullopt; }

struct Key {
  KnownSetting known;
  Problem (*check)(std::string& value);
  bool many;
  // Not of HEAD and description. `value` is checked.
  void (*take)(RepositorySettings& settings, std::string_view value);
};

template <bool RepositorySettings::*field>
void takeBool(RepositorySettings& settings, std::string_view value) {
  settings.*field = boolOf(value).value_or(settings.*field);
}
template <auto field>
void takeNumber(RepositorySettings& settings, std::string_view value) {
  using Number = std::remove_reference_t<decltype(settings.*field)>;
  auto read = numberOf(value);
  if (read.has_value() && *read <= std::numeric_limits<Number>::max()) {
    settings.*field = static_cast<Number>(*read);
  }
}
void takeDeleteCurrent(RepositorySettings& settings, std::string_view value) {
  settings.denyDeleteCurrent = deleteCurrentOf(value).value_or(settings.denyDeleteCurrent);
}
void hideFromPushes(RepositorySettings& settings, std::string_view value) {
  settings.receiveHidden.emplace_back(value);
}
void hideFromFetches(RepositorySettings& settings, std::string_view value) {
  settings.uploadHidden.emplace_back(value);
}
void hide(RepositorySettings& settings, std::string_view value) {
  hideFromPushes(settings, value);
  hideFromFetches(settings, value);
}

using S = RepositorySettings;

// In the order in which they take effect: what holds for all transfers before receive's own.
const std::vector<Key>& keys() {
  static const std::vector<Key> all = {
      {{kHeadSetting, "refs/heads/main", "the default branch"}, checkHead, false, nullptr},
      {{kDescriptionSetting, "", "one line for people"}, checkText, false, nullptr},
      {{"transfer.fsckObjects", "true", "refuse objects that git fsck would refuse"}, checkBool, false,
       takeBool<&S::fsckObjects>},
      {{"transfer.hideRefs", "", "refs that are neither shown nor changed"}, checkPattern, true, hide},
      {{"receive.fsckObjects", "transfer.fsckObjects", "the same, for pushes"}, checkBool, false,
       takeBool<&S::fsckObjects>},
      {{"receive.denyNonFastForwards", "false", "branches only move forward"}, checkBool, false,
       takeBool<&S::denyNonFastForwards>},
      {{"receive.denyDeletes", "false", "branches are not deleted"}, checkBool, false,
       takeBool<&S::denyDeletes>},
      {{"receive.denyDeleteCurrent", "refuse", "the branch of HEAD: refuse, warn or ignore"},
       checkDeleteCurrent, false, takeDeleteCurrent},
      {{"receive.advertisePushOptions", "true", "take options of git push -o"}, checkBool, false,
       takeBool<&S::advertisePushOptions>},
      {{"receive.maxInputSize", "0", "bytes of a push's pack; 0: the node's bound"}, checkNumber, false,
       takeNumber<&S::maxInputBytes>},
      {{"receive.maxCommands", "0", "refs that a push may change; 0: the node's bound"}, checkCount,
       false, takeNumber<&S::commandsMax>},
      {{"receive.keepAlive", "5", "seconds after which a silent pusher is told that its push is worked on; 0: "
        "never"}, checkCount, false, takeNumber<&S::receiveKeepAlive>},
      {{"receive.hideRefs", "", "as transfer.hideRefs, for pushes"}, checkPattern, true,
       hideFromPushes},
      {{"uploadpack.hideRefs", "", "as transfer.hideRefs, for fetches"}, checkPattern, true,
       hideFromFetches},
      {{"uploadpack.allowTipSHA1InWant", "false", "fetch what a hidden ref names"}, checkBool, false,
       takeBool<&S::allowTipSha1InWant>},
      {{"uploadpack.allowReachableSHA1InWant", "false", "fetch any object that a ref reaches"},
       checkBool, false, takeBool<&S::allowReachableSha1InWant>},
      {{"uploadpack.allowAnySHA1InWant", "false", "fetch any object"}, checkBool, false,
       takeBool<&S::allowAnySha1InWant>},
      {{"uploadpack.allowFilter", "true", "partial clones"}, checkBool, false,
       takeBool<&S::allowFilter>},
      {{"uploadpack.keepAlive", "5", "seconds after which a silent fetcher is told that it is served; 0: never"},
       checkCount, false, takeNumber<&S::uploadKeepAlive>},
      {{"uploadarchive.allowUnreachable", "false", "archive any object, not only what refs name"},
       checkBool, false, takeBool<&S::archiveUnreachable>},
  };
  return all;
}

}  // namespace

const std::vector<KnownSetting>& knownSettings() {
  static const std::vector<KnownSetting> all = [] {
    std::vector<KnownSetting> result;
    for (const Key& key : keys()) result.push_back(key.known);
    return result;
  }();
  return all;
}

RepositorySettings RepositorySettings::of(Settings stored) {
  RepositorySettings result;
  if (!stored.empty()) {
    for (const Key& key : keys()) {
      if (key.take == nullptr) continue;
      for (const Setting& setting : stored) {
        if (setting.key != key.known.key) continue;
        for (const std::string& value : setting.values) key.take(result, value);
      }
    }
  }
  result.stored = std::move(stored);
  return result;
}

bool isHiddenRef(const std::vector<std::string>& patterns, std::string_view ref) {
  for (auto pattern = patterns.rbegin(); pattern != patterns.rend(); ++pattern) {
    std::string_view match = *pattern;
    const bool shown = !match.empty() && match.front() == '!';
    if (shown) match.remove_prefix(1);
    if (!match.empty() && match.front() == '^') match.remove_prefix(1);
    if (ref.substr(0, match.size()) == match &&
        (ref.size() == match.size() || ref[match.size()] == '/')) {
      return !shown;
    }
  }
  return false;
}

std::optional<std::string> normalizeSetting(Setting& change) {
  const auto& all = keys();
  auto key = std::find_if(all.begin(), all.end(),
                          [&](const Key& known) { return sameWord(known.known.key, change.key); });
  if (key == all.end()) return "there is no setting '" + change.key + "'";
  change.key = key->known.key;
  if (change.values.size() > (key->many ? kSettingValuesMax : 1)) {
    return key->many ? change.key + " takes at most " + std::to_string(kSettingValuesMax) + " values"
                     : change.key + " takes one value";
  }
  for (std::string& value : change.values) {
    if (value.size() > kSettingValueBytesMax) {
      return "a value of " + change.key + " is longer than " +
             std::to_string(kSettingValueBytesMax) + " bytes";
    }
    if (value.find_first_of(std::string_view("\0\n\r", 3)) != std::string::npos) {
      return "a value of " + change.key + " has more than one line";
    }
    if (auto problem = key->check(value)) return change.key + " " + *problem + ", not '" + value + "'";
  }
  return std::nullopt;
}

}  // namespace packmoor::gitlayer
