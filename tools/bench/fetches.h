// Requests that clients send, again and again: clones, fetches, lists of refs.
#pragma once

#include "http_client.h"

#include <string>
#include <vector>

namespace packmoor::bench {

struct FetchLoad {
  std::vector<Url> urls;
  std::string body;                 // of each request, in protocol 2
  std::string target;               // not empty: what to GET below the URL instead
  size_t connections = 1, requests = 1;
};
struct FetchResult {
  double seconds = 0;
  uint64_t bytes = 0;
  std::vector<double> latenciesUs;
};
// Throws a sentence when an answer is not a whole one.
FetchResult runFetches(const FetchLoad& load);

}  // namespace packmoor::bench
