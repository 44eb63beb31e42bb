// Outcome: what became of work that may fail, as a value.
//
// Why: a coroutine must not wait in a catch block, and much of the protocol goes on after a
// failure (another member is asked, a pause is made). outcomeOf() turns a promise into one that
// never rejects.
#pragma once

#include <kj/async.h>
#include <kj/exception.h>

#include <optional>
#include <utility>

namespace packmoor::replicator {

template <typename T>
struct Outcome {
  std::optional<T> value;             // absent: it failed
  kj::Maybe<kj::Exception> exception;
  bool ok() const { return value.has_value(); }
};

template <typename T>
kj::Promise<Outcome<T>> outcomeOf(kj::Promise<T> work) {
  return work.then([](T&& value) { return Outcome<T>{std::move(value), nullptr}; },
                   [](kj::Exception&& e) { return Outcome<T>{std::nullopt, kj::mv(e)}; });
}

// nullptr: it succeeded.
inline kj::Promise<kj::Maybe<kj::Exception>> outcomeOf(kj::Promise<void> work) {
  return work.then([]() -> kj::Maybe<kj::Exception> { return nullptr; },
                   [](kj::Exception&& e) -> kj::Maybe<kj::Exception> { return kj::mv(e); });
}

}  // namespace packmoor::replicator
