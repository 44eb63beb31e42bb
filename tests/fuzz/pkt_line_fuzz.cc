// module: gitlayer
// Packets from arbitrary bytes in pieces of a size that the first byte gives: every packet that is
// read must be framed again to the bytes that it came from.
#include "gitlayer/pkt_line.h"

#include <kernelio/check.h>

#include <algorithm>
#include <cstring>

using namespace packmoor::gitlayer;

namespace {

class Pieces final : public kj::AsyncInputStream {
 public:
  Pieces(kj::ArrayPtr<const kj::byte> bytes, size_t piece) : bytes_(bytes), piece_(piece) {}
  kj::Promise<size_t> tryRead(void* buffer, size_t, size_t maxBytes) override {
    size_t n = std::min({piece_, maxBytes, bytes_.size() - at_});
    if (n > 0) memcpy(buffer, bytes_.begin() + at_, n);
    at_ += n;
    return n;
  }

 private:
  kj::ArrayPtr<const kj::byte> bytes_;
  size_t piece_, at_ = 0;
};

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  if (size == 0) return 0;
  kj::EventLoop loop;
  kj::WaitScope wait(loop);
  Pieces in(kj::arrayPtr(data + 1, size - 1), size_t(data[0]) * 7 + 1);
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
