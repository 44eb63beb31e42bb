// The session behind makeUploadPackSession(); split by protocol over several files.
#pragma once

#include "gitlayer/upload_pack.h"

#include "fetch_work.h"
#include "pack_sender.h"
#include "ref_printer.h"

#include <kernelio/co.h>

namespace packmoor::gitlayer {

class UploadPackSession final : public GitSession {
 public:
  UploadPackSession(GitNode& node, PackQueue& queue, GitRequest request,
                    kj::Own<RepositoryView> view, UploadPolicy policy, PackCache* cache);

  kj::Promise<void> advertise(kj::AsyncOutputStream& out, bool httpBanner) override;
  kj::Promise<void> serve(kj::AsyncInputStream& in, kj::AsyncOutputStream& out) override;

 private:
  // What protocols 0 and 1 remember between the rounds of a negotiation.
  struct RoundsV0 {
    bool anyCommon = false;
    ObjectId lastCommon;
  };

  void noteSession(const std::string& session);
  Co<void> advertiseInner(kj::AsyncOutputStream& out, bool httpBanner);
  Co<void> serveInner(kj::AsyncInputStream& in, kj::AsyncOutputStream& out);

  // upload_pack_v0.cc
  Co<void> serveV0(PktReader& reader, PktWriter& writer, kj::AsyncOutputStream& out);
  Co<bool> readWantsV0(PktReader& reader, PktWriter& writer, FetchRequest& request);
  Co<bool> negotiateV0(PktReader& reader, PktWriter& writer);
  bool answerRoundV0(RoundsV0& rounds, bool done, PktWriter& writer);

  // upload_pack_v2.cc
  Co<void> serveV2(PktReader& reader, PktWriter& writer, kj::AsyncOutputStream& out);
  Co<bool> readCommandV2(PktReader& reader, PktWriter& writer, CommandV2& command,
                         bool& hasArguments);
  Co<bool> lsRefsV2(PktReader& reader, PktWriter& writer, bool hasArguments);
  Co<bool> fetchV2(PktReader& reader, PktWriter& writer, kj::AsyncOutputStream& out,
                   bool hasArguments);
  Co<void> decideV2(FetchRequest request, Problem& problem);
  Co<bool> readFetchV2(PktReader& reader, PktWriter& writer, bool hasArguments,
                       FetchRequest& request);
  bool acknowledgesV2() const;
  bool sendsV2() const { return !acknowledgesV2() || work_->ready(); }
  void acknowledgeV2(PktWriter& writer);
  void tellWantedRefs(PktWriter& writer);
  Co<bool> objectInfoV2(PktReader& reader, PktWriter& writer, bool hasArguments);

  // Makes work_ for the request when everything in it may be wanted; else says why not. Nothing is written.
  Co<Problem> prepare(FetchRequest request);
  kj::Promise<Problem> openFilter();
  Co<void> lookUpHaves(bool readiness);
  // Finds where the history of a request with anything shallow is cut, or says why it is not. Nothing is
  // written.
  Co<Problem> planShallow();
  void tellShallow(PktWriter& writer);
  Co<void> inTurns(bool (FetchWork::*step)(uint32_t));
  std::string queueKey() const { return request_.repository + '\n' + request_.principal; }
  kj::Promise<bool> onWorker(bool (FetchWork::*step)(uint32_t), uint32_t budget);
  Co<void> sendPack(PktWriter& writer, kj::AsyncOutputStream& out, size_t bandPacketBytes);
  Co<void> refuse(PktWriter& writer, std::string message);

  GitNode& node_;
  kj::Own<PackQueue> queue_;
  PackCache* const cache_;   // null: none
  GitRequest request_;
  UploadPolicy policy_;
  const std::string session_;      // our own id of it
  bool sessionNoted_ = false;
  SharedView view_;
  std::shared_ptr<FetchWork> work_;
  bool packBegun_ = false;
  bool idle_ = true;       // nothing of a request has come that is not answered
};

// The next packet, without a promise when it lies in the buffer already.
inline kj::Promise<Pkt> nextPkt(PktReader& reader) {
  KJ_IF_MAYBE(pkt, reader.readBuffered()) { return *pkt; }
  return reader.read();
}

}  // namespace packmoor::gitlayer
