// packmoorctl volume: verbs that make volumes and change their members.
#include "commands.h"

#include <rpc/control.pb.h>

#include <algorithm>
#include <cstdio>
#include <iostream>

namespace packmoor::ctl {
namespace {

using control::VolumeChangeRequest;

std::string memberNames(const control::VolumeStatus& volume, bool counted) {
  std::string names;
  for (const auto& member : volume.members()) {
    if (member.counted() == counted) names += (names.empty() ? "" : ", ") + member.node();
  }
  return names;
}

void printChanged(const control::VolumeStatus& volume, const std::string& node) {
  std::printf("Volume %s: a write is kept on %u of %s", volume.name().c_str(), volume.write_quorum(),
              memberNames(volume, true).c_str());
  const std::string async = memberNames(volume, false);
  if (!async.empty()) std::printf("; async: %s", async.c_str());
  std::printf(" (epoch %s).\n", countText(volume.epoch()).c_str());
  for (const auto& member : volume.members()) {
    if (member.node() == node && member.joining()) {
      std::printf("%s follows, and is counted by itself when it has caught up; see `packmoorctl "
                  "volume show %s`.\n", node.c_str(), volume.name().c_str());
    }
  }
}

int changeVolume(const Session& session, const VolumeArguments& arguments,
                 VolumeChangeRequest::Kind kind) {
  control::Request request;
  control::Response response;
  auto& body = *request.mutable_volume_change();
  body.set_name(arguments.name);
  body.set_kind(kind);
  body.set_node(arguments.node);
  body.set_write_quorum(arguments.writeQuorum);
  // Leaves time for the answer that the joiner is not counted yet.
  body.set_wait_ms(std::min<uint32_t>(session.timeoutSeconds * 500, 600'000));
  int code = session.ask(request, false, response);
  if (code != kDone) return code;
  if (session.json) {
    std::printf("%s", jsonText(response.volume_list().volumes(0)).c_str());
  } else {
    printChanged(response.volume_list().volumes(0), arguments.node);
  }
  return kDone;
}

}  // namespace

int volumeCreate(const Session& session, const VolumeArguments& arguments) {
  control::Request request;
  control::Response response;
  auto& body = *request.mutable_volume_create();
  body.set_name(arguments.name);
  for (const std::string& member : arguments.members) body.add_members(member);
  body.set_write_quorum(arguments.pair ? 2 : arguments.writeQuorum);
  body.set_pair(arguments.pair);
  body.set_weight(arguments.weight);
  int code = session.ask(request, false, response);
  if (code != kDone) return code;
  const auto& volume = response.volume_list().volumes(0);
  if (session.json) {
    std::printf("%s", jsonText(volume).c_str());
    return kDone;
  }
  std::string names;
  for (const auto& member : volume.members()) names += (names.empty() ? "" : ",") + member.node();
  std::printf("Volume %s is made: %s, a write is kept on %u of %zu members.\n",
              arguments.name.c_str(), names.c_str(), body.write_quorum(),
              arguments.members.size());
  return kDone;
}

int volumeAddMember(const Session& session, const VolumeArguments& arguments) {
  return changeVolume(session, arguments,
                      arguments.async ? VolumeChangeRequest::KIND_ADD_ASYNC
                                      : VolumeChangeRequest::KIND_ADD_MEMBER);
}

int volumeRemoveMember(const Session& session, const VolumeArguments& arguments) {
  const int code = changeVolume(session, arguments, VolumeChangeRequest::KIND_REMOVE_MEMBER);
  if (code == kDone && !session.json) {
    std::printf("%s keeps its data for a while, in case that it is added again; its `packmoorctl status` "
                "tells how long.\n", arguments.node.c_str());
  }
  return code;
}

int volumeSetQuorum(const Session& session, const VolumeArguments& arguments) {
  return changeVolume(session, arguments, VolumeChangeRequest::KIND_SET_QUORUM);
}

int volumePromote(const Session& session, const VolumeArguments& arguments) {
  int code = kDone;
  if (promotionLoses(session, {arguments.name, arguments.node, arguments.confirmed}, code)) {
    return code;
  }
  return changeVolume(session, arguments, VolumeChangeRequest::KIND_PROMOTE);
}

int volumeDelete(const Session& session, const std::string& name, const std::string& yes) {
  std::string typed = yes;
  if (typed.empty() && session.json) {
    printError("With --json the volume's name must be given again.", "", "--yes " + name);
    return kUsage;
  }
  if (typed.empty()) {
    std::printf("Volume %s will be gone for good. To delete it, type its name: ", name.c_str());
    std::fflush(stdout);
    std::getline(std::cin, typed);
  }
  if (typed != name) {
    printError("Volume " + name + " was not deleted; nothing was changed.",
               yes.empty() ? "What was typed is not its name." : "--yes names another volume.", "");
    return yes.empty() ? kRefused : kUsage;
  }
  control::Request request;
  control::Response response;
  request.mutable_volume_delete()->set_name(name);
  int code = session.ask(request, false, response);
  if (code != kDone) return code;
  if (session.json) {
    std::printf("%s", jsonText(response.volume_list().volumes(0)).c_str());
  } else {
    std::printf("Volume %s is deleted. Its members remove what they have of it; one that is away does so "
                "when it comes back.\n", name.c_str());
  }
  return kDone;
}

int volumeSetWeight(const Session& session, const VolumeArguments& arguments) {
  control::Request request;
  control::Response response;
  request.mutable_volume_set_weight()->set_name(arguments.name);
  request.mutable_volume_set_weight()->set_weight(arguments.weight);
  int code = session.ask(request, false, response);
  if (code != kDone) return code;
  if (session.json) {
    std::printf("%s", jsonText(response.volume_list().volumes(0)).c_str());
  } else {
    std::printf("Volume %s has weight %u for new repositories.\n", arguments.name.c_str(),
                arguments.weight);
  }
  return kDone;
}

int clusterBalance(const Session& session) {
  control::Request request;
  control::Response response;
  request.mutable_cluster_balance();
  int code = session.ask(request, false, response);
  if (code != kDone) return code;
  const auto& moved = response.volume_list();
  if (session.json) {
    std::printf("%s", jsonText(moved).c_str());
    return kDone;
  }
  for (const auto& volume : moved.volumes()) {
    std::printf("Volume %s is led by %s now.\n", volume.name().c_str(), volume.primary().c_str());
  }
  if (moved.volumes_size() == 0) std::printf("The leads are spread evenly; nothing was moved.\n");
  return kDone;
}

int nodeDrain(const Session& session, const std::string& node, bool undrain) {
  control::Request request;
  control::Response response;
  request.mutable_node_drain()->set_node(node);
  request.mutable_node_drain()->set_undrain(undrain);
  int code = session.ask(request, false, response);
  if (code != kDone) return code;
  const auto& moved = response.volume_list();
  if (session.json) {
    std::printf("%s", jsonText(moved).c_str());
    return kDone;
  }
  for (const auto& volume : moved.volumes()) {
    std::printf("Volume %s is led by %s now.\n", volume.name().c_str(), volume.primary().c_str());
  }
  if (undrain) {
    std::printf("Node %s may lead again; see `packmoorctl cluster balance`.\n", node.c_str());
  } else {
    std::printf("Node %s is drained: it leads nothing while another member can.\n", node.c_str());
  }
  return kDone;
}

int nodeOkToStop(const Session& session, const std::string& node) {
  control::Request request;
  control::Response response;
  request.mutable_node_ok_to_stop()->set_node(node);
  int code = session.ask(request, true, response);
  if (code != kDone) return code;
  const auto& reply = response.node_ok_to_stop();
  if (session.json) {
    std::printf("%s", jsonText(reply).c_str());
    return reply.ok() ? kDone : kRefused;
  }
  if (reply.ok()) {
    std::printf("Node %s may stop: every volume goes on without it.\n", node.c_str());
    return kDone;
  }
  std::string problems;
  for (const auto& problem : reply.problems()) problems += (problems.empty() ? "" : " ") + problem;
  printError("Node " + node + " should not stop now.", problems, "");
  return kRefused;
}

}  // namespace packmoor::ctl
