// Whole nodes: what leads them is moved, and whether they may stop.
#include "volume_control.h"

#include "control_reply.h"
#include "node_status.h"
#include "replicator/outcome.h"

#include <kj/debug.h>

#include <algorithm>

namespace packmoor::rpc {
namespace {

using control::Request;
using control::Response;
using replicator::VolumeRecord;

constexpr int kSwapsMax = 10;
constexpr int64_t kDrainWaitMs = 10'000;   // for a volume's lead to be taken by another member
constexpr int64_t kDrainRetryMs = 100;
constexpr uint64_t kLagRecordsMax = 4096;   // of a member that is taken for level

bool contains(const std::vector<std::string>& nodes, const std::string& node) {
  return std::find(nodes.begin(), nodes.end(), node) != nodes.end();
}

// A sentence when the volume, as its primary sees it, would not go on as it does without the node.
std::string problemWithout(const std::string& node, const control::VolumeStatus& volume) {
  if (volume.pair()) {
    return "Volume " + volume.name() + ": its other node would go on alone, without redundancy.";
  }
  uint32_t left = 0;
  for (const auto& member : volume.members()) {
    const bool there = member.self() || (member.connected() && member.problem().empty() &&
                                         member.lag_records() <= kLagRecordsMax);
    left += member.counted() && member.node() != node && there;
  }
  if (left >= volume.write_quorum()) return {};
  return "Volume " + volume.name() + ": a write is kept on " +
         std::to_string(volume.write_quorum()) + " members, and without " + node + " only " +
         std::to_string(left) + " would be there.";
}

}  // namespace

bool VolumeControl::isThere(const std::string& node) {
  return node == view_.config->node.id || view_.peers->peer(node).connected();
}

Co<void> VolumeControl::requireNode(std::string node) {
  auto nodes = co_await view_.coordinator->listNodes();
  const bool known = std::any_of(nodes.begin(), nodes.end(),
                                 [&](const auto& entry) { return entry.node == node; });
  KJ_REQUIRE(known, "no node of this name has registered with the coordinator", node);
}

// The node that is to lead is asked: it need not be a volume of this node.
Co<void> VolumeControl::moveLead(VolumeRecord record, std::string to) {
  if (to == view_.config->node.id) {
    auto taken = takeOverHere(record.name);
    co_await kj::mv(taken);
    co_return;
  }
  Request request;
  Response response;
  request.mutable_volume_switchover()->set_name(record.name);
  request.mutable_volume_switchover()->set_to(to);
  auto asked = ask(to, request, response);
  co_await kj::mv(asked);
  KJ_REQUIRE(!response.has_error(), "the lead of a volume could not be moved", record.name, to,
             response.error().cause());
}

Co<void> VolumeControl::moveLeadOf(std::string volume, std::string to) {
  auto reading = readVolume(volume);
  auto record = co_await kj::mv(reading);
  KJ_REQUIRE(record.current.hasMember(to), "that node is not a counted member of the volume", to);
  auto moving = moveLead(kj::mv(record), to);
  co_await kj::mv(moving);
}

Co<void> VolumeControl::setDrained(std::string name, std::string node, bool drained) {
  for (int swap = 0; swap < kSwapsMax; ++swap) {
    auto record = co_await view_.coordinator->readVolume(name);
    if (!record || record->traits.deleted || contains(record->traits.drained, node) == drained) {
      co_return;
    }
    VolumeRecord next = *record;
    std::erase(next.traits.drained, node);
    if (drained) next.traits.drained.push_back(node);
    auto stored = co_await view_.coordinator->compareAndSwap(next);
    (void)stored;  // whichever: what is there now tells
  }
  kj::throwFatalException(KJ_EXCEPTION(OVERLOADED, "the volume is being changed all the time", name));
}

std::vector<std::string> VolumeControl::successorsOf(const VolumeRecord& record,
                                                     const std::string& node,
                                                     const std::map<std::string, size_t>& leads) {
  std::vector<std::string> found;
  for (const auto& member : record.current.members) {
    if (member.node == node || contains(record.traits.drained, member.node)) continue;
    if (isThere(member.node)) found.push_back(member.node);
  }
  auto led = [&](const std::string& name) {
    auto entry = leads.find(name);
    return entry == leads.end() ? 0 : entry->second;
  };
  std::stable_sort(found.begin(), found.end(),
                   [&](const auto& a, const auto& b) { return led(a) < led(b); });
  return found;
}

// A member that has just started, or that another change is under way for, takes the lead a moment
// later: each is asked again until the time is up. Empty: `node` leads the volume no more.
Co<std::string> VolumeControl::moveAway(VolumeRecord record, std::string node,
                                        std::map<std::string, size_t>& leads) {
  const std::string name = record.name;
  const auto end = view_.env->timer.now() + kDrainWaitMs * kj::MILLISECONDS;
  for (;;) {
    const auto successors = successorsOf(record, node, leads);
    std::string problem = "no other member that is connected and not drained can lead";
    for (const std::string& to : successors) {
      auto moving = replicator::outcomeOf(moveLead(record, to));
      auto moved = co_await kj::mv(moving);
      KJ_IF_MAYBE(failure, moved) {
        problem = failure->getDescription().cStr();
        continue;
      }
      ++leads[to];
      co_return std::string();
    }
    if (successors.empty() || view_.env->timer.now() >= end) co_return problem;
    co_await view_.env->timer.afterDelay(kDrainRetryMs * kj::MILLISECONDS);
    auto now = co_await view_.coordinator->readVolume(name);
    if (!now || now->traits.deleted || now->current.primary.node != node) co_return std::string();
    record = *now;
  }
}

Co<void> VolumeControl::drain(const control::NodeDrainRequest& request, Response& response) {
  const std::string node = request.node();
  const bool drained = !request.undrain();
  response.mutable_volume_list();
  co_await requireNode(node);
  auto listing = listVolumes();
  auto records = co_await kj::mv(listing);
  std::map<std::string, size_t> leads;
  for (const VolumeRecord& record : records) ++leads[record.current.primary.node];
  std::string stays;
  for (const VolumeRecord& record : records) {
    if (!record.current.hasMember(node)) continue;
    auto marked = setDrained(record.name, node, drained);
    co_await kj::mv(marked);
    if (!drained || record.current.primary.node != node) continue;
    auto moving = moveAway(record, node, leads);
    auto problem = co_await kj::mv(moving);
    if (!problem.empty()) stays += (stays.empty() ? "" : "; ") + record.name + ": " + problem;
    auto now = co_await view_.coordinator->readVolume(record.name);
    if (now) addVolume(*now, response);
  }
  KJ_REQUIRE(stays.empty(), "these volumes are still led by it", stays);
}

Co<void> VolumeControl::okToStop(const control::NodeOkToStopRequest& request, Response& response) {
  const std::string node = request.node();
  co_await requireNode(node);
  auto listing = listVolumes();
  auto records = co_await kj::mv(listing);
  control::NodeOkToStopReply& reply = *response.mutable_node_ok_to_stop();
  for (const VolumeRecord& record : records) {
    if (!record.current.hasMember(node)) continue;
    auto problem = co_await stopProblem(record, node);
    if (!problem.empty()) reply.add_problems(problem);
  }
  reply.set_ok(reply.problems_size() == 0);
}

Co<control::NodeStatus> VolumeControl::statusOf(std::string node) {
  control::NodeStatus status;
  if (node == view_.config->node.id) {
    fillNodeStatus(view_, status);
    auto filling = fillSpace(view_, status);
    co_await kj::mv(filling);
    co_return kj::mv(status);
  }
  auto asked = view_.env->timer.timeoutAfter(
      kOtherNodeTimeoutMs * kj::MILLISECONDS,
      view_.peers->peer(node).query(replicator::VolumeId(),
                                    std::string(kStatusQuery.begin(), kStatusQuery.size()),
                                    nullptr));
  auto answered = asked.then([&status](kj::Array<kj::byte>&& answer) {
    if (!status.ParseFromArray(answer.begin(), static_cast<int>(answer.size()))) status.Clear();
  }, [](kj::Exception&&) {});
  co_await kj::mv(answered);
  co_return kj::mv(status);
}

// By what the primary says: only it knows how far the others are.
Co<std::string> VolumeControl::stopProblem(VolumeRecord record, std::string node) {
  const std::string primary = record.current.primary.node;
  control::NodeStatus status;
  if (!primary.empty()) {
    auto asking = statusOf(primary);
    status = co_await kj::mv(asking);
  }
  for (const auto& volume : status.volumes()) {
    if (volume.name() == record.name && volume.role() == "primary") {
      co_return problemWithout(node, volume);
    }
  }
  co_return "Volume " + record.name + ": its primary cannot be asked at present.";
}

}  // namespace packmoor::rpc
