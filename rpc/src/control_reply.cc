#include "control_reply.h"

#include <rpc/sentence.h>

#include <cstring>

namespace packmoor::rpc {

using control::Response;

void fail(Response& response, control::ErrorCode code, std::string message, std::string cause,
          std::string advice) {
  response.clear_body();
  control::Error& error = *response.mutable_error();
  error.set_code(code);
  error.set_message(kj::mv(message));
  error.set_cause(kj::mv(cause));
  error.set_advice(kj::mv(advice));
}

namespace {

// The replicator says in words whether a failed transaction may still happen.
bool outcomeUnknown(const kj::Exception& e) {
  kj::StringPtr text = e.getDescription();
  return strstr(text.cStr(), "whether the transaction was committed is unknown") != nullptr;
}
bool nothingChanged(const kj::Exception& e) {
  kj::StringPtr text = e.getDescription();
  return e.getType() == kj::Exception::Type::OVERLOADED ||
         strstr(text.cStr(), "was not committed and will not be") != nullptr;
}

}  // namespace

void failFrom(const kj::Exception& e, bool changes, std::string what, Response& response) {
  std::string cause = sentenceOf(e);
  bool disconnected = e.getType() == kj::Exception::Type::DISCONNECTED;
  if (changes && (outcomeUnknown(e) || (disconnected && !nothingChanged(e)))) {
    return fail(response, control::ERROR_UNKNOWN_OUTCOME, kj::mv(what), kj::mv(cause),
                "Look at the present state before trying again.");
  }
  if (nothingChanged(e) || disconnected) {
    return fail(response, control::ERROR_NO_QUORUM, kj::mv(what), kj::mv(cause),
                "See `packmoorctl status` for what is missing.");
  }
  fail(response, control::ERROR_REFUSED, kj::mv(what), kj::mv(cause), "");
}

}  // namespace packmoor::rpc
