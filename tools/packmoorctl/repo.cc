#include "commands.h"

#include <gitlayer/repository_settings.h>
#include <rpc/control.pb.h>

#include <algorithm>
#include <cstdio>
#include <strings.h>

namespace packmoor::ctl {
namespace {

int printRepository(const Session& session, const control::Response& response, const char* done) {
  if (session.json) {
    std::printf("%s", jsonText(response.repo()).c_str());
    return kDone;
  }
  const control::Repository& repository = response.repo().repository();
  const std::string where = repository.volume().empty() ? "" : "volume " + repository.volume() + ", ";
  std::printf("Repository %s %s (%srecord %s).\n", plain(repository.name()).c_str(), done,
              where.c_str(), countText(response.repo().index()).c_str());
  return kDone;
}

int printDeleted(const control::RepoListReply& list) {
  if (list.repositories_size() == 0) {
    std::printf("No deleted repository is kept.\n");
    return kDone;
  }
  Table table({"NAME", "VOLUME", "DELETED", "KEPT UNTIL", "ID"});
  for (const auto& repository : list.repositories()) {
    table.row({repository.name(), repository.volume(), timeText(repository.deleted_at_ms()),
               timeText(repository.drop_at_ms()), repository.id()});
  }
  std::printf("%s", table.text().c_str());
  return kDone;
}

}  // namespace

int repoCreate(const Session& session, const RepoArguments& arguments) {
  control::Request request;
  control::Response response;
  auto& body = *request.mutable_repo_create();
  body.set_name(arguments.name);
  body.set_volume(arguments.volume);
  body.set_head(arguments.head.empty() || arguments.head.rfind("refs/", 0) == 0
                    ? arguments.head
                    : "refs/heads/" + arguments.head);
  body.set_description(arguments.description);
  int code = session.ask(request, false, response);
  return code != kDone ? code : printRepository(session, response, "is made");
}

int repoDelete(const Session& session, const std::string& name, bool now) {
  control::Request request;
  control::Response response;
  request.mutable_repo_delete()->set_name(name);
  request.mutable_repo_delete()->set_now(now);
  int code = session.ask(request, false, response);
  if (code != kDone) return code;
  printRepository(session, response, "is deleted");
  const control::Repository& repository = response.repo().repository();
  if (session.json || repository.drop_at_ms() == 0) return kDone;
  std::printf("It is kept until %s; `packmoorctl repo undelete %s` brings it back.\n",
              timeText(repository.drop_at_ms()).c_str(), plain(name).c_str());
  return kDone;
}

int repoUndelete(const Session& session, const std::string& name, const std::string& to) {
  control::Request request;
  control::Response response;
  request.mutable_repo_undelete()->set_name(name);
  request.mutable_repo_undelete()->set_to(to);
  int code = session.ask(request, false, response);
  return code != kDone ? code : printRepository(session, response, "is there again");
}

int repoRename(const Session& session, const std::string& name, const std::string& to) {
  control::Request request;
  control::Response response;
  request.mutable_repo_rename()->set_name(name);
  request.mutable_repo_rename()->set_to(to);
  int code = session.ask(request, false, response);
  const std::string done = "was " + plain(name) + " before";
  return code != kDone ? code : printRepository(session, response, done.c_str());
}

int repoFork(const Session& session, const std::string& parent, const std::string& name,
             bool defaultBranchOnly) {
  control::Request request;
  control::Response response;
  auto& body = *request.mutable_repo_fork();
  body.set_parent(parent);
  body.set_name(name);
  body.set_default_branch_only(defaultBranchOnly);
  int code = session.ask(request, false, response);
  if (code != kDone) return code;
  const std::string done = "is made as a fork of " + plain(parent);
  printRepository(session, response, done.c_str());
  if (session.json) return kDone;
  const auto& numbers = response.repo().statistics();
  std::printf("It has %s refs, and shares %s packs with it, %s.\n", countText(numbers.refs()).c_str(),
              countText(numbers.packs()).c_str(), bytesText(numbers.pack_bytes()).c_str());
  return kDone;
}

int repoPrune(const Session& session, const PruneArguments& arguments) {
  control::Request request;
  control::Response response;
  auto& body = *request.mutable_repo_prune();
  body.set_name(arguments.name);
  body.set_grace_ms(arguments.graceSeconds * 1000);
  body.set_dry_run(arguments.dryRun);
  int code = session.ask(request, false, response);
  if (code != kDone) return code;
  const control::RepoPruneReply& reply = response.repo_prune();
  if (session.json) {
    std::printf("%s", jsonText(reply).c_str());
    return kDone;
  }
  const std::string name = plain(reply.repository().name());
  if (reply.hot_objects() == 0 && reply.packs() == 0) {
    std::printf("Repository %s: there is nothing to drop; %s objects are kept.\n", name.c_str(),
                countText(reply.kept_objects()).c_str());
    return kDone;
  }
  std::printf("Repository %s %s (volume %s, record %s):\n", name.c_str(),
              reply.dry_run() ? "would be pruned" : "is pruned",
              reply.repository().volume().c_str(), countText(reply.index()).c_str());
  std::printf("  hot objects  %s, %s\n", countText(reply.hot_objects()).c_str(),
              bytesText(reply.hot_bytes()).c_str());
  std::printf("  packs        %s, %s objects, %s\n", countText(reply.packs()).c_str(),
              countText(reply.packed_objects()).c_str(), bytesText(reply.pack_bytes()).c_str());
  std::printf("  kept         %s objects\n", countText(reply.kept_objects()).c_str());
  return kDone;
}

int repoList(const Session& session, bool deleted) {
  control::RepoListReply all;
  for (;;) {
    control::Request request;
    control::Response response;
    auto& body = *request.mutable_repo_list();
    body.set_deleted(deleted);
    if (all.repositories_size() > 0) {
      body.set_after(all.repositories(all.repositories_size() - 1).name());
    }
    int code = session.ask(request, true, response);
    if (code != kDone) return code;
    for (auto& repository : *response.mutable_repo_list()->mutable_repositories()) {
      all.add_repositories()->Swap(&repository);
    }
    if (!response.repo_list().more()) break;
  }
  if (session.json) {
    std::printf("%s", jsonText(all).c_str());
    return kDone;
  }
  if (deleted) return printDeleted(all);
  if (all.repositories_size() == 0) {
    std::printf("There are no repositories. Make one with `packmoorctl repo create NAME`.\n");
    return kDone;
  }
  Table table({"NAME", "VOLUME", "HEAD", "MADE", "DESCRIPTION"});
  for (const auto& repository : all.repositories()) {
    table.row({repository.name(), repository.volume(), repository.head(),
               timeText(repository.created_at_ms()), repository.description()});
  }
  std::printf("%s", table.text().c_str());
  return kDone;
}

namespace {

std::string valuesText(const control::RepositorySetting& setting) {
  std::string text;
  for (const std::string& value : setting.values()) text += (text.empty() ? "" : ", ") + plain(value);
  return text;
}

void printSettings(const control::RepoReply& reply) {
  bool any = false;
  for (const auto& setting : reply.settings()) {
    if (!setting.set() || setting.key() == "HEAD" || setting.key() == "description") continue;
    if (!any) std::printf("Settings\n");
    any = true;
    std::printf("  %-32s  %s\n", plain(setting.key()).c_str(), valuesText(setting).c_str());
  }
}

// Tabs and newlines within a value become '?', so that a line is always one pair.
void printLine(const std::string& key, const std::string& value) {
  std::printf("%s\t%s\n", plain(key).c_str(), plain(value).c_str());
}

void printLines(const control::RepoReply& reply) {
  const auto& repository = reply.repository();
  const auto& numbers = reply.statistics();
  printLine("name", repository.name());
  printLine("id", repository.id());
  printLine("volume", repository.volume());
  printLine("index", std::to_string(reply.index()));
  printLine("made", std::to_string(repository.created_at_ms()));
  if (!repository.forked_from_id().empty()) printLine("forked_from", repository.forked_from());
  printLine("refs", std::to_string(numbers.refs()));
  printLine("hot_objects", std::to_string(numbers.hot_objects()));
  printLine("hot_bytes", std::to_string(numbers.hot_bytes()));
  printLine("packs", std::to_string(numbers.packs()));
  printLine("packed_objects", std::to_string(numbers.packed_objects()));
  printLine("pack_bytes", std::to_string(numbers.pack_bytes()));
  for (const auto& setting : reply.settings()) {
    for (const std::string& value : setting.values()) printLine(setting.key(), value);
  }
}

control::RepositorySetting& changeOf(const std::string& key, control::RepoSetRequest& request) {
  for (auto& change : *request.mutable_changes()) {
    if (strcasecmp(change.key().c_str(), key.c_str()) == 0) return change;
  }
  auto& change = *request.add_changes();
  change.set_key(key);
  return change;
}

// Keys that are given several times take all of their values. False: it was said what is wrong.
bool fillChanges(const RepoSetArguments& arguments, control::RepoSetRequest& request) {
  request.set_name(arguments.name);
  for (const std::string& assignment : arguments.assignments) {
    const size_t equals = assignment.find('=');
    if (equals == std::string::npos || equals == 0) {
      printError("'" + assignment + "' sets nothing.", "It must be KEY=VALUE.",
                 "packmoorctl repo set NAME receive.denyDeletes=true");
      return false;
    }
    changeOf(assignment.substr(0, equals), request).add_values(assignment.substr(equals + 1));
  }
  for (const std::string& key : arguments.unset) {
    if (changeOf(key, request).values_size() == 0) continue;
    printError("'" + key + "' is to be set and unset.", "One of the two must do.", "");
    return false;
  }
  if (request.changes_size() > 0) return true;
  printError("Nothing is to be changed.", "", "packmoorctl repo set NAME KEY=VALUE, or --unset KEY");
  return false;
}

}  // namespace

int repoSet(const Session& session, const RepoSetArguments& arguments) {
  control::Request request;
  control::Response response;
  if (!fillChanges(arguments, *request.mutable_repo_set())) return kUsage;
  int code = session.ask(request, false, response);
  if (code != kDone) return code;
  if (session.json) {
    std::printf("%s", jsonText(response.repo()).c_str());
    return kDone;
  }
  printRepository(session, response, "is changed");
  printSettings(response.repo());
  return kDone;
}

std::string repoSettingsHelp() {
  std::string text = "\nSettings [where not set]:\n";
  for (const auto& known : gitlayer::knownSettings()) {
    std::string line = std::string("  ") + known.key;
    line.resize(std::max<size_t>(line.size() + 1, 36), ' ');
    line += known.help;
    if (known.fallback[0] != '\0') line += std::string(" [") + known.fallback + "]";
    text += line + "\n";
  }
  return text + "A key with several values is given several times: KEY=VALUE KEY=VALUE.\n";
}

int repoShow(const Session& session, const std::string& name, bool plainLines) {
  control::Request request;
  control::Response response;
  request.mutable_repo_show()->set_name(name);
  int code = session.ask(request, true, response);
  if (code != kDone) return code;
  if (session.json) {
    std::printf("%s", jsonText(response.repo()).c_str());
    return kDone;
  }
  if (plainLines) {
    printLines(response.repo());
    return kDone;
  }
  const auto& repository = response.repo().repository();
  const auto& numbers = response.repo().statistics();
  std::printf("Repository %s\n", plain(repository.name()).c_str());
  if (!repository.description().empty()) {
    std::printf("  description  %s\n", plain(repository.description()).c_str());
  }
  std::printf("  id           %s\n", repository.id().c_str());
  std::printf("  volume       %s, as of record %s\n", repository.volume().c_str(),
              countText(response.repo().index()).c_str());
  std::printf("  made         %s, record %s\n", timeText(repository.created_at_ms()).c_str(),
              countText(repository.created_at_index()).c_str());
  if (!repository.forked_from_id().empty()) {
    std::printf("  fork of      %s, %s\n", plain(repository.forked_from()).c_str(),
                repository.forked_from_id().c_str());
  }
  std::printf("  head         %s\n", plain(repository.head()).c_str());
  std::printf("  refs         %s\n", countText(numbers.refs()).c_str());
  std::printf("  hot objects  %s, %s\n", countText(numbers.hot_objects()).c_str(),
              bytesText(numbers.hot_bytes()).c_str());
  std::printf("  packs        %s, %s objects, %s\n", countText(numbers.packs()).c_str(),
              countText(numbers.packed_objects()).c_str(), bytesText(numbers.pack_bytes()).c_str());
  std::printf("  repacked     %s\n",
              numbers.last_repack() == 0
                  ? "never"
                  : (timeText(numbers.last_repack_ms()) + ", record " +
                     countText(numbers.last_repack())).c_str());
  printSettings(response.repo());
  return kDone;
}

}  // namespace packmoor::ctl
