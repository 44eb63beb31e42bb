// sentenceOf: what an exception says, for a person.
//
// KJ puts the failed condition before what was written about it ("expected x == y; the name is
// taken; name = a"), values behind it, and at times a stack of addresses. People get the sentence:
// "The name is taken (name: a)."
#pragma once

#include <kj/exception.h>

#include <string>

namespace packmoor::rpc {

std::string sentenceOf(const kj::Exception& exception);
std::string sentenceOf(std::string description);

}  // namespace packmoor::rpc
