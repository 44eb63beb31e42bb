#include "loss_control.h"

#include "control_reply.h"
#include "loss_report.h"
#include "node_status.h"

#include <rpc/sentence.h>

#include <kj/debug.h>

#include <algorithm>

namespace packmoor::rpc {
namespace {

using control::LostWrite;
using control::Request;
using control::Response;
using control::VolumeLostWritesReply;
using replicator::MemberIdentity;
using replicator::VolumeRecord;

constexpr size_t kAuditLinesMax = 1000;
constexpr int kSwapsMax = 10;

std::string failureOf(const Request& request) {
  switch (request.body_case()) {
    case Request::kVolumeLostWrites:
      return "What is lost of volume " + request.volume_lost_writes().name() + " cannot be told.";
    case Request::kVolumeAcceptLoss:
      return "No loss of volume " + request.volume_accept_loss().name() + " was accepted.";
    case Request::kVolumeAcknowledgeLoss:
      return "The losses of volume " + request.volume_acknowledge_loss().name() +
             " were not acknowledged.";
    default:
      return "Nothing of volume " + request.volume_discard_diverged().name() + " was discarded.";
  }
}

}  // namespace

kj::Array<kj::byte> messageBytes(const google::protobuf::MessageLite& message) {
  const std::string bytes = message.SerializeAsString();
  return kj::heapArray(reinterpret_cast<const kj::byte*>(bytes.data()), bytes.size());
}

bool LossControl::answers(const Request& request) {
  switch (request.body_case()) {
    case Request::kVolumeLostWrites:
    case Request::kVolumeAcceptLoss:
    case Request::kVolumeAcknowledgeLoss:
    case Request::kVolumeDiscardDiverged: return true;
    default: return false;
  }
}

kj::Promise<void> LossControl::handle(const Request& request, ControlCaller caller,
                                      Response& response) {
  if (view_.replicator == nullptr || view_.coordinator == nullptr || view_.git == nullptr) {
    fail(response, control::ERROR_UNREACHABLE, "The node is still starting.", "",
         "See `packmoorctl status`.");
    return kj::READY_NOW;
  }
  Co<void> work =
      request.has_volume_lost_writes()
          ? lostWrites(request.volume_lost_writes().name(), request.volume_lost_writes().promote(),
                       response)
      : request.has_volume_accept_loss() ? accept(request.volume_accept_loss(), caller, response)
      : request.has_volume_acknowledge_loss()
          ? acknowledge(request.volume_acknowledge_loss().name(), caller, response)
          : discard(request.volume_discard_diverged(), caller, response);
  return kj::mv(work).promise().catch_([&request, &response](kj::Exception&& e) {
    failFrom(e, true, failureOf(request), response);
  });
}

void LossControl::audit(const std::string& sentence) {
  notify(view_.audit, NoticeLevel::kWarning, sentence.c_str());
}

void LossControl::auditList(const VolumeLostWritesReply& reply) {
  size_t lines = 0;
  for (const LostWrite& write : reply.writes()) {
    if (++lines > kAuditLinesMax) break;
    audit("Lost of volume " + reply.volume() + ", held by " + write.held_by() + ": " + lineOf(write));
  }
  for (const auto& range : reply.ranges()) {
    audit("Lost of volume " + reply.volume() + ": records from " + std::to_string(range.first()) +
          (range.last() == 0 ? std::string(" on") : " to " + std::to_string(range.last())) + ". " +
          range.why());
  }
}

bool LossControl::confirmed(const std::string& name, const std::string& typed, std::string what,
                            Response& response) {
  if (!name.empty() && typed == name) return true;
  fail(response, control::ERROR_REFUSED, kj::mv(what), "What was typed is not the volume's name.", "");
  return false;
}

// ---- What operators order ---------------------------------------------------------------------------

Co<void> LossControl::accept(const control::VolumeAcceptLossRequest& request, ControlCaller caller,
                             Response& response) {
  const std::string what = "No loss of volume " + request.name() + " was accepted.";
  if (!confirmed(request.name(), request.confirmed(), what, response)) co_return;
  VolumeLostWritesReply list;
  auto surveyed = survey(request.name(), request.promote(), list).promise();
  co_await kj::mv(surveyed);
  if (!list.beyond_repair()) {
    fail(response, control::ERROR_REFUSED, what, list.state(), "");
    co_return;
  }
  if (list.keep_size() == 0) {
    fail(response, control::ERROR_REFUSED, what, "No member that answers is whole. " + list.state(),
         "See `packmoorctl volume lost-writes " + request.name() + "`.");
    co_return;
  }
  if (request.revision() != list.revision()) {
    fail(response, control::ERROR_REFUSED, what,
         "The volume has changed since its losses were shown.",
         "Look at `packmoorctl volume lost-writes " + request.name() + "` again.");
    co_return;
  }
  control::VolumeAcceptLossRequest order = request;
  order.set_by("user id " + std::to_string(caller.uid) + " on " + view_.config->node.id);
  order.set_what(summaryOf(list));
  order.set_as_is(list.as_is());
  for (const std::string& node : list.keep()) order.add_keep(node);
  std::string names;
  for (const std::string& node : list.ignore()) names += (names.empty() ? "" : ", ") + node;
  audit("Accepting the loss of volume " + list.volume() + " without " + names + ", ordered by " +
        order.by() + ": it goes on from record " + std::to_string(list.keeps_up_to()) + " on " +
        list.leader() + ". " + order.what());
  auditList(list);
  if (list.leader() == view_.config->node.id) {
    auto done = carryOut(order, response).promise();
    co_await kj::mv(done);
  } else {
    Request forwarded;
    *forwarded.mutable_volume_accept_loss() = order;
    auto asked = view_.peers->peer(list.leader())
                     .query(replicator::VolumeId(),
                            std::string(kControlQuery.begin(), kControlQuery.size()),
                            messageBytes(forwarded));
    auto answer = co_await kj::mv(asked);
    const uint64_t id = response.id();
    KJ_REQUIRE(response.ParseFromArray(answer.begin(), static_cast<int>(answer.size())),
               "the member that is to lead answered what this node does not understand");
    response.set_id(id);
  }
  if (response.has_error()) {
    audit("The loss of volume " + list.volume() + " was not accepted: " + response.error().cause());
    co_return;
  }
  const std::string done = "Volume " + list.volume() + " goes on from record " +
                           std::to_string(list.keeps_up_to()) + ", led by " + list.leader() + ".";
  audit("The loss was accepted. " + done);
  list.set_done(done);
  *response.mutable_volume_lost_writes() = list;
}

kj::Promise<void> LossControl::acceptHere(const control::VolumeAcceptLossRequest& request,
                                          Response& response) {
  audit("Accepting the loss of volume " + request.name() + ", ordered by " + request.by() + ". " +
        request.what());
  return carryOut(request, response).promise();
}

Co<void> LossControl::carryOut(control::VolumeAcceptLossRequest request, Response& response) {
  KJ_REQUIRE(view_.replicator != nullptr && view_.coordinator != nullptr,
             "the node is still starting");
  auto record = co_await recordOf(request.name());
  replicator::LossOrder order;
  order.revision = request.revision();
  order.by = request.by();
  order.what = request.what();
  order.asIs = request.as_is();
  auto keeps = [&](const std::string& node) {
    return std::find(request.keep().begin(), request.keep().end(), node) != request.keep().end();
  };
  const auto& last = record.lastActive ? *record.lastActive : record.current;
  for (const MemberIdentity& member : last.members) {
    (keeps(member.node) ? order.kept : order.ignored).push_back(member);
  }
  for (const MemberIdentity& member : last.async) {
    if (keeps(member.node)) order.kept.push_back(member);
  }
  auto open = view_.replicator->findVolume(request.name().c_str());
  KJ_IF_MAYBE(volume, open) {
    auto accepted = volume->acceptLoss(kj::mv(order));
    co_await kj::mv(accepted);
  } else {
    KJ_FAIL_REQUIRE("the volume is not open on the node that is to lead it");
  }
  response.mutable_volume_lost_writes();
}

Co<void> LossControl::acknowledge(std::string name, ControlCaller caller, Response& response) {
  for (int swap = 0; swap < kSwapsMax; ++swap) {
    auto record = co_await recordOf(name);
    VolumeRecord next = record;
    size_t open = 0;
    for (auto& loss : next.losses) {
      open += !loss.acknowledged;
      loss.acknowledged = true;
    }
    if (open == 0 && swap == 0) {
      fail(response, control::ERROR_REFUSED, "Nothing was acknowledged.",
           "Volume " + name + " has no accepted loss that status tells.", "");
      co_return;
    }
    if (open == 0) {
      audit("The losses of volume " + name + " are acknowledged by user id " +
            std::to_string(caller.uid) + ".");
      fillVolumeRecord(record, *response.mutable_volume_list()->add_volumes());
      co_return;
    }
    auto stored = co_await view_.coordinator->compareAndSwap(next);
    (void)stored;  // whichever: what is there now tells
  }
  kj::throwFatalException(KJ_EXCEPTION(OVERLOADED, "the volume is being changed all the time"));
}

// What only this node holds is written to the audit log before it is let go.
Co<void> LossControl::discard(const control::VolumeDiscardDivergedRequest& request,
                              ControlCaller caller, Response& response) {
  const std::string what = "Nothing of volume " + request.name() + " was discarded.";
  if (!confirmed(request.name(), request.confirmed(), what, response)) co_return;
  auto open = view_.replicator->findVolume(request.name().c_str());
  KJ_IF_MAYBE(volume, open) {
    if (!volume->logKnowledge().diverged) {
      fail(response, control::ERROR_REFUSED, what, "The copy of this node is not diverged.", "");
      co_return;
    }
    VolumeLostWritesReply list;
    auto surveyed = survey(request.name(), "", list).promise();
    co_await kj::mv(surveyed);
    audit("Discarding the diverged copy of volume " + request.name() + " on this node, ordered by "
          "user id " + std::to_string(caller.uid) + ".");
    auditList(list);
    auto discarded = volume->discardDiverged();
    co_await kj::mv(discarded);
    list.set_done("The diverged copy of volume " + request.name() + " is discarded. This node begins "
                  "anew as an empty member, and is counted when it has caught up.");
    *response.mutable_volume_lost_writes() = list;
  } else {
    fail(response, control::ERROR_REFUSED, what, "The volume is not open on this node.",
         "Ask the node whose copy is diverged.");
  }
}

}  // namespace packmoor::rpc
