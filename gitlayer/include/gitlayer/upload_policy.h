// UploadPolicy: what clients of upload-pack may ask of one repository (git-config(1), uploadpack.*).
#pragma once

#include <cstdint>

namespace packmoor::gitlayer {

struct UploadPolicy {
  enum class Wants : uint8_t {
    kTips,        // values of refs
    kReachable,   // what refs reach: partial clones fetch single objects later
    kAny,         // whatever the repository holds
  };
  Wants wants = Wants::kReachable;
  bool hiddenTips = false;   // also values of hidden refs
  bool filters = true;       // partial clones
  bool refInWant = true;     // protocol 2: wants by the name of a ref
  bool sidebandAll = true;   // protocol 2
  bool objectInfo = true;    // protocol 2: sizes of objects
  uint32_t keepAliveSeconds = 5;   // after which a silent client is told that it is served; 0: never
};

}  // namespace packmoor::gitlayer
