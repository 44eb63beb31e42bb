#include "ref_printer.h"

#include "gitlayer/agent.h"
#include "gitlayer/pkt_line.h"

namespace packmoor::gitlayer {
namespace {

constexpr size_t kFirstSliceBytes = 64u << 10;
constexpr size_t kSliceBytes = 256u << 10;
constexpr size_t kOvershootBytes = 128u << 10;   // a page

void appendHex(std::string& text, const ObjectId& id) {
  char hex[kOidHexChars];
  id.hexInto(hex);
  text.append(hex, kOidHexChars);
}

bool hasPrefix(std::string_view text, std::string_view prefix) {
  return text.substr(0, prefix.size()) == prefix;
}

const std::vector<std::string>& hiddenFrom(GitService service, RepositoryView& view) {
  const RepositorySettings& settings = view.info().settings;
  return service == GitService::kUploadPack ? settings.uploadHidden : settings.receiveHidden;
}

}  // namespace

std::string capabilitiesV0(RepositoryView& view, const UploadPolicy& policy, const std::string& session) {
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
  result += " session-id=" + session + " object-format=sha1 agent=";
  result += kAgent;
  return result;
}

RefPrinter::RefPrinter(RepositoryView& view, GitService service, std::string capabilities)
    : view_(view),
      form_(service == GitService::kUploadPack ? Form::kUploadV0 : Form::kReceive),
      hidden_(hiddenFrom(service, view)),
      capabilities_(std::move(capabilities)) {
  request_.peel = form_ == Form::kUploadV0;
  request_.prefixes.emplace_back();
}

RefPrinter::RefPrinter(RepositoryView& view, ListRequest request)
    : view_(view),
      form_(Form::kUploadV2),
      hidden_(hiddenFrom(GitService::kUploadPack, view)),
      request_(std::move(request)) {
  if (request_.prefixes.empty()) request_.prefixes.emplace_back();
}

bool RefPrinter::print(std::string& out, size_t bytes) {
  size_t until = out.size() + bytes;
  if (!headDone_) {
    headDone_ = true;
    if (form_ != Form::kReceive && request_.matches("HEAD")) printHead(out);
  }
  while (nextPrefix_ < request_.prefixes.size()) {
    if (printPrefix(out, until)) return true;
    after_.clear();
    ++nextPrefix_;
  }
  if (!capabilities_.empty()) {
    std::string text;
    appendHex(text, ObjectId());
    line(out, text + " capabilities^{}");
  }
  return false;
}

// True: there is more with the prefix. The beginning of a list comes from the state, which is as fast and
// needs no room; what goes on behind it from pages.
bool RefPrinter::printPrefix(std::string& out, size_t until) {
  while (!after_.empty()) {
    const auto page = view_.refPage(after_);
    if (page == nullptr) break;
    if (!printPage(out, *page)) return false;
    if (out.size() >= until) return true;
  }
  bool full = false;
  view_.forEachRef(request_.prefixes[nextPrefix_], after_, [&](const Ref& ref) {
    printRef(out, ref);
    full = out.size() >= until;
    if (full) after_ = ref.name;
    return !full;
  });
  return full;
}

// What of the page comes behind `after_` and has the prefix. False: nothing with the prefix comes behind it.
bool RefPrinter::printPage(std::string& out, const RefPage& page) {
  const std::string_view prefix = request_.prefixes[nextPrefix_];
  const bool goesOn = !page.upTo.empty() && hasPrefix(page.upTo, prefix);
  const bool asItIs = !page.anyPeeled || (form_ == Form::kUploadV2 && request_.peel);
  // Between two names with the prefix all have it.
  if (asItIs && goesOn && hidden_.empty() && page.after == after_) {
    out += page.packets;
  } else {
    page.forEach([&](const RefLine& line) {
      if (line.name > after_ && hasPrefix(line.name, prefix)) printLine(out, line);
      return line.name <= after_ || hasPrefix(line.name, prefix);
    });
  }
  if (goesOn) after_ = page.upTo;
  return goesOn;
}

void RefPrinter::printHead(std::string& out) {
  const std::string& target = view_.info().head;
  const bool v2 = form_ == Form::kUploadV2;
  auto ref = view_.ref(target);
  if (!ref && !(v2 && request_.unborn && request_.symrefs)) return;
  std::string text;
  if (ref) {
    appendHex(text, ref->id);
  } else {
    text = "unborn";
  }
  text += " HEAD";
  if (v2 && request_.symrefs) text += " symref-target:" + target;
  if (v2 && ref && request_.peel && !ref->peeled.isZero()) {
    text += " peeled:";
    appendHex(text, ref->peeled);
  }
  line(out, std::move(text));
}

void RefPrinter::printRef(std::string& out, const Ref& ref) {
  if (isHidden(ref.name)) return;
  const bool peel = request_.peel && !ref.peeled.isZero();
  if (form_ == Form::kUploadV2 || (!peel && capabilities_.empty())) {
    appendRefPacket(out, ref.name, ref.id, peel ? ref.peeled : ObjectId());
    return;
  }
  std::string text;
  appendHex(text, ref.id);
  line(out, text + ' ' + ref.name);
  if (!peel) return;
  text.clear();
  appendHex(text, ref.peeled);
  line(out, text + ' ' + ref.name + "^{}");
}

// Of a page, so there were refs before: the capabilities are printed.
void RefPrinter::printLine(std::string& out, const RefLine& ref) {
  if (isHidden(ref.name)) return;
  const bool peel = request_.peel && !ref.peeled.empty();
  if (ref.peeled.empty() || (peel && form_ == Form::kUploadV2)) {
    out += ref.packet;
    return;
  }
  std::string text(ref.id);
  line(out, text.append(1, ' ').append(ref.name));
  if (!peel) return;
  text.assign(ref.peeled);
  line(out, text.append(1, ' ').append(ref.name).append("^{}"));
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

Co<void> sendRefs(kernelio::Env& env, std::shared_ptr<RefPrinter> printer, std::shared_ptr<const void> keep,
                  PktWriter& writer) {
  kj::Promise<void> sending = kj::READY_NOW;
  auto text = std::make_shared<std::string>();
  size_t bytes = kFirstSliceBytes;
  for (bool more = true; more; bytes = kSliceBytes) {
    text->clear();
    text->reserve(bytes + kOvershootBytes);
    auto printing =
        env.workers.run([printer, keep, text, bytes]() { return printer->print(*text, bytes); });
    more = co_await kj::mv(printing);
    co_await kj::mv(sending);
    writer.raw(kj::StringPtr(text->c_str(), text->size()).asBytes());
    sending = more ? writer.send().eagerlyEvaluate(nullptr) : kj::Promise<void>(kj::READY_NOW);
  }
}

}  // namespace packmoor::gitlayer
