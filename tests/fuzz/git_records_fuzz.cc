// module: gitlayer
// Payloads of records from arbitrary bytes: each decoder gives a record or throws a sentence. A
// ref transaction that the hand-written reader accepts is one that protobuf accepts too, with as
// many updates and objects.
#include "record_codec.h"
#include "state_tables.h"

#include <gitlayer/git_records.pb.h>
#include <google/protobuf/stubs/logging.h>

using namespace packmoor::gitlayer;

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  static google::protobuf::LogSilencer quiet;
  if (size < 1) return 0;
  auto payload = kj::arrayPtr(data + 1, size - 1);
  switch (data[0] % 11) {
    case 0:
      kj::runCatchingExceptions([&]() {
        const auto view = decodeRefTransaction(payload);
        pb::RefTransaction message;
        if (!message.ParseFromArray(payload.begin(), static_cast<int>(payload.size()))) return;
        if (message.updates_size() != static_cast<int>(view.updates.size()) ||
            message.objects_size() != static_cast<int>(view.objects.size())) {
          __builtin_trap();
        }
      });
      break;
    case 1: kj::runCatchingExceptions([&]() { decodeRepositoryCreate(payload); }); break;
    case 2: kj::runCatchingExceptions([&]() { decodeRepositoryDelete(payload); }); break;
    case 3: kj::runCatchingExceptions([&]() { decodeSettle(payload); }); break;
    case 4: kj::runCatchingExceptions([&]() { decodeResult(payload); }); break;
    case 6: kj::runCatchingExceptions([&]() { decodePrune(payload); }); break;
    case 7: kj::runCatchingExceptions([&]() { decodeRepositorySet(payload); }); break;
    case 8: kj::runCatchingExceptions([&]() { decodeRepack(payload); }); break;
    case 9: kj::runCatchingExceptions([&]() { decodeRepositoryNaming(payload); }); break;
    case 10: kj::runCatchingExceptions([&]() { decodeRepositoryFork(payload); }); break;
    default:
      kj::runCatchingExceptions([&]() { HotRow::decode(textOf(payload)); });
      kj::runCatchingExceptions([&]() { TxnRow::decode(textOf(payload)); });
      kj::runCatchingExceptions([&]() { ReflogRow::decode(textOf(payload)); });
      kj::runCatchingExceptions([&]() { RepositoryRow::decode(RepositoryId(), textOf(payload)); });
      break;
  }
  return 0;
}
