// module: gitlayer
// The packets before a pack, from arbitrary lines: whatever the policy lets through has a well-formed name,
// and bounds hold.
#include "receive_policy.h"

#include <kernelio/check.h>

using namespace packmoor::gitlayer;

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  std::string_view text(reinterpret_cast<const char*>(data), size);
  ReceiveCommands request(16);
  bool good = true;
  while (good && !text.empty()) {
    size_t end = text.find('\n');
    good = request.add(text.substr(0, end));
    text.remove_prefix(end == std::string_view::npos ? text.size() : end + 1);
  }
  PACKMOOR_CHECK(good == request.refusal().empty());
  PACKMOOR_CHECK(request.commands().size() <= 16);
  for (const auto& command : request.commands()) {
    if (isFunnyRef(command)) continue;
    PACKMOOR_CHECK(isValidRefName(command.update.name));
    PACKMOOR_CHECK(command.update.name.size() <= kRefNameBytesMax);
  }
  request.addPushOption(std::string_view(reinterpret_cast<const char*>(data), size));
  return 0;
}
