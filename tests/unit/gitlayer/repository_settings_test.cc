// Goal: settings are read as git reads its configuration, are kept in one form, and what cannot be
// meant is refused with a sentence. Method: keys and values as an operator gives them.
#include "gitlayer/repository_settings.h"

#include <gtest/gtest.h>

namespace packmoor::gitlayer {
namespace {

Setting normal(std::string key, std::vector<std::string> values) {
  Setting setting{std::move(key), std::move(values)};
  EXPECT_EQ(normalizeSetting(setting).value_or("good"), "good");
  return setting;
}
std::string problemOf(std::string key, std::vector<std::string> values) {
  Setting setting{std::move(key), std::move(values)};
  return normalizeSetting(setting).value_or("good");
}

TEST(RepositorySettings, KeysAndValuesHaveOneForm) {
  EXPECT_EQ(normal("RECEIVE.denydeletes", {"Yes"}).key, "receive.denyDeletes");
  for (const char* word : {"true", "YES", "on", "1"}) {
    EXPECT_EQ(normal("receive.denyDeletes", {word}).values[0], "true");
  }
  for (const char* word : {"false", "no", "Off", "0"}) {
    EXPECT_EQ(normal("receive.denyDeletes", {word}).values[0], "false");
  }
  EXPECT_EQ(normal("receive.maxInputSize", {"5m"}).values[0], "5242880");
  EXPECT_EQ(normal("receive.maxInputSize", {"8796093022207k"}).values[0], "9007199254739968");
  EXPECT_EQ(normal("receive.denyDeleteCurrent", {"true"}).values[0], "refuse");
  EXPECT_EQ(normal("receive.denyDeleteCurrent", {"Warn"}).values[0], "warn");
  EXPECT_EQ(normal("receive.denyDeleteCurrent", {"false"}).values[0], "ignore");
  EXPECT_EQ(normal("transfer.hideRefs", {"refs/a/", "!refs/a/b"}).values[0], "refs/a");
  EXPECT_EQ(normal("head", {"trunk"}).key, "HEAD");
  EXPECT_EQ(normal("HEAD", {"trunk"}).values[0], "refs/heads/trunk");
  EXPECT_EQ(normal("HEAD", {"refs/heads/trunk"}).values[0], "refs/heads/trunk");
  EXPECT_TRUE(normal("receive.denydeletes", {}).values.empty()) << "unset";
}

TEST(RepositorySettings, SaysWhatIsWrong) {
  EXPECT_EQ(problemOf("receive.denyDelete", {"1"}), "there is no setting 'receive.denyDelete'");
  EXPECT_EQ(problemOf("receive.denyDeletes", {"maybe"}),
            "receive.denyDeletes must be true or false, not 'maybe'");
  EXPECT_EQ(problemOf("receive.denyDeletes", {"1", "0"}), "receive.denyDeletes takes one value");
  for (const char* number : {"", "k", "-1", "1.5", "1t", "9223372036854775808", "9007199254740992k"}) {
    EXPECT_NE(problemOf("receive.maxInputSize", {number}), "good") << number;
  }
  EXPECT_NE(problemOf("receive.maxCommands", {"4294967296"}), "good");
  for (const char* pattern : {"", "/", "!", "^", "!^"}) {
    EXPECT_NE(problemOf("transfer.hideRefs", {pattern}), "good") << pattern;
  }
  EXPECT_NE(problemOf("transfer.hideRefs", std::vector<std::string>(kSettingValuesMax + 1, "refs/a")),
            "good");
  for (const char* head : {"", "refs/tags/v1", "a..b", "refs/heads/"}) {
    EXPECT_NE(problemOf("HEAD", {head}), "good") << head;
  }
  EXPECT_NE(problemOf("description", {"two\nlines"}), "good");
  EXPECT_NE(problemOf("description", {std::string(kSettingValueBytesMax + 1, 'x')}), "good");
}

TEST(RepositorySettings, WhatIsNotSetHoldsAsTheFieldsSay) {
  const auto settings = RepositorySettings::of({});
  EXPECT_FALSE(settings.denyDeletes);
  EXPECT_TRUE(settings.fsckObjects);
  EXPECT_TRUE(settings.allowFilter);
  EXPECT_EQ(settings.denyDeleteCurrent, DeleteCurrent::kRefuse);
  // And as the list for people says.
  for (const KnownSetting& known : knownSettings()) {
    if (*known.fallback == '\0' || std::string(known.fallback) == "transfer.fsckObjects") continue;
    normal(known.key, {known.fallback});
    const auto same = RepositorySettings::of({{known.key, {known.fallback}}});
    EXPECT_EQ(same.denyDeletes, settings.denyDeletes);
    EXPECT_EQ(same.denyNonFastForwards, settings.denyNonFastForwards);
    EXPECT_EQ(same.fsckObjects, settings.fsckObjects);
    EXPECT_EQ(same.advertisePushOptions, settings.advertisePushOptions);
    EXPECT_EQ(same.maxInputBytes, settings.maxInputBytes);
    EXPECT_EQ(same.commandsMax, settings.commandsMax);
    EXPECT_EQ(same.allowTipSha1InWant, settings.allowTipSha1InWant);
    EXPECT_EQ(same.allowReachableSha1InWant, settings.allowReachableSha1InWant);
    EXPECT_EQ(same.allowAnySha1InWant, settings.allowAnySha1InWant);
    EXPECT_EQ(same.allowFilter, settings.allowFilter);
    EXPECT_EQ(same.receiveKeepAlive, settings.receiveKeepAlive);
    EXPECT_EQ(same.uploadKeepAlive, settings.uploadKeepAlive);
    EXPECT_EQ(same.archiveUnreachable, settings.archiveUnreachable);
  }
}

TEST(RepositorySettings, ReadsWhatIsStored) {
  const auto settings = RepositorySettings::of({
      {"newer.thing", {"a", "b"}},
      {"receive.denyDeleteCurrent", {"warn"}},
      {"receive.denyDeletes", {"true"}},
      {"receive.denyNonFastForwards", {"a value of a newer version"}},
      {"receive.fsckObjects", {"true"}},
      {"receive.hideRefs", {"!refs/a/b"}},
      {"receive.keepAlive", {"0"}},
      {"receive.maxCommands", {"7"}},
      {"receive.maxInputSize", {"1024"}},
      {"transfer.fsckObjects", {"false"}},
      {"transfer.hideRefs", {"refs/a"}},
      {"uploadarchive.allowUnreachable", {"true"}},
      {"uploadpack.allowAnySHA1InWant", {"true"}},
      {"uploadpack.allowFilter", {"false"}},
      {"uploadpack.hideRefs", {"refs/c"}},
      {"uploadpack.keepAlive", {"60"}},
  });
  EXPECT_EQ(settings.stored.size(), 16u) << "also what is not known";
  EXPECT_EQ(settings.denyDeleteCurrent, DeleteCurrent::kWarn);
  EXPECT_TRUE(settings.denyDeletes);
  EXPECT_FALSE(settings.denyNonFastForwards);
  EXPECT_TRUE(settings.fsckObjects) << "receive's own goes before transfer's";
  EXPECT_EQ(settings.receiveHidden, (std::vector<std::string>{"refs/a", "!refs/a/b"}));
  EXPECT_EQ(settings.uploadHidden, (std::vector<std::string>{"refs/a", "refs/c"}));
  EXPECT_EQ(settings.commandsMax, 7u);
  EXPECT_EQ(settings.maxInputBytes, 1024u);
  EXPECT_TRUE(settings.allowAnySha1InWant);
  EXPECT_FALSE(settings.allowFilter);
  EXPECT_EQ(settings.receiveKeepAlive, 0u);
  EXPECT_EQ(settings.uploadKeepAlive, 60u);
  EXPECT_TRUE(settings.archiveUnreachable);
}

TEST(RepositorySettings, TheLastPatternThatMatchesDecides) {
  const std::vector<std::string> patterns = {"refs/a", "!refs/a/shown", "refs/a/shown/not", "^refs/b"};
  EXPECT_TRUE(isHiddenRef(patterns, "refs/a"));
  EXPECT_TRUE(isHiddenRef(patterns, "refs/a/x"));
  EXPECT_FALSE(isHiddenRef(patterns, "refs/ab"));
  EXPECT_FALSE(isHiddenRef(patterns, "refs/a/shown"));
  EXPECT_FALSE(isHiddenRef(patterns, "refs/a/shown/x"));
  EXPECT_TRUE(isHiddenRef(patterns, "refs/a/shown/not/x"));
  EXPECT_TRUE(isHiddenRef(patterns, "refs/b/x"));
  EXPECT_FALSE(isHiddenRef({}, "refs/a"));
}

}  // namespace
}  // namespace packmoor::gitlayer
