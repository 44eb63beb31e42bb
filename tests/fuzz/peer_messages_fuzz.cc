// module: rpc
// Goal: a message from another node is either refused with a KJ exception or read; nothing else.
// The first byte chooses the message, the next seven are skipped, the rest is its bytes as they are
// on the wire.
#include "peer_translate.h"

#include <capnp/serialize.h>
#include <kj/exception.h>

#include <cstdint>
#include <cstring>

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  using namespace packmoor::rpc;  // NOLINT: a program's source
  constexpr size_t kSkip = 8;
  if (size < kSkip || size > (1u << 20)) return 0;
  auto words = kj::heapArray<capnp::word>((size - kSkip) / sizeof(capnp::word));
  if (words.size() == 0) return 0;
  memcpy(words.begin(), data + kSkip, words.asBytes().size());
  kj::runCatchingExceptions([&]() {
    capnp::FlatArrayMessageReader message(words);
    switch (data[0] % 9) {
      case 0: read(message.getRoot<wire::AppendRequest>()); break;
      case 1: read(message.getRoot<wire::AppendReply>()); break;
      case 2: read(message.getRoot<wire::VolumeRecord>()); break;
      case 3: read(message.getRoot<wire::FenceReply>()); break;
      case 4: read(message.getRoot<wire::FetchReply>()); break;
      case 5: read(message.getRoot<wire::ProposeRequest>()); break;
      case 6: read(message.getRoot<wire::ProposeReply>()); break;
      case 7: read(message.getRoot<wire::ConsentRequest>()); break;
      case 8: read(message.getRoot<wire::ConsentReply>()); break;
    }
  });
  return 0;
}
