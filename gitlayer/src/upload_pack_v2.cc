#include "upload_pack_session.h"

#include <kj/debug.h>

namespace packmoor::gitlayer {
namespace {

constexpr size_t kBandPacketBytesV2 = 65520;

}  // namespace

Co<void> UploadPackSession::serveV2(PktReader& reader, PktWriter& writer,
                                    kj::AsyncOutputStream& out) {
  for (bool more = true; more;) {
    CommandV2 command;
    bool hasArguments = false;
    more = co_await readCommandV2(reader, writer, command, hasArguments);
    if (!more) break;
    if (command.name == CommandV2::Name::kLsRefs) {
      more = co_await lsRefsV2(reader, writer, hasArguments);
    } else {
      more = co_await fetchV2(reader, writer, out, hasArguments);
    }
  }
}

// False: there is no further request, or it was refused.
Co<bool> UploadPackSession::readCommandV2(PktReader& reader, PktWriter& writer,
                                          CommandV2& command, bool& hasArguments) {
  bool any = false;
  for (;;) {
    auto pkt = co_await nextPkt(reader);
    Problem problem;
    if (pkt.kind == PktKind::kData) {
      any = true;
      problem = command.add(pkt.line());
    } else if (!any && (pkt.kind == PktKind::kEnd || pkt.kind == PktKind::kFlush)) {
      co_return false;
    } else if (pkt.kind != PktKind::kDelimiter && pkt.kind != PktKind::kFlush) {
      problem = "upload-pack: the request ended within its command";
    } else if (command.name == CommandV2::Name::kNone) {
      problem = "no command requested";
    } else {
      hasArguments = pkt.kind == PktKind::kDelimiter;
      co_return true;
    }
    if (!problem) continue;
    co_await refuse(writer, *problem);
    co_return false;
  }
}

Co<bool> UploadPackSession::lsRefsV2(PktReader& reader, PktWriter& writer, bool hasArguments) {
  ListRequest request;
  while (hasArguments) {
    auto pkt = co_await nextPkt(reader);
    if (pkt.kind == PktKind::kFlush) break;
    Problem problem = pkt.kind == PktKind::kData
                          ? request.addArgument(pkt.line())
                          : Problem("ls-refs: expected flush after arguments");
    if (!problem) continue;
    co_await refuse(writer, *problem);
    co_return false;
  }
  request.finish();
  co_await printRefs(std::make_shared<RefPrinter>(**view_, std::move(request)), writer);
  writer.flush();
  co_await writer.send();
  co_return true;
}

Co<bool> UploadPackSession::fetchV2(PktReader& reader, PktWriter& writer,
                                    kj::AsyncOutputStream& out, bool hasArguments) {
  FetchRequest request;
  request.policy = policy_;
  while (hasArguments) {
    auto pkt = co_await nextPkt(reader);
    if (pkt.kind == PktKind::kFlush) break;
    Problem problem = pkt.kind == PktKind::kData
                          ? request.addArgumentV2(pkt.line())
                          : Problem("fetch: expected flush after arguments");
    if (!problem) continue;
    co_await refuse(writer, *problem);
    co_return false;
  }
  if (request.wants.empty()) co_return true;  // git answers nothing, too
  auto prepared = co_await prepare(std::move(request), writer);
  if (!prepared) co_return false;
  FetchRequest& wanted = work_->request;
  co_await lookUpHaves(!wanted.done);
  const bool acknowledges = !wanted.done && !wanted.haves.empty();
  const bool sends = !acknowledges || work_->ready();
  if (sends) {
    auto planned = co_await planShallow(writer);
    if (!planned) co_return false;
  }
  if (acknowledges) acknowledgeV2(writer);
  if (!sends) {
    writer.flush();
    co_await writer.send();
    co_return true;
  }
  if (acknowledges) writer.delimiter();
  if (wanted.shallow.any()) {
    writer.line("shallow-info");
    tellShallow(writer);
    writer.delimiter();
  }
  writer.line("packfile");
  co_await sendPack(writer, out, kBandPacketBytesV2);
  co_return true;
}

void UploadPackSession::acknowledgeV2(PktWriter& writer) {
  writer.line("acknowledgments");
  const auto& haves = work_->request.haves;
  bool any = false;
  for (size_t i = 0; i < haves.size(); ++i) {
    if (!work_->known()[i]) continue;
    any = true;
    writer.line(std::string("ACK ") + haves[i].hex().cStr());
  }
  if (!any) writer.line("NAK");
  if (work_->ready()) writer.line("ready");
}

}  // namespace packmoor::gitlayer
