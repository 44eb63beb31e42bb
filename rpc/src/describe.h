// The short cause in what KJ, OpenSSL or the system say about a failure, for sentences.
#pragma once

#include <kj/exception.h>

#include <string>

namespace packmoor::rpc {

// "connect(fd): Connection refused" gives "Connection refused"; OpenSSL's
// "...; message = error:0A000126:SSL routines::unexpected eof while reading" gives
// "unexpected eof while reading"; KJ's "...; reason = hostname mismatch" gives "hostname mismatch".
// Other descriptions are given as they are. Without a full stop.
std::string describeCause(const kj::Exception& exception);

}  // namespace packmoor::rpc
