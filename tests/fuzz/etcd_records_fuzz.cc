// module: rpc
// Goal: whatever stands in etcd is either refused with a KJ exception or is a record that survives
// being written and read again. The first byte chooses between a volume and a node.
#include "decoder_fuzz.h"
#include "rpc/etcd_records.h"

#include <cstdint>
#include <string_view>

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  using namespace packmoor::rpc;  // NOLINT: a program's source
  using packmoor::fuzz::attempt;
  using packmoor::fuzz::require;
  if (size == 0) return 0;
  const std::string_view text(reinterpret_cast<const char*>(data) + 1, size - 1);
  if (data[0] % 2 == 0) {
    auto volume = attempt([&]() { return volumeFromJson(text, 7); });
    if (!volume) return 0;
    auto again = volumeFromJson(volumeToJson(*volume), 7);
    require(again.id == volume->id && again.name == volume->name);
    require(again.current == volume->current && again.lastActive == volume->lastActive);
    require(again.phase == volume->phase && again.revision == volume->revision);
    require(modRevisionOf(volume->revision) == 7);
  } else {
    auto node = attempt([&]() { return nodeFromJson(text); });
    if (!node) return 0;
    auto again = attempt([&]() { return nodeFromJson(nodeToJson(*node)); });
    require(again && again->node == node->node && again->rpcAddress == node->rpcAddress);
  }
  return 0;
}
