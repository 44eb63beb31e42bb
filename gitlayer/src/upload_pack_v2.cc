#include "upload_pack_session.h"

#include "keep_alive.h"

#include <kj/debug.h>

#include <algorithm>

namespace packmoor::gitlayer {
namespace {

constexpr size_t kBandPacketBytesV2 = 65520;
constexpr size_t kInfosAtOnce = 2'000;   // in one job of a worker

// Packets "<oid>[ <size>]"; nothing behind the space when the object is not here.
std::string infoLines(ObjectSource& source, const InfoRequest& request, size_t begin) {
  std::string lines;
  const size_t end = std::min(begin + kInfosAtOnce, request.objects.size());
  for (size_t i = begin; i < end; ++i) {
    std::string line = request.objects[i].hex().cStr();
    KJ_IF_MAYBE(header, source.header(request.objects[i])) {
      if (request.size) line += " " + std::to_string(header->bytes);
    } else {
      line += " ";
    }
    appendPkt(lines, line + "\n");
  }
  return lines;
}

}  // namespace

Co<void> UploadPackSession::serveV2(PktReader& reader, PktWriter& writer,
                                    kj::AsyncOutputStream& out) {
  for (bool more = true; more;) {
    CommandV2 command;
    bool hasArguments = false;
    writer.allOnBand1(false);
    idle_ = true;
    more = co_await readCommandV2(reader, writer, command, hasArguments);
    if (!more) break;
    noteSession(command.session);
    if (command.name == CommandV2::Name::kLsRefs) {
      more = co_await lsRefsV2(reader, writer, hasArguments);
    } else if (command.name == CommandV2::Name::kObjectInfo && policy_.objectInfo) {
      more = co_await objectInfoV2(reader, writer, hasArguments);
    } else if (command.name == CommandV2::Name::kFetch) {
      more = co_await fetchV2(reader, writer, out, hasArguments);
    } else {
      co_await refuse(writer, "invalid command 'object-info'");
      more = false;
    }
  }
}

// False: there is no further request, or it was refused.
Co<bool> UploadPackSession::readCommandV2(PktReader& reader, PktWriter& writer,
                                          CommandV2& command, bool& hasArguments) {
  bool any = false;
  for (;;) {
    auto pkt = co_await nextPkt(reader);
    idle_ = false;
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
  auto printer = std::make_shared<RefPrinter>(**view_, std::move(request));
  auto sending = sendRefs(node_.env(), std::move(printer), view_, writer);
  co_await kj::mv(sending);
  writer.flush();
  co_await writer.send();
  co_return true;
}

// False: refused.
Co<bool> UploadPackSession::readFetchV2(PktReader& reader, PktWriter& writer, bool hasArguments,
                                        FetchRequest& request) {
  while (hasArguments) {
    auto pkt = co_await nextPkt(reader);
    if (pkt.kind == PktKind::kFlush) break;
    Problem problem;
    if (pkt.kind != PktKind::kData) {
      problem = "fetch: expected flush after arguments";
    } else if (policy_.sidebandAll && pkt.line() == "sideband-all") {
      writer.allOnBand1(true);
    } else {
      problem = request.addArgumentV2(pkt.line());
    }
    if (!problem) continue;
    co_await refuse(writer, *problem);
    co_return false;
  }
  Problem problem = request.finishV2();
  if (!problem) co_return true;
  co_await refuse(writer, *problem);
  co_return false;
}

Co<bool> UploadPackSession::fetchV2(PktReader& reader, PktWriter& writer,
                                    kj::AsyncOutputStream& out, bool hasArguments) {
  FetchRequest request;
  request.policy = policy_;
  auto read = co_await readFetchV2(reader, writer, hasArguments, request);
  if (!read) co_return false;
  const bool wants = !request.wants.empty() || !request.wantRefs.empty();
  if (!wants && !request.waitForDone) co_return true;  // git answers nothing, too
  Problem problem;
  auto deciding = decideV2(std::move(request), problem);
  // Without sideband-all there is nothing yet that could be said.
  const auto interval = (writer.bandsAll() ? policy_.keepAliveSeconds : 0) * kj::SECONDS;
  auto waiting = waitAlive(node_.env().timer, interval, kj::mv(deciding), [&writer]() {
    writer.raw(kj::StringPtr(kKeepaliveProgress.data(), kKeepaliveProgress.size()).asBytes());
    return writer.send();
  });
  co_await kj::mv(waiting);
  if (problem) {
    co_await refuse(writer, *problem);
    co_return false;
  }
  const bool acknowledges = acknowledgesV2();
  if (acknowledges) acknowledgeV2(writer);
  if (!sendsV2()) {
    writer.flush();
    co_await writer.send();
    co_return true;
  }
  if (acknowledges) writer.delimiter();
  if (work_->request.shallow.any()) {
    writer.line("shallow-info");
    tellShallow(writer);
    writer.delimiter();
  }
  if (!work_->wantedRefs().empty()) tellWantedRefs(writer);
  writer.line("packfile");
  co_await sendPack(writer, out, kBandPacketBytesV2);
  co_return true;
}

// All that the answer to a fetch rests on. Writes nothing.
Co<void> UploadPackSession::decideV2(FetchRequest request, Problem& problem) {
  auto preparing = prepare(std::move(request));
  problem = co_await kj::mv(preparing);
  if (problem) co_return;
  co_await lookUpHaves(!work_->request.done && !work_->request.waitForDone);
  if (!sendsV2()) co_return;
  auto planning = planShallow();
  problem = co_await kj::mv(planning);
}

bool UploadPackSession::acknowledgesV2() const {
  return !work_->request.done && !work_->request.haves.empty();
}

void UploadPackSession::tellWantedRefs(PktWriter& writer) {
  writer.line("wanted-refs");
  for (const Ref& ref : work_->wantedRefs()) {
    writer.line(std::string(ref.id.hex().cStr()) + " " + ref.name);
  }
  writer.delimiter();
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

Co<bool> UploadPackSession::objectInfoV2(PktReader& reader, PktWriter& writer,
                                         bool hasArguments) {
  auto request = std::make_shared<InfoRequest>();
  while (hasArguments) {
    auto pkt = co_await nextPkt(reader);
    if (pkt.kind == PktKind::kFlush) break;
    Problem problem = pkt.kind == PktKind::kData
                          ? request->addArgument(pkt.line())
                          : Problem("object-info: expected flush after arguments");
    if (!problem) continue;
    co_await refuse(writer, *problem);
    co_return false;
  }
  const size_t count = request->objects.size();
  if (request->size && count > 0) writer.line("size");
  for (size_t begin = 0; begin < count; begin += kInfosAtOnce) {
    auto asking = node_.env().workers.run([view = view_, request, begin]() {
      return infoLines((*view)->objects(), *request, begin);
    });
    auto lines = co_await kj::mv(asking);
    writer.raw(kj::StringPtr(lines.c_str(), lines.size()).asBytes());
    co_await writer.send();
  }
  writer.flush();
  co_await writer.send();
  co_return true;
}

}  // namespace packmoor::gitlayer
