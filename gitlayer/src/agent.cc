#include "gitlayer/agent.h"

#include "receive_commands.h"

#include <kj/debug.h>

namespace packmoor::gitlayer {

const std::string_view kAgent = "packmoor/" PACKMOOR_VERSION;

std::string newSessionId(kernelio::Random& random) {
  const uint64_t number = random.next();
  return kj::str("packmoor-", kj::hex(number)).cStr();
}

std::string shownSession(std::string_view id) { return shownText(id); }

void logSession(const char* what, const std::string& session, const std::string& ownSession,
                const GitRequest& request) {
  if (session.empty()) return;
  KJ_LOG(INFO, "A client told its session", what, session, ownSession, request.requestId, request.repository,
         request.principal);
}

}  // namespace packmoor::gitlayer
