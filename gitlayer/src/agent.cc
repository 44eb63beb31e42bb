#include "gitlayer/agent.h"

namespace packmoor::gitlayer {

const std::string_view kAgent = "packmoor/" PACKMOOR_VERSION;

}  // namespace packmoor::gitlayer
