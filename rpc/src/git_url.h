// What a git client's URL asks for.
#pragma once

#include <gitlayer/git_front.h>

#include <string>
#include <string_view>

namespace packmoor::rpc {

enum class GitTarget : uint8_t {
  kInfoRefs,    // the advertisement of `service`
  kService,     // a request to `service`
  kDumb,        // what a client of the dumb protocol asks for
  kHealth,
  kRoot,
  kUnknown,     // no path of ours
  kBad,         // not a path at all: `problem`
};

struct GitUrl {
  GitTarget target = GitTarget::kUnknown;
  std::string repository;               // decoded, with ".git" if it was there
  gitlayer::GitService service = gitlayer::GitService::kUploadPack;
  std::string problem;                  // kBad: a sentence
};

// `url` is the request target as sent, path and query. Percent-encoding is decoded once; a path
// with an empty, "." or ".." part, a control character or a backslash is kBad.
GitUrl parseGitUrl(std::string_view url);

}  // namespace packmoor::rpc
