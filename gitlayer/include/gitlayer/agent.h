// What Packmoor calls itself in git's protocols.
#pragma once

#include <string_view>

namespace packmoor::gitlayer {

extern const std::string_view kAgent;  // "packmoor/<version>"

}  // namespace packmoor::gitlayer
