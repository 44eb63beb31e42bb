#include "commands.h"

#include <rpc/control.pb.h>

#include <cstdio>

namespace packmoor::ctl {
namespace {

std::string memberNames(const control::VolumeStatus& volume) {
  std::string names;
  for (const auto& member : volume.members()) {
    names += (names.empty() ? "" : ",") + member.node() + (member.counted() ? "" : " (async)");
  }
  return names;
}

int countedMembers(const control::VolumeStatus& volume) {
  int counted = 0;
  for (const auto& member : volume.members()) counted += member.counted();
  return counted;
}

void printVolumeTable(const control::VolumeListReply& reply) {
  Table table({"VOLUME", "STATE", "PRIMARY", ">EPOCH", "QUORUM", "MEMBERS", ">COMMITTED", "PROBLEM"});
  for (const auto& volume : reply.volumes()) {
    table.row({volume.name(), volume.phase().empty() ? "unknown" : volume.phase(),
               volume.primary().empty() ? "none" : volume.primary(), countText(volume.epoch()),
               std::to_string(volume.write_quorum()) + " of " +
                   std::to_string(countedMembers(volume)),
               memberNames(volume), volume.open_here() ? countText(volume.committed()) : "-",
               volume.problem()});
  }
  std::printf("%s", table.text().c_str());
}

void printTransfer(const control::TransferStatus& transfer) {
  std::printf("  transfer     %s the state at record %s from %s, for %s s\n",
              transfer.phase().c_str(), countText(transfer.position()).c_str(),
              transfer.source().empty() ? "nobody" : transfer.source().c_str(),
              countText(transfer.seconds()).c_str());
  std::printf("               files %s of %s (%s of %s), packs %s of %s (%s of %s)\n",
              countText(transfer.files_done()).c_str(), countText(transfer.files()).c_str(),
              bytesText(transfer.file_bytes_done()).c_str(),
              bytesText(transfer.file_bytes()).c_str(), countText(transfer.extents_done()).c_str(),
              countText(transfer.extents()).c_str(),
              bytesText(transfer.extent_bytes_done()).c_str(),
              bytesText(transfer.extent_bytes()).c_str());
  std::printf("               fetched %s, %s a second, %s blocks again\n",
              bytesText(transfer.bytes_fetched()).c_str(),
              bytesText(transfer.bytes_per_second()).c_str(),
              countText(transfer.blocks_refetched()).c_str());
  if (!transfer.problem().empty()) {
    std::printf("               last attempt: %s\n", plain(transfer.problem()).c_str());
  }
}

void printVolume(const control::VolumeStatus& volume) {
  std::printf("Volume %s\n", volume.name().c_str());
  std::printf("  id           %s\n", volume.id().c_str());
  std::printf("  state        %s\n", volume.phase().empty() ? "unknown" : volume.phase().c_str());
  std::printf("  primary      %s\n", volume.primary().empty() ? "none" : volume.primary().c_str());
  std::printf("  epoch        %s (%s promised)\n", countText(volume.epoch()).c_str(),
              countText(volume.promised()).c_str());
  std::printf("  quorum       a write is kept on %u of %d members\n", volume.write_quorum(),
              countedMembers(volume));
  if (volume.pair()) std::printf("  pair         one goes on alone while the other is lost\n");
  std::printf("  weight       %u\n", volume.weight());
  if (!volume.problem().empty()) std::printf("  problem      %s\n", plain(volume.problem()).c_str());
  if (!volume.open_here()) {
    std::printf("  here         this node is not a member\n");
  } else {
    std::printf("  here         %s; records %s to %s, durable %s, committed %s, applied %s, "
                "checkpoint %s\n",
                volume.role().c_str(), countText(volume.base() + 1).c_str(),
                countText(volume.last()).c_str(), countText(volume.durable()).c_str(),
                countText(volume.committed()).c_str(), countText(volume.applied()).c_str(),
                countText(volume.checkpoint()).c_str());
    std::printf("  work         %s proposals, %s rejected, %s reads confirmed in %s rounds\n",
                countText(volume.proposals()).c_str(), countText(volume.rejections()).c_str(),
                countText(volume.read_barriers()).c_str(),
                countText(volume.confirm_rounds()).c_str());
  }
  if (volume.has_transfer()) printTransfer(volume.transfer());
  if (volume.has_brake()) {
    std::printf("  slowed down  member %s lags %s; at most %s a second are ordered until it is nearer\n",
                volume.brake().member().c_str(), bytesText(volume.brake().lag_bytes()).c_str(),
                bytesText(volume.brake().bytes_per_second()).c_str());
  }
  bool primary = volume.role() == "primary";
  Table table({"MEMBER", "STATE", "COUNTED", ">DURABLE", ">BEHIND", ">BYTES", ">SECONDS", "PROBLEM"});
  for (const auto& member : volume.members()) {
    std::string state = member.self() ? "this node" : member.connected() ? "connected" : "away";
    if (!volume.open_here()) state = "-";
    table.row({member.node(), state, member.counted() ? "yes" : member.joining() ? "when level" : "no",
               primary ? countText(member.acknowledged()) : "-",
               primary ? countText(member.lag_records()) : "-",
               primary ? bytesText(member.lag_bytes()) : "-",
               primary ? secondsText(member.lag_ms()) : "-", member.problem()});
  }
  std::printf("%s", table.text().c_str());
}

}  // namespace

int volumeList(const Session& session) {
  control::Request request;
  control::Response response;
  request.mutable_volume_list();
  int code = session.ask(request, true, response);
  if (code != kDone) return code;
  if (session.json) {
    std::printf("%s", jsonText(response.volume_list()).c_str());
  } else if (response.volume_list().volumes_size() == 0) {
    std::printf("There are no volumes. Make one with `packmoorctl volume create main --members "
                "n1,n2,n3 --write-quorum 2`.\n");
  } else {
    printVolumeTable(response.volume_list());
  }
  return kDone;
}

int volumeShow(const Session& session, const std::string& name) {
  control::Request request;
  control::Response response;
  request.mutable_volume_show()->set_name(name);
  int code = session.ask(request, true, response);
  if (code != kDone) return code;
  if (session.json) std::printf("%s", jsonText(response.volume_list().volumes(0)).c_str());
  else printVolume(response.volume_list().volumes(0));
  return kDone;
}

int volumeSwitchover(const Session& session, const std::string& name, const std::string& to) {
  control::Request request;
  control::Response response;
  auto& body = *request.mutable_volume_switchover();
  body.set_name(name);
  body.set_to(to);
  int code = session.ask(request, false, response);
  if (code != kDone) return code;
  if (session.json) {
    std::printf("%s", jsonText(response.volume_list().volumes(0)).c_str());
    return kDone;
  }
  const auto& volume = response.volume_list().volumes(0);
  std::printf("Volume %s is led by %s in epoch %s.\n", name.c_str(), volume.primary().c_str(),
              countText(volume.epoch()).c_str());
  return kDone;
}

int volumeVerify(const Session& session, const std::string& name) {
  control::Request request;
  control::Response response;
  request.mutable_volume_verify()->set_name(name);
  int code = session.ask(request, false, response);
  if (code != kDone) return code;
  const auto& reply = response.volume_verify();
  if (session.json) {
    std::printf("%s", jsonText(reply).c_str());
    return reply.equal() ? kDone : kRefused;
  }
  Table table({"MEMBER", ">RECORD", ">REFS", ">REPOSITORIES", ">OBJECTS", "REFS ROOT",
               "REPOSITORIES ROOT", "OBJECTS ROOT", "PROBLEM"});
  for (const auto& member : reply.members()) {
    table.row({member.node(), countText(member.index()), countText(member.ref_count()),
               countText(member.repository_count()), countText(member.object_count()),
               member.refs().substr(0, 16), member.repositories().substr(0, 16),
               member.objects().substr(0, 16), member.problem()});
  }
  std::printf("%s", table.text().c_str());
  if (reply.equal()) {
    std::printf("Volume %s: all %d members are equal.\n", name.c_str(), reply.members_size());
    return kDone;
  }
  printError("The members of volume " + name + " were not shown to be equal.",
             "A member did not answer, or its roots differ; see the table.", "");
  return kRefused;
}

}  // namespace packmoor::ctl
