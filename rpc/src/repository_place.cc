// What placement needs to know of this node's volumes, and of the room on their members' disks.
#include "volume_control.h"

#include "node_status.h"
#include "placement.h"

#include <map>

namespace packmoor::rpc {

namespace {

void addRoom(const control::NodeStatus& status, PlacementVolume& volume) {
  if (status.disk_total_bytes() == 0) return;  // it did not answer
  if (volume.availableBytes.has_value() && *volume.availableBytes <= status.disk_available_bytes()) {
    return;
  }
  volume.availableBytes = status.disk_available_bytes();
  volume.totalBytes = status.disk_total_bytes();
}

}  // namespace

Co<std::string> VolumeControl::placeRepository() {
  if (view_.replicator == nullptr || view_.git == nullptr) co_return std::string();
  std::vector<PlacementVolume> volumes;
  std::vector<std::vector<std::string>> members;
  std::map<std::string, control::NodeStatus> nodes;
  for (replicator::Volume* volume : view_.replicator->volumes()) {
    const auto status = volume->status();
    if (status.role == replicator::VolumeRole::kNone) continue;  // it is not this node's any more
    PlacementVolume& to = volumes.emplace_back();
    members.emplace_back();
    to.name = status.name;
    to.weight = status.traits.weight;
    to.repositories = view_.git->repositoryCountOf(*volume);
    to.writeQuorum = status.writeQuorum;
    for (const auto& member : status.members) {
      if (!member.counted) continue;
      const bool there = member.isSelf || member.connected;
      to.connected += there && member.problem.empty();
      if (there) members.back().push_back(member.node);
      if (there) nodes[member.node];
    }
  }
  for (auto& [node, status] : nodes) {
    auto asking = statusOf(node);
    status = co_await kj::mv(asking);
  }
  for (size_t i = 0; i < volumes.size(); ++i) {
    for (const std::string& node : members[i]) addRoom(nodes[node], volumes[i]);
  }
  co_return rpc::placeRepository(volumes);
}

}  // namespace packmoor::rpc
