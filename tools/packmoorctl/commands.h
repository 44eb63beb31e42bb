// packmoorctl's verbs over the control socket. Each returns an exit code and prints its result.
#pragma once

#include "output.h"

#include <string>
#include <vector>

namespace packmoor::control {
class Request;
class Response;
}  // namespace packmoor::control

namespace packmoor::ctl {

// How to reach the daemon, and how to print.
struct Session {
  std::string socket, data, config;  // empty: not given
  bool json = false;
  uint32_t timeoutSeconds = 60;

  // Sends the request on the admin socket; a request that only reads may go to the status socket
  // when this user may not use the other. Returns kDone, or prints the error.
  int ask(control::Request& request, bool reads, control::Response& response) const;

 private:
  std::vector<std::string> sockets(bool reads) const;
};

int status(const Session& session, bool localOnly);
int nodeList(const Session& session);

struct RepoArguments {
  std::string name, volume, head, description;
};
int repoCreate(const Session& session, const RepoArguments& arguments);
int repoDelete(const Session& session, const std::string& name, bool now);
int repoUndelete(const Session& session, const std::string& name, const std::string& to);
int repoFork(const Session& session, const std::string& parent, const std::string& name,
             bool defaultBranchOnly);
int repoRename(const Session& session, const std::string& name, const std::string& to);
struct PruneArguments {
  std::string name;
  uint64_t graceSeconds = 14 * 86'400;
  bool dryRun = false;
};
int repoPrune(const Session& session, const PruneArguments& arguments);
struct TransferArguments {
  std::string name, path, volume;   // path: a repository or a bundle; for an export, a folder to be made
  uint64_t commitsPerPush = 20'000;
  bool check = false;
};
// Asked again after it was broken off, it goes on.
int repoImport(const Session& session, const TransferArguments& arguments);
int repoExport(const Session& session, const TransferArguments& arguments);
int repoList(const Session& session, bool deleted);
// `plainLines`: for scripts, "KEY<tab>VALUE" of everything, without headings.
int repoShow(const Session& session, const std::string& name, bool plainLines);
struct RepoSetArguments {
  std::string name;
  std::vector<std::string> assignments, unset;  // "KEY=VALUE"; keys
};
int repoSet(const Session& session, const RepoSetArguments& arguments);
std::string repoSettingsHelp();  // a line for each

int volumeList(const Session& session);
int volumeShow(const Session& session, const std::string& name);
struct VolumeArguments {
  std::string name, node;
  std::vector<std::string> members;
  uint32_t writeQuorum = 0, weight = 100;
  bool pair = false, async = false;
  std::string confirmed;   // of a promotion that loses data, as in LossArguments
};
int volumeCreate(const Session& session, const VolumeArguments& arguments);
int volumeAddMember(const Session& session, const VolumeArguments& arguments);
int volumeRemoveMember(const Session& session, const VolumeArguments& arguments);
int volumeSetQuorum(const Session& session, const VolumeArguments& arguments);
int volumePromote(const Session& session, const VolumeArguments& arguments);
// `confirmed`: the volume's name again; empty: it is asked for on the terminal.
struct LossArguments {
  std::string name, node, confirmed;
};
int volumeLostWrites(const Session& session, const LossArguments& arguments);
int volumeAcceptLoss(const Session& session, const LossArguments& arguments);
int volumeAcknowledgeLoss(const Session& session, const LossArguments& arguments);
int volumeDiscardDiverged(const Session& session, const LossArguments& arguments);
// False: nothing would be lost, and nothing was done. True: `code` is the exit code.
bool promotionLoses(const Session& session, const LossArguments& arguments, int& code);
int volumeSetWeight(const Session& session, const VolumeArguments& arguments);
// Without `yes`, which repeats the name, it is asked for on the terminal.
int volumeDelete(const Session& session, const std::string& name, const std::string& yes);
int clusterBalance(const Session& session);
int nodeDrain(const Session& session, const std::string& node, bool undrain);
int nodeOkToStop(const Session& session, const std::string& node);
// One node takes another's place in every volume; asked again, it goes on.
int nodeReplace(const Session& session, const std::string& old, const std::string& by);
int volumeSwitchover(const Session& session, const std::string& name, const std::string& to);
int volumeVerify(const Session& session, const std::string& name);

int scrubStatus(const Session& session);
int scrubStart(const Session& session);
int scrubPause(const Session& session);
int scrubResume(const Session& session);
int scrubAcknowledge(const Session& session);

int coordinatorStatus(const Session& session);
// Without a cluster id it is asked for on the terminal.
int coordinatorAccept(const Session& session, std::string clusterId,
                      const std::vector<std::string>& without);

}  // namespace packmoor::ctl
