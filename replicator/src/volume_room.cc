// What a member does whose disk is short of room (disk_room.h).
//
// A primary gives the lead to a member that has room: the one that is asked refuses when it has none
// either, so the lead does not go to and fro. When all are short, the lead stays where it is, for
// reads, and as long as there is anything left, for pushes; then they are refused, and go on by
// themselves when there is room.
#include "volume_impl.h"

#include <kj/debug.h>

#include <algorithm>

namespace packmoor::replicator {

namespace {
// Between attempts to give the lead away. Doubles.
constexpr int64_t kPauseMsFirst = 500, kPauseMsLast = 10'000;
}  // namespace

bool VolumeImpl::shortOfRoom() {
  return parts_.room.isShort() || !stateMachine_->problem().empty();
}

// Nothing that is ordered here gets on: it is not applied, or the journal waits for a segment.
bool VolumeImpl::waitsForRoom() {
  return !stateMachine_->problem().empty() || (parts_.room.isShort() && journalStuck());
}

void VolumeImpl::tickRoom() {
  if (!shortOfRoom()) {
    roomPauseMs_ = roomRetryMs_ = 0;
    return;
  }
  if (primary_ == nullptr || !primary_->active() || givingAway_ || stopped_ || stateDamaged() ||
      nowMs() < roomRetryMs_ || record_.current.members.size() == 1) {
    return;
  }
  givingAway_ = true;
  tasks_.add(giveAwayForRoom());
}

Co<void> VolumeImpl::giveAwayForRoom() {
  if (roomPauseMs_ == 0) {
    KJ_LOG(WARNING, "the disk of this node is short of room: it gives the lead of a volume to a member "
                    "that has room", record_.name.c_str());
  }
  auto handing = handOver();
  const bool moved = co_await kj::mv(handing);
  givingAway_ = false;
  if (moved) co_return;
  if (roomPauseMs_ == 0) {
    KJ_LOG(ERROR, "no other member takes the lead of a volume, so it stays on this node, whose disk is "
                  "short of room: make room on one of them", record_.name.c_str());
  }
  roomPauseMs_ = roomPauseMs_ == 0 ? kPauseMsFirst : std::min(roomPauseMs_ * 2, kPauseMsLast);
  roomRetryMs_ = nowMs() + roomPauseMs_;
}

void VolumeImpl::requireRoom() {
  KJ_REQUIRE(!shortOfRoom(), "the disk of this node is short of room, so it takes no lead; make room on it",
             parts_.self.node);
}

// Why proposals are refused then. That leaves no doubt about what becomes of them.
std::string VolumeImpl::roomProblem() {
  return "the disk of node " + parts_.self.node + " is full, and no member that has room leads the volume: "
         "make room on one of them";
}

}  // namespace packmoor::replicator
