#include "ref_page.h"

#include "gitlayer/pkt_line.h"

#include <kernelio/check.h>

namespace packmoor::gitlayer {
namespace {

constexpr std::string_view kPeeled = " peeled:";

}  // namespace

void appendRefPacket(std::string& to, std::string_view name, const ObjectId& id, const ObjectId& peeled) {
  std::string_view mark = peeled.isZero() ? std::string_view() : kPeeled;
  const size_t peeledBytes = mark.empty() ? 0 : mark.size() + kOidHexChars;
  const size_t payload = kOidHexChars + 1 + name.size() + peeledBytes + 1;
  appendPktLength(to, payload);
  size_t at = to.size();
  to.resize(at + payload);
  char* out = to.data() + at;
  id.hexInto(out);
  out += kOidHexChars;
  *out++ = ' ';
  out += name.copy(out, name.size());
  if (!mark.empty()) {
    out += mark.copy(out, mark.size());
    peeled.hexInto(out);
    out += kOidHexChars;
  }
  *out = '\n';
}

void RefPage::forEach(kj::FunctionParam<bool(const RefLine&)> each) const {
  for (std::string_view rest = packets; !rest.empty();) {
    const PktLength length = parsePktLength(rest.substr(0, kPktLengthDigits));
    const size_t bytes = kPktLengthDigits + length.payloadBytes;
    PACKMOOR_CHECK(length.valid && bytes <= rest.size() && length.payloadBytes > kOidHexChars + 1,
                   "a packet of a page of refs", rest.size());
    RefLine line;
    line.packet = rest.substr(0, bytes);
    line.id = line.packet.substr(kPktLengthDigits, kOidHexChars);
    std::string_view text = line.packet.substr(kPktLengthDigits + kOidHexChars + 1);
    text.remove_suffix(1);
    const size_t space = text.find(' ');   // no name has one
    line.name = text.substr(0, space);
    if (space != text.npos) line.peeled = text.substr(space + kPeeled.size());
    if (!each(line)) return;
    rest.remove_prefix(bytes);
  }
}

}  // namespace packmoor::gitlayer
