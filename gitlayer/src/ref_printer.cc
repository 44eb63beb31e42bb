#include "ref_printer.h"

#include "gitlayer/agent.h"
#include "gitlayer/pkt_line.h"

namespace packmoor::gitlayer {
namespace {

void appendHex(std::string& text, const ObjectId& id) {
  char hex[kOidHexChars];
  id.hexInto(hex);
  text.append(hex, kOidHexChars);
}

}  // namespace

std::string capabilitiesV0(RepositoryView& view, const UploadPolicy& policy) {
  std::string result =
      "multi_ack thin-pack side-band side-band-64k ofs-delta shallow deepen-since deepen-not "
      "deepen-relative no-progress include-tag multi_ack_detailed";
  if (policy.wants != UploadPolicy::Wants::kTips) {
    result += " allow-tip-sha1-in-want allow-reachable-sha1-in-want";
  }
  result += " no-done";
  const std::string& head = view.info().head;
  if (view.ref(head)) result += " symref=HEAD:" + head;
  if (policy.filters) result += " filter";
  result += " object-format=sha1 agent=";
  result += kAgent;
  return result;
}

RefPrinter::RefPrinter(RepositoryView& view, std::string capabilities)
    : view_(view), v2_(false), capabilities_(std::move(capabilities)) {
  request_.peel = true;
  request_.prefixes.emplace_back();
}

RefPrinter::RefPrinter(RepositoryView& view, ListRequest request)
    : view_(view), v2_(true), request_(std::move(request)) {
  if (request_.prefixes.empty()) request_.prefixes.emplace_back();
}

bool RefPrinter::print(std::string& out, size_t bytes) {
  size_t until = out.size() + bytes;
  if (!headDone_) {
    headDone_ = true;
    if (request_.matches("HEAD")) printHead(out);
  }
  while (nextPrefix_ < request_.prefixes.size()) {
    bool full = false;
    view_.forEachRef(request_.prefixes[nextPrefix_], after_, [&](const Ref& ref) {
      printRef(out, ref);
      full = out.size() >= until;
      if (full) after_ = ref.name;
      return !full;
    });
    if (full) return true;
    after_.clear();
    ++nextPrefix_;
  }
  if (!v2_ && !capabilities_.empty()) {
    std::string text;
    appendHex(text, ObjectId());
    line(out, text + " capabilities^{}");
  }
  return false;
}

void RefPrinter::printHead(std::string& out) {
  const std::string& target = view_.info().head;
  auto ref = view_.ref(target);
  if (!ref && !(v2_ && request_.unborn && request_.symrefs)) return;
  std::string text;
  if (ref) {
    appendHex(text, ref->id);
  } else {
    text = "unborn";
  }
  text += " HEAD";
  if (v2_ && request_.symrefs) text += " symref-target:" + target;
  if (v2_ && ref && request_.peel && !ref->peeled.isZero()) {
    text += " peeled:";
    appendHex(text, ref->peeled);
  }
  line(out, std::move(text));
}

void RefPrinter::printRef(std::string& out, const Ref& ref) {
  std::string text;
  text.reserve(2 * kOidHexChars + ref.name.size() + 16);
  appendHex(text, ref.id);
  text += ' ';
  text += ref.name;
  bool peel = request_.peel && !ref.peeled.isZero();
  if (v2_ && peel) {
    text += " peeled:";
    appendHex(text, ref.peeled);
  }
  line(out, std::move(text));
  if (v2_ || !peel) return;
  text.clear();
  appendHex(text, ref.peeled);
  text += ' ';
  text += ref.name;
  text += "^{}";
  line(out, std::move(text));
}

void RefPrinter::line(std::string& out, std::string text) {
  if (!capabilities_.empty()) {
    text += '\0';
    text += capabilities_;
    capabilities_.clear();
  }
  text += '\n';
  appendPkt(out, text);
}

}  // namespace packmoor::gitlayer
