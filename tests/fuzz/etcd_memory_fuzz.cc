// module: rpc
// Goal: whatever stands in a node's file about etcd, or in etcd's marker of a past, is either refused
// with a KJ exception or survives being written and read again. The first byte chooses: a marker, the
// file as it is, or the file's JSON below a checksum that is right.
#include "decoder_fuzz.h"
#include "rpc/etcd_memory.h"

#include <replicator/types.h>

#include <cstdint>
#include <string>
#include <string_view>

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  using namespace packmoor::rpc;  // NOLINT: a program's source
  using packmoor::fuzz::attempt;
  using packmoor::fuzz::require;
  if (size == 0) return 0;
  const std::string_view text(reinterpret_cast<const char*>(data) + 1, size - 1);
  if (data[0] % 3 == 0) {
    auto marker = attempt([&]() { return markerFromJson(text); });
    if (!marker) return 0;
    auto again = attempt([&]() { return markerFromJson(markerToJson(*marker)); });
    require(again && again->past == marker->past);
    require(again->continues.size() == marker->continues.size());
    return 0;
  }
  std::string whole(text);
  if (data[0] % 3 == 2) {
    auto hash = packmoor::replicator::hashBytes(kj::arrayPtr(text.data(), text.size()).asBytes());
    whole = std::string("packmoor-etcd-memory 1 ") + hash.text().cStr() + "\n" + whole;
  }
  auto memory = attempt([&]() { return memoryFromText(whole); });
  if (!memory) return 0;
  auto again = attempt([&]() { return memoryFromText(memoryToText(*memory)); });
  require(again && again->clusterId == memory->clusterId && again->revision == memory->revision);
  require(again->volumes.size() == memory->volumes.size());
  require(again->nodes.size() == memory->nodes.size());
  return 0;
}
