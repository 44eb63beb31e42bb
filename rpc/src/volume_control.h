// VolumeControl: the requests of the control socket that change volumes and who leads them.
//
// Why: a change of members is made by the volume's primary, and an operator asks any node. What is not
// for this node is sent on to the primary as a question (kControlQuery) and answered there.
//
// Sources: volume_control.cc, node_drain.cc (whole nodes) and repository_place.cc.
// Loop: the node's. Lifetime: that of NodeControl.
#pragma once

#include "loss_control.h"
#include "rpc/node_control.h"

#include <kernelio/co.h>
#include <rpc/control.pb.h>

#include <map>

namespace packmoor::rpc {

class VolumeControl final {
 public:
  VolumeControl(const NodeView& view, LossControl& losses) : view_(view), losses_(losses) {}
  KJ_DISALLOW_COPY(VolumeControl);

  static bool answers(const control::Request& request);
  // Never rejects: a failure is in the response.
  kj::Promise<void> handle(const control::Request& request, control::Response& response);
  kj::Promise<kj::Array<kj::byte>> answerForwarded(kj::Array<const kj::byte> question);
  // The volume for a repository that names none (placement.h); empty: there is none to take it.
  Co<std::string> placeRepository();
  // Asked of any node: the one that is to lead is asked by this one.
  Co<void> moveLeadOf(std::string volume, std::string to);

 private:
  Co<kj::Array<kj::byte>> forwarded(kj::Array<const kj::byte> question);
  // What the primary of a volume answers: changes of members, and the end of the volume.
  Co<void> atPrimary(const control::Request& request, bool forward, control::Response& response);
  Co<void> deleteHere(replicator::Volume& volume, control::Response& response);
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
  // Who can lead the volume instead of `node`: connected, not drained; who leads least comes first.
  std::vector<std::string> successorsOf(const replicator::VolumeRecord& record,
                                        const std::string& node,
                                        const std::map<std::string, size_t>& leads);
  Co<std::string> moveAway(replicator::VolumeRecord record, std::string node,
                           std::map<std::string, size_t>& leads);
  // Empty where the node did not answer within kOtherNodeTimeoutMs.
  Co<control::NodeStatus> statusOf(std::string node);
  kj::Promise<void> takeOverHere(const std::string& name);
  Co<std::string> primaryOf(std::string name);
  void addVolume(const replicator::VolumeRecord& record, control::Response& response);
  // Those that are not deleted.
  Co<std::vector<replicator::VolumeRecord>> listVolumes();
  Co<replicator::VolumeRecord> readVolume(std::string name);

  const NodeView& view_;
  LossControl& losses_;
};

}  // namespace packmoor::rpc
