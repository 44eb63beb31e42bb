#include "commands.h"

#include <rpc/control.pb.h>

#include <cstdio>
#include <iostream>

namespace packmoor::ctl {
namespace {

std::string epochText(bool known, uint64_t epoch) { return known ? countText(epoch) : "-"; }

void printStatus(const control::CoordinatorStatusReply& reply) {
  if (reply.kind() != "etcd") {
    std::printf("This node stands alone; its coordinator is a file of its own.\n");
    return;
  }
  std::printf("etcd %s at %s\n", reply.reachable() ? "answers" : "does not answer",
              reply.endpoint().c_str());
  if (!reply.problem().empty()) std::printf("  problem     %s\n", plain(reply.problem()).c_str());
  std::printf("  known       cluster %s, revision %lld\n",
              reply.cluster_id().empty() ? "none" : reply.cluster_id().c_str(),
              static_cast<long long>(reply.revision()));
  const bool doubt = !reply.doubt().empty();
  if (doubt) {
    std::printf("  now         cluster %s, revision %lld\n",
                reply.seen_cluster_id().empty() ? "unknown" : reply.seen_cluster_id().c_str(),
                static_cast<long long>(reply.seen_revision()));
    std::printf("  doubt       %s\n", plain(reply.doubt()).c_str());
  }
  Table table(doubt ? std::vector<std::string>{"VOLUME", ">KNOWN EPOCH", "PRIMARY", ">IN ETCD",
                                               "PRIMARY"}
                    : std::vector<std::string>{"VOLUME", ">KNOWN EPOCH", "PRIMARY"});
  for (const auto& volume : reply.volumes()) {
    const bool known = !volume.known_primary().empty() || volume.known_epoch() > 0;
    std::vector<std::string> row{volume.name(), epochText(known, volume.known_epoch()),
                                 volume.known_primary()};
    if (doubt) {
      row.push_back(epochText(volume.in_etcd(), volume.etcd_epoch()));
      row.push_back(volume.etcd_primary());
    }
    table.row(row);
  }
  if (!table.empty()) std::printf("%s", table.text().c_str());
}

int askStatus(const Session& session, control::Response& response) {
  control::Request request;
  request.mutable_coordinator_status();
  return session.ask(request, true, response);
}

// Empty: not confirmed, which was said.
std::string typedId(const Session& session) {
  control::Response response;
  if (askStatus(session, response) != kDone) return {};
  const auto& reply = response.coordinator();
  if (reply.doubt().empty()) {
    printError("There is nothing to accept.", "etcd is the one that this node knows.", "");
    return {};
  }
  printStatus(reply);
  std::printf("\nThe volumes' records will be written anew from what all members know, with the "
              "highest epochs,\nand this etcd will be used from then on. To accept it, type its "
              "cluster id, %s: ", reply.seen_cluster_id().c_str());
  std::fflush(stdout);
  std::string typed;
  std::getline(std::cin, typed);
  if (!typed.empty() && typed == reply.seen_cluster_id()) return typed;
  printError("The coordinator was not accepted; nothing was changed.",
             "What was typed is not the cluster id.", "");
  return {};
}

}  // namespace

int coordinatorStatus(const Session& session) {
  control::Response response;
  int code = askStatus(session, response);
  if (code != kDone) return code;
  if (session.json) std::printf("%s", jsonText(response.coordinator()).c_str());
  else printStatus(response.coordinator());
  return kDone;
}

int coordinatorAccept(const Session& session, std::string clusterId,
                      const std::vector<std::string>& without) {
  if (clusterId.empty() && session.json) {
    printError("With --json the cluster id must be given.", "", "--cluster-id ID");
    return kUsage;
  }
  if (clusterId.empty()) clusterId = typedId(session);
  if (clusterId.empty()) return kRefused;
  control::Request request;
  control::Response response;
  auto& body = *request.mutable_coordinator_accept();
  body.set_cluster_id(clusterId);
  for (const std::string& node : without) body.add_without(node);
  int code = session.ask(request, false, response);
  if (code != kDone) return code;
  const auto& reply = response.coordinator();
  if (session.json) {
    std::printf("%s", jsonText(reply).c_str());
    return kDone;
  }
  for (const auto& volume : reply.volumes()) {
    std::printf("Volume %s: %s\n", volume.name().c_str(), plain(volume.done()).c_str());
  }
  std::string nodes;
  for (const std::string& node : reply.nodes()) nodes += (nodes.empty() ? "" : ", ") + node;
  std::printf("etcd cluster %s is the coordinator from now on. What %s knew was used; nodes that were "
              "not asked follow by themselves where nothing that they know is missing.\n",
              reply.cluster_id().c_str(), nodes.c_str());
  return kDone;
}

}  // namespace packmoor::ctl
