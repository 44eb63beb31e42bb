// module: gitlayer
// Packets from arbitrary bytes in pieces of a size that the first byte gives: every packet that is
// read must be framed again to the bytes that it came from.
#include "gitlayer/pkt_line.h"

#include <kernelio/check.h>
#include <support/string_streams.h>

#include <cstring>

using namespace packmoor;
using namespace packmoor::gitlayer;

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  if (size == 0) return 0;
  kj::EventLoop loop;
  kj::WaitScope wait(loop);
  std::string text(data + 1, data + size);
  testing::StringInput in(text, size_t(data[0]) * 7 + 1);
  PktReader reader(in);
  size_t at = 1;
  auto failed = kj::runCatchingExceptions([&]() {
    for (;;) {
      Pkt pkt = reader.read().wait(wait);
      if (pkt.kind == PktKind::kEnd) break;
      if (pkt.kind == PktKind::kData) {
        std::string framed;
        appendPkt(framed, pkt.data);
        PACKMOOR_CHECK(framed.size() <= size - at);
        PACKMOOR_CHECK(memcmp(framed.data() + 4, data + at + 4, framed.size() - 4) == 0);
        at += framed.size();
      } else {
        at += kPktLengthDigits;
      }
    }
    PACKMOOR_CHECK(at == size);
  });
  (void)failed;
  return 0;
}
