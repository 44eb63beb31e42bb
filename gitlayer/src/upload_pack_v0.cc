#include "upload_pack_session.h"

#include <kj/debug.h>

namespace packmoor::gitlayer {

// The same code serves a client that sends all rounds on one stream and one that sends each in
// a request of its own: the latter's stream ends after the first round.
Co<void> UploadPackSession::serveV0(PktReader& reader, PktWriter& writer,
                                    kj::AsyncOutputStream& out) {
  FetchRequest request;
  request.policy = policy_;
  auto wanted = co_await readWantsV0(reader, writer, request);
  if (!wanted) co_return;
  noteSession(request.session);
  size_t bandPacketBytes = request.bandPacketBytes;
  auto preparing = prepare(std::move(request));
  Problem problem = co_await kj::mv(preparing);
  if (!problem) {
    auto planning = planShallow();
    problem = co_await kj::mv(planning);
  }
  if (problem) {
    co_await refuse(writer, *problem);
    co_return;
  }
  if (work_->request.shallow.deepens()) {
    tellShallow(writer);
    writer.flush();
    co_await writer.send();
  }
  auto agreed = co_await negotiateV0(reader, writer);
  if (agreed) co_await sendPack(writer, out, bandPacketBytes);
}

// False: the client wants nothing, or was refused.
Co<bool> UploadPackSession::readWantsV0(PktReader& reader, PktWriter& writer,
                                        FetchRequest& request) {
  for (;;) {
    auto pkt = co_await nextPkt(reader);
    idle_ = false;
    if (pkt.kind == PktKind::kFlush) co_return !request.wants.empty();
    if (pkt.kind == PktKind::kEnd && request.wants.empty()) co_return false;
    Problem problem = pkt.kind == PktKind::kData
                          ? request.addLineV0(pkt.line())
                          : Problem("upload-pack: the request ended within its wants");
    if (!problem) continue;
    co_await refuse(writer, *problem);
    co_return false;
  }
}

// True: a pack is to follow.
Co<bool> UploadPackSession::negotiateV0(PktReader& reader, PktWriter& writer) {
  RoundsV0 rounds;
  FetchRequest round;
  size_t havesSeen = 0;
  for (;;) {
    auto pkt = co_await nextPkt(reader);
    if (pkt.kind == PktKind::kEnd) {
      co_await writer.send();
      co_return false;
    }
    if (pkt.kind == PktKind::kData) {
      Problem problem = round.addHaveLineV0(pkt.line());
      if (!problem && ++havesSeen > kHavesMax) {
        problem = "upload-pack: more than " + std::to_string(kHavesMax) + " haves in one request";
      }
      if (problem) {
        co_await refuse(writer, *problem);
        co_return false;
      }
      if (!round.done) continue;
    }
    work_->nextRound(std::move(round.haves));
    co_await lookUpHaves(work_->request.multiAck != FetchRequest::MultiAck::kNone && !round.done);
    bool agreed = answerRoundV0(rounds, round.done, writer);
    if (agreed) co_return true;
    co_await writer.send();
    round = FetchRequest();
  }
}

// Git's own rules (get_common_commits() of its upload-pack). True: a pack is to follow.
bool UploadPackSession::answerRoundV0(RoundsV0& rounds, bool done, PktWriter& writer) {
  using MultiAck = FetchRequest::MultiAck;
  MultiAck mode = work_->request.multiAck;
  bool gotCommon = false, gotOther = false, saidReady = false;
  auto acknowledge = [&writer](const ObjectId& id, const char* how) {
    writer.line(std::string("ACK ") + id.hex().cStr() + how);
  };
  const auto& haves = work_->request.haves;
  for (size_t i = 0; i < haves.size(); ++i) {
    if (work_->known()[i]) {
      if (mode == MultiAck::kDetailed) {
        acknowledge(haves[i], " common");
      } else if (mode == MultiAck::kContinue) {
        acknowledge(haves[i], " continue");
      } else if (!rounds.anyCommon) {
        acknowledge(haves[i], "");
      }
      gotCommon = rounds.anyCommon = true;
      rounds.lastCommon = haves[i];
      continue;
    }
    gotOther = true;
    if (mode == MultiAck::kNone || !rounds.anyCommon || !work_->ready()) continue;
    acknowledge(haves[i], mode == MultiAck::kDetailed ? " ready" : " continue");
    saidReady = saidReady || mode == MultiAck::kDetailed;
  }
  if (done) {
    if (!rounds.anyCommon) {
      writer.line("NAK");
    } else if (mode != MultiAck::kNone) {
      acknowledge(rounds.lastCommon, "");
    }
    return true;
  }
  if (mode == MultiAck::kDetailed && gotCommon && !gotOther && work_->ready()) {
    acknowledge(rounds.lastCommon, " ready");
    saidReady = true;
  }
  if (!rounds.anyCommon || mode != MultiAck::kNone) writer.line("NAK");
  if (!work_->request.noDone || !saidReady) return false;
  acknowledge(rounds.lastCommon, "");
  return true;
}

}  // namespace packmoor::gitlayer
