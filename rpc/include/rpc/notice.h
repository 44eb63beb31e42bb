// Notice: a sentence for the operator, from an endpoint to the node's log.
//
// Endpoints do not know the log; who builds them says where notices go. A null function drops
// them to KJ's own log.
#pragma once

#include <kj/string.h>

#include <cstdint>
#include <functional>

namespace packmoor::rpc {

enum class NoticeLevel : uint8_t { kInfo, kWarning };
using NoticeSink = std::function<void(NoticeLevel level, kj::StringPtr sentence)>;

// Gives `sentence` to `sink`, or to KJ's log when there is none.
void notify(const NoticeSink& sink, NoticeLevel level, kj::StringPtr sentence);

}  // namespace packmoor::rpc
