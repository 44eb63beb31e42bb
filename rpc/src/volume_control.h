// VolumeControl: the requests of the control socket that change volumes and who leads them.
//
// Why: a change of members is made by the volume's primary, and an operator asks any node. What is not
// for this node is sent on to the primary as a question (kControlQuery) and answered there.
//
// Sources: volume_control.cc and node_drain.cc (whole nodes).
// Loop: the node's. Lifetime: that of NodeControl.
#pragma once

#include "loss_control.h"
#include "rpc/node_control.h"

#include <kernelio/co.h>
#include <rpc/control.pb.h>

namespace packmoor::rpc {

class VolumeControl final {
 public:
  VolumeControl(const NodeView& view, LossControl& losses) : view_(view), losses_(losses) {}
  KJ_DISALLOW_COPY(VolumeControl);

  static bool answers(const control::Request& request);
  // Never rejects: a failure is in the response.
  kj::Promise<void> handle(const control::Request& request, control::Response& response);
  kj::Promise<kj::Array<kj::byte>> answerForwarded(kj::Array<const kj::byte> question);

 private:
  Co<kj::Array<kj::byte>> forwarded(kj::Array<const kj::byte> question);
  Co<void> change(const control::Request& request, bool forward, control::Response& response);
  Co<void> changeHere(replicator::Volume& volume, const control::VolumeChangeRequest& request,
                      control::Response& response);
  Co<void> ask(std::string node, const control::Request& request, control::Response& response);
  Co<void> setWeight(const control::VolumeSetWeightRequest& request, control::Response& response);
  Co<void> balance(control::Response& response);
  // node_drain.cc
  Co<void> drain(const control::NodeDrainRequest& request, control::Response& response);
  Co<void> okToStop(const control::NodeOkToStopRequest& request, control::Response& response);
  Co<std::string> stopProblem(replicator::VolumeRecord record, std::string node);
  Co<void> setDrained(std::string name, std::string node, bool drained);
  Co<void> requireNode(std::string node);
  Co<void> moveLead(replicator::VolumeRecord record, std::string to);
  bool isThere(const std::string& node);
  kj::Promise<void> takeOverHere(const std::string& name);
  Co<std::string> primaryOf(std::string name);
  void addVolume(const replicator::VolumeRecord& record, control::Response& response);

  const NodeView& view_;
  LossControl& losses_;
};

}  // namespace packmoor::rpc
