// How the control socket's requests fail: one place for the codes and the words.
#pragma once

#include <rpc/control.pb.h>

#include <kj/exception.h>

#include <string>

namespace packmoor::rpc {

void fail(control::Response& response, control::ErrorCode code, std::string message,
          std::string cause, std::string advice);

// `changes`: the request may have changed something; `what`: the sentence that heads the error.
void failFrom(const kj::Exception& e, bool changes, std::string what,
              control::Response& response);

}  // namespace packmoor::rpc
