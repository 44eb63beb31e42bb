// packmoorctl volume: verbs about loss that cannot be repaired.
#include "commands.h"

#include <rpc/control.pb.h>

#include <cstdio>
#include <iostream>

namespace packmoor::ctl {
namespace {

using control::VolumeLostWritesReply;

std::string joined(const google::protobuf::RepeatedPtrField<std::string>& names) {
  std::string text;
  for (const std::string& name : names) text += (text.empty() ? "" : ", ") + name;
  return text.empty() ? "nobody" : text;
}

std::string shortId(const std::string& id) { return id.empty() ? "(none)" : id.substr(0, 12); }

void printWrite(const control::LostWrite& write) {
  std::printf("  record %s  %s", countText(write.index()).c_str(), plain(write.what()).c_str());
  if (!write.repository().empty()) std::printf(" in %s", plain(write.repository()).c_str());
  if (write.what() == "push") {
    std::printf(" by %s", write.pusher().empty() ? "somebody anonymous" : plain(write.pusher()).c_str());
  }
  if (!write.client().empty()) std::printf(" from %s", plain(write.client()).c_str());
  if (write.time_ms() > 0) std::printf(" at %s", timeText(write.time_ms()).c_str());
  std::printf("\n");
  for (const auto& ref : write.refs()) {
    std::printf("      %s %s -> %s\n", plain(ref.name()).c_str(), shortId(ref.old_id()).c_str(),
                ref.new_id().empty() ? "(deleted)" : shortId(ref.new_id()).c_str());
  }
  for (const std::string& option : write.push_options()) {
    std::printf("      option %s\n", plain(option).c_str());
  }
  std::printf("      held by %s. %s\n", write.held_by().c_str(), plain(write.why()).c_str());
}

void printList(const VolumeLostWritesReply& reply) {
  std::printf("Volume %s. %s\n", reply.volume().c_str(), plain(reply.state()).c_str());
  Table table({"MEMBER", "COUNTED", "STATE", ">LAST RECORD", ">OF EPOCH", ">TOLD COMMITTED", "PROBLEM"});
  for (const auto& member : reply.members()) {
    table.row({member.node(), member.counted() ? "yes" : "no",
               !member.reachable()  ? "away"
               : member.diverged()  ? "diverged"
               : member.whole()     ? "whole"
                                    : "damaged",
               member.reachable() ? countText(member.last()) : "-",
               member.reachable() ? countText(member.last_epoch()) : "-",
               member.reachable() ? countText(member.announced()) : "-", plain(member.problem())});
  }
  std::printf("%s", table.text().c_str());
  if (reply.writes_size() > 0) std::printf("\nRecords that are lost, as far as they are known:\n");
  for (const auto& write : reply.writes()) printWrite(write);
  if (reply.writes_left_off() > 0) {
    std::printf("  and %s more\n", countText(reply.writes_left_off()).c_str());
  }
  for (const auto& range : reply.ranges()) {
    if (range.last() == 0) {
      std::printf("\nRecords from %s on: %s\n", countText(range.first()).c_str(),
                  plain(range.why()).c_str());
    } else {
      std::printf("\nRecords %s to %s: %s\n", countText(range.first()).c_str(),
                  countText(range.last()).c_str(), plain(range.why()).c_str());
    }
  }
  for (const auto& loss : reply.losses()) {
    std::printf("\nAccepted at %s by %s: it went on from record %s with %s, without %s. %s\n",
                timeText(loss.at_ms()).c_str(), plain(loss.by()).c_str(),
                countText(loss.adopted()).c_str(), joined(loss.kept()).c_str(),
                joined(loss.ignored()).c_str(), plain(loss.what()).c_str());
  }
  if (reply.beyond_repair() && reply.keep_size() > 0) {
    std::printf("\n`packmoorctl volume accept-loss %s` would go on from record %s with %s, led by %s, and "
                "without %s.\n", reply.volume().c_str(), countText(reply.keeps_up_to()).c_str(),
                joined(reply.keep()).c_str(), reply.leader().c_str(), joined(reply.ignore()).c_str());
    if (reply.as_is()) {
      std::printf("No copy is whole: that of %s is damaged, and would be taken as it is.\n",
                  reply.leader().c_str());
    }
  } else if (reply.beyond_repair()) {
    std::printf("\nNo member that answers is whole: nothing can be accepted.\n");
  } else if (reply.writes_size() == 0) {
    std::printf("\nNothing is known to be lost.\n");
  }
}

int list(const Session& session, const std::string& name, const std::string& promote,
         VolumeLostWritesReply& reply) {
  control::Request request;
  control::Response response;
  request.mutable_volume_lost_writes()->set_name(name);
  request.mutable_volume_lost_writes()->set_promote(promote);
  int code = session.ask(request, true, response);
  if (code == kDone) reply = response.volume_lost_writes();
  return code;
}

// What was typed; with `given` nothing is asked.
std::string typedName(const std::string& given, const std::string& name, const char* question) {
  if (!given.empty()) return given;
  std::printf("\n%s To go on, type the volume's name, %s: ", question, name.c_str());
  std::fflush(stdout);
  std::string typed;
  std::getline(std::cin, typed);
  return typed;
}

bool mayAsk(const Session& session, const std::string& given) {
  if (!given.empty() || !session.json) return true;
  printError("With --json the volume's name must be given again.", "", "--yes-i-lose-data VOLUME");
  return false;
}

int finish(const Session& session, const control::Response& response) {
  if (session.json) {
    std::printf("%s", jsonText(response.volume_lost_writes()).c_str());
  } else {
    std::printf("%s\n", plain(response.volume_lost_writes().done()).c_str());
  }
  return kDone;
}

int acceptListed(const Session& session, const LossArguments& arguments,
                 const VolumeLostWritesReply& shown) {
  if (!shown.beyond_repair() || shown.keep_size() == 0) {
    printError("No loss of volume " + arguments.name + " was accepted.", shown.state(), "");
    return kRefused;
  }
  control::Request request;
  control::Response response;
  auto& body = *request.mutable_volume_accept_loss();
  body.set_confirmed(typedName(arguments.confirmed, arguments.name,
                               "All of this, and whatever else those that are left out hold, will be "
                               "no part of the volume any more."));
  body.set_name(arguments.name);
  body.set_promote(arguments.node);
  body.set_revision(shown.revision());
  int code = session.ask(request, false, response);
  return code == kDone ? finish(session, response) : code;
}

}  // namespace

int volumeLostWrites(const Session& session, const LossArguments& arguments) {
  VolumeLostWritesReply reply;
  int code = list(session, arguments.name, "", reply);
  if (code != kDone) return code;
  if (session.json) std::printf("%s", jsonText(reply).c_str());
  else printList(reply);
  return kDone;
}

int volumeAcceptLoss(const Session& session, const LossArguments& arguments) {
  if (!mayAsk(session, arguments.confirmed)) return kUsage;
  VolumeLostWritesReply shown;
  int code = list(session, arguments.name, arguments.node, shown);
  if (code != kDone) return code;
  if (!session.json) printList(shown);
  return acceptListed(session, arguments, shown);
}

int volumeAcknowledgeLoss(const Session& session, const LossArguments& arguments) {
  control::Request request;
  control::Response response;
  request.mutable_volume_acknowledge_loss()->set_name(arguments.name);
  int code = session.ask(request, false, response);
  if (code != kDone) return code;
  if (session.json) {
    std::printf("%s", jsonText(response.volume_list().volumes(0)).c_str());
  } else {
    std::printf("The losses of volume %s are acknowledged; `packmoorctl volume lost-writes %s` still "
                "tells them.\n", arguments.name.c_str(), arguments.name.c_str());
  }
  return kDone;
}

int volumeDiscardDiverged(const Session& session, const LossArguments& arguments) {
  if (!mayAsk(session, arguments.confirmed)) return kUsage;
  VolumeLostWritesReply shown;
  int code = list(session, arguments.name, "", shown);
  if (code != kDone) return code;
  if (!session.json) printList(shown);
  control::Request request;
  control::Response response;
  auto& body = *request.mutable_volume_discard_diverged();
  body.set_name(arguments.name);
  body.set_confirmed(typedName(arguments.confirmed, arguments.name,
                               "This node's diverged copy, of which there may be no other, will be "
                               "removed."));
  code = session.ask(request, false, response);
  return code == kDone ? finish(session, response) : code;
}

// An async standby of a volume that nobody can lead: what that loses is shown first.
bool promotionLoses(const Session& session, const LossArguments& arguments, int& code) {
  VolumeLostWritesReply shown;
  if (list(session, arguments.name, arguments.node, shown) != kDone || !shown.beyond_repair()) {
    return false;  // an ordinary change; what is wrong with it, that says
  }
  code = kUsage;
  if (!mayAsk(session, arguments.confirmed)) return true;
  if (!session.json) printList(shown);
  code = acceptListed(session, arguments, shown);
  return true;
}

}  // namespace packmoor::ctl
