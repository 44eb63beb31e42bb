#include "volume_control.h"

#include "control_reply.h"
#include "node_status.h"

#include <replicator/lead_balance.h>

#include <kj/debug.h>

#include <algorithm>

namespace packmoor::rpc {
namespace {

using control::Request;
using control::Response;
using control::VolumeChangeRequest;
using replicator::ConfigurationChange;
using replicator::VolumeRecord;

constexpr uint32_t kWeightMax = 1'000'000;
constexpr int kSwapsMax = 10;
constexpr size_t kMovesPerVolumeMax = 4;
constexpr int64_t kLetGoMs = 5000, kLetGoPollMs = 20;

std::string failureOf(const Request& request) {
  switch (request.body_case()) {
    case Request::kVolumeChange: return "Volume " + request.volume_change().name() + " was not changed.";
    case Request::kVolumeSetWeight:
      return "The weight of volume " + request.volume_set_weight().name() + " was not changed.";
    case Request::kVolumeDelete:
      return "Volume " + request.volume_delete().name() + " was not deleted.";
    case Request::kNodeDrain: return "The leads of " + request.node_drain().node() + " were not all moved.";
    case Request::kNodeOkToStop:
      return "Whether " + request.node_ok_to_stop().node() + " may stop cannot be told.";
    default: return "The leads were not moved.";
  }
}

bool changeFrom(const VolumeChangeRequest& request, ConfigurationChange& change) {
  using Kind = ConfigurationChange::Kind;
  change.node = request.node();
  change.writeQuorum = request.write_quorum();
  switch (request.kind()) {
    case VolumeChangeRequest::KIND_ADD_MEMBER: change.kind = Kind::kAddMember; return true;
    case VolumeChangeRequest::KIND_ADD_ASYNC: change.kind = Kind::kAddAsync; return true;
    case VolumeChangeRequest::KIND_REMOVE_MEMBER: change.kind = Kind::kRemove; return true;
    case VolumeChangeRequest::KIND_SET_QUORUM: change.kind = Kind::kSetQuorum; return true;
    case VolumeChangeRequest::KIND_PROMOTE: change.kind = Kind::kPromote; return true;
    default: return false;
  }
}

}  // namespace

bool VolumeControl::answers(const Request& request) {
  switch (request.body_case()) {
    case Request::kVolumeChange:
    case Request::kVolumeDelete:
    case Request::kVolumeSetWeight:
    case Request::kNodeDrain:
    case Request::kNodeOkToStop:
    case Request::kClusterBalance: return true;
    default: return false;
  }
}

kj::Promise<void> VolumeControl::handle(const Request& request, Response& response) {
  if (view_.replicator == nullptr || view_.coordinator == nullptr) {
    fail(response, control::ERROR_UNREACHABLE, "The node is still starting.", "",
         "See `packmoorctl status`.");
    return kj::READY_NOW;
  }
  Co<void> work = request.has_volume_change() || request.has_volume_delete()
                      ? atPrimary(request, true, response)
                  : request.has_volume_set_weight()
                      ? setWeight(request.volume_set_weight(), response)
                  : request.has_node_drain() ? drain(request.node_drain(), response)
                  : request.has_node_ok_to_stop() ? okToStop(request.node_ok_to_stop(), response)
                      : balance(response);
  return kj::mv(work).promise().catch_([&request, &response](kj::Exception&& e) {
    failFrom(e, true, failureOf(request), response);
  });
}

void VolumeControl::addVolume(const VolumeRecord& record, Response& response) {
  control::VolumeStatus& to = *response.mutable_volume_list()->add_volumes();
  auto open = view_.replicator->findVolume(record.name.c_str());
  KJ_IF_MAYBE(volume, open) {
    fillVolume(volume->status(), to);
    const kj::StringPtr phase = phaseText(record.phase);
    to.set_phase(std::string(phase.begin(), phase.size()));
  } else {
    fillVolumeRecord(record, to);
  }
}

Co<std::vector<VolumeRecord>> VolumeControl::listVolumes() {
  auto records = co_await view_.coordinator->listVolumes();
  std::erase_if(records, [](const VolumeRecord& record) { return record.traits.deleted; });
  co_return kj::mv(records);
}

Co<VolumeRecord> VolumeControl::readVolume(std::string name) {
  auto record = co_await view_.coordinator->readVolume(name);
  KJ_REQUIRE(record.has_value() && !record->traits.deleted, "there is no volume of this name", name);
  co_return kj::mv(*record);
}

// ---- Members ---------------------------------------------------------------------------------

// Empty: nobody, as known here.
Co<std::string> VolumeControl::primaryOf(std::string name) {
  auto open = view_.replicator->findVolume(name.c_str());
  KJ_IF_MAYBE(volume, open) {
    auto status = volume->status();
    if (status.role == replicator::VolumeRole::kPrimary) co_return view_.config->node.id;
    if (status.primary != view_.config->node.id && !status.primary.empty()) co_return status.primary;
  }
  auto reading = readVolume(name);
  auto record = co_await kj::mv(reading);
  co_return record.lastActive ? record.lastActive->primary.node : record.current.primary.node;
}

Co<void> VolumeControl::atPrimary(const Request& request, bool forward, Response& response) {
  const bool deletes = request.has_volume_delete();
  const std::string name = deletes ? request.volume_delete().name() : request.volume_change().name();
  auto asking = primaryOf(name).promise().catch_([](kj::Exception&& e) -> std::string {
    if (e.getType() == kj::Exception::Type::DISCONNECTED) {  // nothing was changed
      kj::throwFatalException(kj::Exception(kj::Exception::Type::OVERLOADED, e.getFile(), e.getLine(),
                                            kj::heapString(e.getDescription())));
    }
    kj::throwFatalException(kj::mv(e));
  });
  auto primary = co_await kj::mv(asking);
  if (primary.empty()) {
    fail(response, control::ERROR_NO_QUORUM, failureOf(request),
         "Nobody leads the volume at present.", "See `packmoorctl status` for what is missing.");
    co_return;
  }
  if (primary != view_.config->node.id) {
    KJ_REQUIRE(forward, "the lead of the volume moved meanwhile; try again");
    auto answered = ask(primary, request, response);
    co_await kj::mv(answered);
    co_return;
  }
  auto open = view_.replicator->findVolume(name.c_str());
  KJ_IF_MAYBE(volume, open) {
    auto work = deletes ? deleteHere(*volume, response)
                        : changeHere(*volume, request.volume_change(), response);
    co_await kj::mv(work);
  } else {
    KJ_FAIL_REQUIRE("the volume is not open yet on the node that is to lead it");
  }
}

Co<void> VolumeControl::deleteHere(replicator::Volume& volume, Response& response) {
  const std::string name = volume.name(), id = volume.id().text().cStr();
  fillVolume(volume.status(), *response.mutable_volume_list()->add_volumes());
  auto deleted = volume.deleteForGood();
  co_await kj::mv(deleted);
  notify(view_.audit, NoticeLevel::kWarning,
         kj::str("Volume ", name.c_str(), " (", id.c_str(), "), which held nothing, was deleted."));
  // Its name may be used again when this node has let go of it.
  for (int64_t waitedMs = 0; waitedMs < kLetGoMs; waitedMs += kLetGoPollMs) {
    if (view_.replicator->findVolume(name.c_str()) == nullptr) break;
    co_await view_.env->timer.afterDelay(kLetGoPollMs * kj::MILLISECONDS);
  }
}

Co<void> VolumeControl::changeHere(replicator::Volume& volume, const VolumeChangeRequest& request,
                                   Response& response) {
  ConfigurationChange change;
  if (!changeFrom(request, change)) {
    fail(response, control::ERROR_BAD_REQUEST, "The daemon does not know this change.",
         "It is of another version than the client.", "");
    co_return;
  }
  const bool joins = change.kind == ConfigurationChange::Kind::kAddMember ||
                     change.kind == ConfigurationChange::Kind::kPromote;
  auto changed = volume.changeConfiguration(change);
  co_await kj::mv(changed);
  if (joins && request.wait_ms() > 0) {
    auto counted = volume.whenCounted(change.node, request.wait_ms());
    co_await kj::mv(counted);  // else it goes on by itself, and the reply says so
  }
  auto reading = readVolume(volume.name());
  auto record = co_await kj::mv(reading);
  addVolume(record, response);
}

Co<void> VolumeControl::ask(std::string node, const Request& request, Response& response) {
  const std::string bytes = request.SerializeAsString();
  auto question = kj::heapArray(reinterpret_cast<const kj::byte*>(bytes.data()), bytes.size());
  auto asked = view_.peers->peer(node).query(
      replicator::VolumeId(), std::string(kControlQuery.begin(), kControlQuery.size()),
      kj::mv(question));
  auto answer = co_await kj::mv(asked);
  const uint64_t id = response.id();
  KJ_REQUIRE(response.ParseFromArray(answer.begin(), static_cast<int>(answer.size())),
             "the primary answered what this node does not understand", node);
  response.set_id(id);
}

kj::Promise<kj::Array<kj::byte>> VolumeControl::answerForwarded(
    kj::Array<const kj::byte> question) {
  return forwarded(kj::mv(question)).promise();
}

Co<kj::Array<kj::byte>> VolumeControl::forwarded(kj::Array<const kj::byte> question) {
  Request request;
  Response response;
  KJ_REQUIRE(request.ParseFromArray(question.begin(), static_cast<int>(question.size())) &&
                 (request.has_volume_change() || request.has_volume_delete() ||
                  request.has_volume_switchover() || request.has_volume_accept_loss()),
             "another node asked what this one does not know");
  KJ_REQUIRE(view_.replicator != nullptr && view_.coordinator != nullptr,
             "the node is still starting");
  auto asked = request.has_volume_switchover()
                   ? takeOverHere(request.volume_switchover().name())
               : request.has_volume_accept_loss()
                   ? losses_.acceptHere(request.volume_accept_loss(), response)
                   : atPrimary(request, false, response).promise();
  auto work = asked.catch_(
      [&request, &response](kj::Exception&& e) {
    failFrom(e, true, failureOf(request), response);
  });
  co_await kj::mv(work);
  const std::string bytes = response.SerializeAsString();
  co_return kj::heapArray(reinterpret_cast<const kj::byte*>(bytes.data()), bytes.size());
}

// ---- Many volumes ------------------------------------------------------------------------------

Co<void> VolumeControl::setWeight(const control::VolumeSetWeightRequest& request,
                                  Response& response) {
  const std::string name = request.name();
  const uint32_t weight = request.weight();
  KJ_REQUIRE(weight <= kWeightMax, "a weight is at most 1000000", weight);
  for (int swap = 0; swap < kSwapsMax; ++swap) {
    auto reading = readVolume(name);
    auto next = co_await kj::mv(reading);
    if (next.traits.weight == weight) {
      fillVolumeRecord(next, *response.mutable_volume_list()->add_volumes());
      co_return;
    }
    next.traits.weight = weight;
    auto stored = co_await view_.coordinator->compareAndSwap(next);
    (void)stored;  // whichever: what is there now tells
  }
  kj::throwFatalException(KJ_EXCEPTION(OVERLOADED, "the volume is being changed all the time"));
}

// One move after another, while any makes the leads more equal.
Co<void> VolumeControl::balance(Response& response) {
  response.mutable_volume_list();
  auto listing = listVolumes();
  auto records = co_await kj::mv(listing);
  // Each move lessens the difference, so there are not many.
  for (size_t moves = 0; moves < kMovesPerVolumeMax * records.size(); ++moves) {
    auto move = replicator::nextLeadMove(
        records, [this](const std::string& node) { return isThere(node); });
    if (!move.has_value()) co_return;
    auto found = std::find_if(records.begin(), records.end(), [&](const VolumeRecord& record) {
      return record.name == move->volume;
    });
    auto moved = moveLead(*found, move->to);
    co_await kj::mv(moved);
    auto reading = readVolume(move->volume);
    *found = co_await kj::mv(reading);
    addVolume(*found, response);
    // Whatever became of it since: it is moved once.
    found->current.primary.node = move->to;
    found->phase = replicator::VolumePhase::kActive;
  }
}

kj::Promise<void> VolumeControl::takeOverHere(const std::string& name) {
  auto open = view_.replicator->findVolume(name.c_str());
  KJ_IF_MAYBE(volume, open) { return volume->takeOver(); }
  return KJ_EXCEPTION(OVERLOADED, "the volume is not open yet on this node", name);
}

}  // namespace packmoor::rpc
