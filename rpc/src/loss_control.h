// LossControl: `packmoorctl volume lost-writes`, `accept-loss`, `acknowledge-loss` and
// `discard-diverged`, and a promotion that must accept a loss.
//
// Why: loss that cannot be repaired is never accepted by itself (DESIGN rules 5, 18 and 19). What any
// member knows that can be asked is gathered (kLogQuery) and shown; the acceptance names the revision of
// what was shown, repeats the volume's name, is written to the audit log with all that was listed, and
// only then ordered at the member that is to lead.
//
// Why a diverged member is discarded by order and not by itself once its records are listed: its log and
// its extents are the only copy of what was acknowledged, and an operator may want to fetch that from it.
//
// Sources: loss_control.cc (what operators order), loss_survey.cc (what members know).
// Loop: the node's. Lifetime: that of NodeControl.
#pragma once

#include "rpc/node_control.h"

#include <kernelio/co.h>
#include <rpc/control.pb.h>

#include <vector>

namespace packmoor::rpc {

constexpr kj::StringPtr kLogQuery = "volume-log"_kj;  // VolumeLogQuestion, VolumeLogAnswer
constexpr int64_t kLogQueryTimeoutMs = 5'000;
constexpr size_t kLogRecordsMax = 2'000;              // of one member's log that are looked at
constexpr size_t kLogScanRecordsMax = 20'000;         // for extents that are not here

kj::Array<kj::byte> messageBytes(const google::protobuf::MessageLite& message);

class LossControl final {
 public:
  explicit LossControl(const NodeView& view) : view_(view) {}
  KJ_DISALLOW_COPY(LossControl);

  static bool answers(const control::Request& request);
  // Never rejects: a failure is in the response.
  kj::Promise<void> handle(const control::Request& request, ControlCaller caller,
                           control::Response& response);
  // Of another node: kLogQuery.
  kj::Promise<kj::Array<kj::byte>> answerLog(kj::Array<const kj::byte> question);
  // Of another node: an acceptance that this one carries out.
  kj::Promise<void> acceptHere(const control::VolumeAcceptLossRequest& request,
                               control::Response& response);

 private:
  using Answers = std::vector<control::VolumeLogAnswer>;
  Co<void> lostWrites(std::string name, std::string promote, control::Response& response);
  Co<void> accept(const control::VolumeAcceptLossRequest& request, ControlCaller caller,
                  control::Response& response);
  Co<void> carryOut(control::VolumeAcceptLossRequest request, control::Response& response);
  Co<void> acknowledge(std::string name, ControlCaller caller, control::Response& response);
  Co<void> discard(const control::VolumeDiscardDivergedRequest& request, ControlCaller caller,
                   control::Response& response);

  Co<replicator::VolumeRecord> recordOf(std::string name);
  Co<void> survey(std::string name, std::string promote, control::VolumeLostWritesReply& reply);
  Co<Answers> askAll(const replicator::VolumeRecord& record, control::VolumeLogQuestion question);
  Co<control::VolumeLogAnswer> askNode(std::string node, control::VolumeLogQuestion question);
  Co<control::VolumeLogAnswer> answerHere(control::VolumeLogQuestion question);
  Co<void> addHeld(std::string best, std::string holder, uint64_t from, std::string why,
                   control::VolumeLostWritesReply& reply);
  Co<void> addIncomplete(const Answers& answers, control::VolumeLostWritesReply& reply);
  Co<void> addNames(const Answers& answers, control::VolumeLostWritesReply& reply);
  Co<void> scanExtents(replicator::Volume& volume, control::VolumeLogAnswer& answer);
  void describe(replicator::Volume& volume, const replicator::Record& record,
                control::LostWrite& write);
  bool confirmed(const std::string& name, const std::string& typed, std::string what,
                 control::Response& response);
  void audit(const std::string& sentence);
  void auditList(const control::VolumeLostWritesReply& reply);

  const NodeView& view_;
};

}  // namespace packmoor::rpc
