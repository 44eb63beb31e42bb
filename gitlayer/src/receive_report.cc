#include "receive_report.h"

namespace packmoor::gitlayer {

namespace {

constexpr size_t kReasonBytesMax = 1000;
constexpr size_t kNoticesBytesMax = 64u << 10;  // of details; a push may have very many commands

void addLine(std::string& to, std::string_view a, std::string_view b, std::string_view c = {},
             std::string_view d = {}) {
  std::string line;
  line.reserve(a.size() + b.size() + c.size() + d.size() + 1);
  line.append(a).append(b).append(c).append(d).append(1, '\n');
  appendPkt(to, line);
}

std::string statusText(const Report& report) {
  std::string text;
  if (report.refusal) {
    addLine(text, "unpack ", oneLine(report.refusal->reason));
  } else {
    addLine(text, "unpack ", "ok");
  }
  for (const auto& command : report.request.commands()) {
    const std::string& name = command.update.name;
    if (report.refusal) {
      addLine(text, "ng ", name, " unpacker error");
    } else if (!command.problem.empty()) {
      addLine(text, "ng ", name, " ", oneLine(command.problem));
    } else {
      addLine(text, "ok ", name);
    }
  }
  appendFlush(text);
  return text;
}

// What git's receive-pack would have written to its standard error.
std::string noticeText(const Report& report) {
  std::string text;
  if (report.refusal && !report.refusal->detail.empty()) {
    text.append("fatal: ").append(report.refusal->detail).append(1, '\n');
  }
  if (!report.refusal) {
    for (const auto& command : report.request.commands()) {
      if (text.size() > kNoticesBytesMax) break;
      if (!command.detail.empty()) text.append("error: ").append(command.detail).append(1, '\n');
      if (!command.warning.empty()) text.append("warning: ").append(command.warning).append(1, '\n');
    }
  }
  if (!report.notice.empty() && !report.request.capabilities().quiet) {
    text.append(report.notice).append(1, '\n');
  }
  return text;
}

}  // namespace

std::string oneLine(std::string_view text) {
  std::string result(text.substr(0, kReasonBytesMax));
  for (char& c : result) {
    if (static_cast<unsigned char>(c) < 0x20 || c == 0x7f) c = ' ';
  }
  return result;
}

void writeReport(PktWriter& writer, Report report) {
  const ReceiveCapabilities& capabilities = report.request.capabilities();
  if (capabilities.sideBand) {
    writer.band(2, noticeText(report));
    if (capabilities.reportStatus) writer.band(1, statusText(report));
    writer.flush();
  } else if (capabilities.reportStatus) {
    std::string text = statusText(report);
    writer.raw(kj::arrayPtr(reinterpret_cast<const kj::byte*>(text.data()), text.size()));
  }
}

void writeRefusal(PktWriter& writer, const ReceiveCapabilities& capabilities,
                  std::string_view sentence) {
  std::string text = oneLine(sentence);
  if (capabilities.sideBand) {
    writer.band(3, text + "\n");
    writer.flush();
  } else {
    writer.line("ERR " + text);
  }
}

}  // namespace packmoor::gitlayer
