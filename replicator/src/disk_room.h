// DiskRoom: whether this node's disk has room for what a primary has to write.
//
// Why: a primary on a full disk can neither apply what it has ordered nor begin another segment of its
// journal, and pushes wait until somebody makes room, though other members could take them. So a node
// that has less than the reserve left gives its leads away and takes none as long as another member can
// (volume_room.cc). It is measured, so that this happens while the node can still write.
//
// Loop: the node's.
#pragma once

#include "kernelio/co.h"
#include "kernelio/env.h"
#include "replicator/replicator.h"
#include "tasks.h"

namespace packmoor::replicator {

class DiskRoom {
 public:
  static constexpr int64_t kMeasureMs = 250;

  DiskRoom(kernelio::Env& env, uint64_t reserveBytes);

  void tick();  // often; measures when it is time
  // From when less than the reserve was left until a quarter more than it is.
  bool isShort() const { return status_.isShort; }
  const RoomStatus& status() const { return status_; }

 private:
  Co<void> measure();

  kernelio::Env& env_;
  RoomStatus status_;
  int64_t measuredMs_ = 0;
  bool measuring_ = false;
  Tasks tasks_{"disk room"};
};

}  // namespace packmoor::replicator
