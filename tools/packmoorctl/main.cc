// packmoorctl: asks a node's daemon over its control socket, and reads journals of stopped nodes.
#include "commands.h"
#include "journal.h"

#include <CLI/CLI.hpp>

#include <functional>
#include <map>

namespace packmoor::ctl {
namespace {

constexpr const char* kFooter = R"(
Exit codes:
  0  done
  1  refused: not possible as things are, or the check failed
  2  wrong usage
  3  the daemon cannot be reached, or is still starting
  4  denied: this user or this socket may not do it
  5  no quorum; nothing was changed
  6  the outcome is unknown; look before trying again

Examples:
  packmoorctl --data /var/lib/packmoor status
  packmoorctl repo create team/app
  packmoorctl repo prune team/app --dry-run
  packmoorctl repo import team/app /srv/git/app.git
  packmoorctl repo undelete team/app --as team/app-back
  packmoorctl repo fork team/app people/me/app
  packmoorctl repo set team/app HEAD=trunk receive.denyNonFastForwards=true
  packmoorctl volume create main --members n1,n2,n3 --write-quorum 2
  packmoorctl volume switchover main --to n2
  packmoorctl coordinator status
  packmoorctl volume add-member main n4
  packmoorctl scrub start
  packmoorctl node replace n3 n5
  packmoorctl journal verify --data /var/lib/packmoor
)";

using Action = std::function<int()>;

CLI::App* verb(CLI::App* noun, const char* name, const char* help, Action& chosen, Action action) {
  CLI::App* command = noun->add_subcommand(name, help);
  command->fallthrough();
  command->callback([&chosen, action]() { chosen = action; });
  return command;
}

struct Arguments {
  Session session;
  RepoArguments repo;
  PruneArguments prune;
  TransferArguments transfer;
  RepoSetArguments set;
  bool localOnly = false, plainLines = false, now = false, deleted = false, oneBranch = false;
  std::string volume, to, by, yes;
  std::string clusterId;
  std::vector<std::string> without;
  VolumeArguments volumes;
  LossArguments loss;
};

// What becomes of a repository that there is.
void addRepoLife(CLI::App* noun, Arguments& a, Action& chosen) {
  auto* remove = verb(noun, "delete", "Delete a repository; for a while it can be brought back", chosen,
                      [&a]() { return repoDelete(a.session, a.repo.name, a.now); });
  remove->add_option("NAME", a.repo.name, "The repository")->required();
  remove->add_flag("--now", a.now, "For good, also when it is deleted already and kept");
  auto* undelete = verb(noun, "undelete", "Bring a deleted repository back", chosen,
                        [&a]() { return repoUndelete(a.session, a.repo.name, a.to); });
  undelete->add_option("NAME", a.repo.name, "What it was called; the newest of that name")->required();
  undelete->add_option("--as", a.to, "What it shall be called [the same]");
  auto* rename = verb(noun, "rename", "Give a repository another name", chosen,
                      [&a]() { return repoRename(a.session, a.repo.name, a.to); });
  rename->add_option("NAME", a.repo.name, "The repository")->required();
  rename->add_option("TO", a.to, "What it shall be called")->required();
  auto* fork = verb(noun, "fork", "Make a repository of another one; objects are shared, not copied", chosen,
                    [&a]() { return repoFork(a.session, a.repo.name, a.to, a.oneBranch); });
  fork->add_option("PARENT", a.repo.name, "The repository that there is")->required();
  fork->add_option("NEW", a.to, "What the new one shall be called; it is in the same volume")->required();
  fork->add_flag("--default-branch-only", a.oneBranch, "Of the refs take only what HEAD names");
}

void addRepo(CLI::App& app, Arguments& a, Action& chosen) {
  CLI::App* noun = app.add_subcommand("repo", "Make, delete and look at repositories");
  noun->require_subcommand(1)->fallthrough();
  auto* create = verb(noun, "create", "Make an empty repository", chosen,
                      [&a]() { return repoCreate(a.session, a.repo); });
  create->add_option("NAME", a.repo.name, "As in the URL, without .git: team/app")->required();
  create->add_option("--volume", a.repo.volume, "Where it lives [by weight and free space]");
  create->add_option("--head", a.repo.head, "The branch that HEAD names [main]");
  create->add_option("--description", a.repo.description, "One line for people");
  addRepoLife(noun, a, chosen);
  auto* prune = verb(noun, "prune", "Drop what nothing reaches: small pushes' objects, and whole packs",
                     chosen, [&a]() { return repoPrune(a.session, a.prune); });
  prune->add_option("NAME", a.prune.name, "The repository")->required();
  prune->add_flag("--dry-run", a.prune.dryRun, "Only say what would be dropped");
  prune->add_option("--grace", a.prune.graceSeconds,
                    "Keep what came within this time, as 14d, 12h, 30m or 45s, and what it names [14d]")
      ->transform(CLI::AsNumberWithUnit(std::map<std::string, uint64_t>{
          {"s", 1}, {"m", 60}, {"h", 3600}, {"d", 86'400}}))
      ->check(CLI::Range(uint64_t(0), uint64_t(36'500) * 86'400));
  auto* bring = verb(noun, "import", "Bring in a repository or a bundle; asked again, it goes on", chosen,
                     [&a]() { return repoImport(a.session, a.transfer); });
  bring->add_option("NAME", a.transfer.name, "What it is to be called here")->required();
  bring->add_option("PATH", a.transfer.path, "A repository's folder, or a bundle")->required();
  bring->add_option("--volume", a.transfer.volume, "Where it lives [by weight and free space]");
  bring->add_option("--commits-per-push", a.transfer.commitsPerPush,
                    "After so many commits it can go on when it is broken off")
      ->capture_default_str()->check(CLI::Range(uint64_t(1), uint64_t(1'000'000'000)));
  bring->add_flag("--check", a.transfer.check, "Clone it afterwards and compare every object");
  auto* take = verb(noun, "export", "Write a bare repository that stock git serves", chosen,
                    [&a]() { return repoExport(a.session, a.transfer); });
  take->add_option("NAME", a.transfer.name, "The repository")->required();
  take->add_option("FOLDER", a.transfer.path, "Where to; it is made")->required();
  take->add_flag("--check", a.transfer.check, "Let git check every object of it");
  verb(noun, "list", "List all repositories", chosen,
       [&a]() { return repoList(a.session, a.deleted); })
      ->add_flag("--deleted", a.deleted, "Those that are deleted and can be brought back");
  auto* show = verb(noun, "show", "Show one repository", chosen,
                    [&a]() { return repoShow(a.session, a.repo.name, a.plainLines); });
  show->add_option("NAME", a.repo.name, "The repository")->required();
  show->add_flag("-H", a.plainLines, "For scripts: KEY<tab>VALUE of everything, a line each");
  auto* set = verb(noun, "set", "Change settings: the default branch, policies of pushes, hidden refs",
                   chosen, [&a]() { return repoSet(a.session, a.set); });
  set->add_option("NAME", a.set.name, "The repository")->required();
  set->add_option("KEY=VALUE", a.set.assignments, "What to set");
  set->add_option("--unset", a.set.unset, "A key that shall not be set any more")
      ->expected(1)->multi_option_policy(CLI::MultiOptionPolicy::TakeAll);
  set->footer(repoSettingsHelp());
}

void addMembers(CLI::App* noun, Arguments& a, Action& chosen) {
  auto named = [&](const char* name, const char* help,
                   int (*action)(const Session&, const VolumeArguments&)) {
    auto* command = verb(noun, name, help, chosen,
                         [&a, action]() { return action(a.session, a.volumes); });
    command->add_option("VOLUME", a.volumes.name, "The volume")->required();
    return command;
  };
  auto* add = named("add-member", "Let a node join; it is counted when it has caught up",
                    volumeAddMember);
  add->add_option("NODE", a.volumes.node, "The node")->required();
  add->add_flag("--async", a.volumes.async, "It follows and is never counted");
  auto* remove = named("remove-member", "Remove a node that does not lead", volumeRemoveMember);
  remove->add_option("NODE", a.volumes.node, "The node")->required();
  auto* quorum = named("set-quorum", "Change on how many members a write is kept",
                       volumeSetQuorum);
  quorum->add_option("W", a.volumes.writeQuorum, "How many")->required()
      ->check(CLI::PositiveNumber);
  auto* promote = named("promote", "Let an async standby be counted when it has caught up",
                        volumePromote);
  promote->add_option("NODE", a.volumes.node, "The node")->required();
  promote->add_option("--yes-i-lose-data", a.volumes.confirmed,
                      "The volume's name again, where nobody can lead without a loss [asked for]");
  auto* weight = named("set-weight", "Change how many new repositories the volume gets",
                       volumeSetWeight);
  weight->add_option("WEIGHT", a.volumes.weight, "Compared with other volumes'; 0: none")
      ->required()->check(CLI::Range(0, 1'000'000));
}

void addLoss(CLI::App* noun, Arguments& a, Action& chosen) {
  auto named = [&](const char* name, const char* help,
                   int (*action)(const Session&, const LossArguments&)) {
    auto* command = verb(noun, name, help, chosen,
                         [&a, action]() { return action(a.session, a.loss); });
    command->add_option("VOLUME", a.loss.name, "The volume")->required();
    return command;
  };
  named("lost-writes", "Show what is lost when data is beyond repair, as far as anybody knows",
        volumeLostWrites);
  auto confirm = [&a](CLI::App* command) {
    command->add_option("--yes-i-lose-data", a.loss.confirmed,
                        "The volume's name again [asked for on the terminal]");
  };
  confirm(named("accept-loss", "Go on without members that are lost for good", volumeAcceptLoss));
  named("acknowledge-loss", "Let status tell accepted losses no more", volumeAcknowledgeLoss);
  confirm(named("discard-diverged", "Remove this node's diverged copy, so that it can follow again",
                volumeDiscardDiverged));
}

void addVolume(CLI::App& app, Arguments& a, Action& chosen) {
  CLI::App* noun = app.add_subcommand("volume", "Make, check and move volumes");
  noun->require_subcommand(1)->fallthrough();
  verb(noun, "list", "List all volumes", chosen, [&a]() { return volumeList(a.session); });
  auto named = [&](const char* name, const char* help, Action action) {
    auto* command = verb(noun, name, help, chosen, std::move(action));
    command->add_option("VOLUME", a.volume, "The volume")->required();
    return command;
  };
  named("show", "Show one volume and its members",
        [&a]() { return volumeShow(a.session, a.volume); });
  auto* create = named("create", "Make a volume on the given nodes", [&a]() {
    a.volumes.name = a.volume;
    return volumeCreate(a.session, a.volumes);
  });
  create->add_option("--members", a.volumes.members, "The nodes, as n1,n2,n3")
      ->required()->delimiter(',');
  auto* how = create->add_option_group("quorum", "How writes are kept");
  how->add_option("--write-quorum", a.volumes.writeQuorum,
                  "On how many members a write is durable before it is acknowledged")
      ->check(CLI::PositiveNumber);
  how->add_flag("--pair", a.volumes.pair,
                "Two members, both acknowledge; one goes on alone while the other is lost");
  how->require_option(1);
  create->add_option("--weight", a.volumes.weight, "For new repositories that name no volume [100]")
      ->check(CLI::Range(1, 1'000'000));
  addMembers(noun, a, chosen);
  addLoss(noun, a, chosen);
  auto* remove = named("delete", "Delete a volume that holds no repository, for good",
                       [&a]() { return volumeDelete(a.session, a.volume, a.yes); });
  remove->add_option("--yes", a.yes, "The volume's name again, for scripts [asked on the terminal]");
  auto* move = named("switchover", "Make another member the primary",
                     [&a]() { return volumeSwitchover(a.session, a.volume, a.to); });
  move->add_option("--to", a.to, "The node that shall lead")->required();
  named("verify", "Compare roots over refs, repositories and objects of all members",
        [&a]() { return volumeVerify(a.session, a.volume); });
}

void addCoordinator(CLI::App& app, Arguments& a, Action& chosen) {
  CLI::App* noun = app.add_subcommand("coordinator", "Look at etcd, and accept a restored one");
  noun->require_subcommand(1)->fallthrough();
  verb(noun, "status", "Show what this node knows of etcd, and what etcd is now", chosen,
       [&a]() { return coordinatorStatus(a.session); });
  auto* accept = verb(noun, "accept", "Use the etcd that answers, although its past is another one",
                      chosen, [&a]() { return coordinatorAccept(a.session, a.clusterId, a.without); });
  accept->add_option("--cluster-id", a.clusterId,
                     "The id of the cluster to accept [asked for on the terminal]");
  accept->add_option("--without", a.without, "Members that are lost for good, as n1,n2")
      ->delimiter(',');
}

void addScrub(CLI::App& app, Arguments& a, Action& chosen) {
  CLI::App* noun = app.add_subcommand("scrub", "Read all of a node's disk to find what it has lost");
  noun->require_subcommand(1)->fallthrough();
  verb(noun, "status", "Show what is read and was found; exit code 1 while damage stands", chosen,
       [&a]() { return scrubStatus(a.session); });
  verb(noun, "start", "Begin a pass now", chosen, [&a]() { return scrubStart(a.session); });
  verb(noun, "pause", "Read nothing until it is resumed", chosen,
       [&a]() { return scrubPause(a.session); });
  verb(noun, "resume", "Go on where it was", chosen, [&a]() { return scrubResume(a.session); });
  verb(noun, "acknowledge", "End the notes of what was mended", chosen,
       [&a]() { return scrubAcknowledge(a.session); });
}

void addJournal(CLI::App& app, Arguments& a, Action& chosen) {
  CLI::App* noun = app.add_subcommand("journal", "Read the journal of a stopped node");
  noun->require_subcommand(1)->fallthrough();
  auto offline = [&](const char* name, const char* help, int (*action)(const std::string&, bool)) {
    verb(noun, name, help, chosen, [&a, action]() {
      if (!a.session.data.empty()) return action(a.session.data, a.session.json);
      printError("The node's data directory must be given.", "", "--data DIR");
      return static_cast<int>(kUsage);
    });
  };
  offline("dump", "Print every batch and entry (needs --data)", journalDump);
  offline("verify", "Check every checksum and chain (needs --data)", journalVerify);
}

void addOptions(CLI::App& app, Session& session) {
  app.set_version_flag("--version", "packmoorctl " PACKMOOR_VERSION);
  app.add_option("--socket", session.socket, "The daemon's control socket");
  app.add_option("--data", session.data, "The daemon's data directory, with the socket in it");
  app.add_option("--config", session.config,
                 "The daemon's configuration [/etc/packmoor/packmoord.toml]");
  app.add_flag("--json", session.json, "Print JSON for programs");
  app.add_option("--timeout", session.timeoutSeconds, "Seconds to wait for an answer [60]")
      ->check(CLI::Range(1, 3600));
}

int run(int argc, char** argv) {
  CLI::App app("Administers a Packmoor node over its control socket.", "packmoorctl");
  app.footer(kFooter);
  app.require_subcommand(1);
  Arguments arguments;
  Action chosen;
  addOptions(app, arguments.session);
  auto* statusVerb = verb(&app, "status", "Show this node, and what it sees of the others", chosen,
                          [&]() { return status(arguments.session, arguments.localOnly); });
  statusVerb->add_flag("--local", arguments.localOnly, "Do not ask the other nodes");
  CLI::App* node = app.add_subcommand("node", "Look at the nodes of the cluster");
  node->require_subcommand(1)->fallthrough();
  verb(node, "list", "List all nodes that ever registered", chosen,
       [&]() { return nodeList(arguments.session); });
  auto forNode = [&](const char* name, const char* help, Action action) {
    verb(node, name, help, chosen, std::move(action))
        ->add_option("NODE", arguments.to, "The node")->required();
  };
  forNode("drain", "Let others lead what the node leads, until it is undrained",
          [&]() { return nodeDrain(arguments.session, arguments.to, false); });
  forNode("undrain", "Let the node lead again",
          [&]() { return nodeDrain(arguments.session, arguments.to, true); });
  forNode("ok-to-stop", "Does every volume go on without the node?",
          [&]() { return nodeOkToStop(arguments.session, arguments.to); });
  auto* replace = verb(node, "replace", "Let a node take another's place in every volume", chosen, [&]() {
    return nodeReplace(arguments.session, arguments.to, arguments.by);
  });
  replace->add_option("OLD", arguments.to, "The node that goes; it need not be there")->required();
  replace->add_option("NEW", arguments.by, "The node that comes")->required();
  addRepo(app, arguments, chosen);
  addVolume(app, arguments, chosen);
  addCoordinator(app, arguments, chosen);
  addScrub(app, arguments, chosen);
  addJournal(app, arguments, chosen);
  CLI::App* cluster = app.add_subcommand("cluster", "What concerns all nodes");
  cluster->require_subcommand(1)->fallthrough();
  verb(cluster, "balance", "Move leads so that the nodes lead evenly", chosen,
       [&]() { return clusterBalance(arguments.session); });
  try {
    app.parse(argc, argv);
  } catch (const CLI::CallForHelp& help) {
    return app.exit(help);
  } catch (const CLI::CallForAllHelp& help) {
    return app.exit(help);
  } catch (const CLI::CallForVersion& version) {
    return app.exit(version);
  } catch (const CLI::ParseError& error) {
    printError(error.what(), "", "packmoorctl --help, or packmoorctl NOUN VERB --help");
    return kUsage;
  }
  return chosen();
}

}  // namespace
}  // namespace packmoor::ctl

int main(int argc, char** argv) { return packmoor::ctl::run(argc, argv); }
