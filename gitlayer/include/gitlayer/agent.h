// What Packmoor calls itself in git's protocols, and how its sessions and those of clients are told apart.
//
// A client with transfer.advertiseSID tells the id of its trace2 session where the server tells one of its own
// (gitprotocol-capabilities(5), session-id). It is logged with the request, so that a trace that a client's
// user has can be found in the log of the node that served it, and the other way round.
#pragma once

#include "gitlayer/git_front.h"

#include <string>
#include <string_view>

namespace packmoor::gitlayer {

extern const std::string_view kAgent;  // "packmoor/<version>"

// "packmoor-" and up to 16 hex digits
std::string newSessionId(kernelio::Random& random);
// What a client told as its session-id, fit for a log line.
std::string shownSession(std::string_view id);
// One line at level info, unless the client told no session. `what`: "push" or "fetch".
void logSession(const char* what, const std::string& session, const std::string& ownSession,
                const GitRequest& request);

}  // namespace packmoor::gitlayer
