// What an ssh client asks sshd to run, as far as it is git's (gitprotocol-pack(5), ssh transport).
//
//   git-upload-pack '/team/app.git'      git upload-pack 'team/app'      git-upload-archive 'team/app'
//
// The path is quoted by git for a shell: in single quotes, with '\'' and '\!' for these characters.
// Nothing is ever given to a shell here. Thread-safe.
#pragma once

#include "gitlayer/git_front.h"

#include <string>
#include <string_view>

namespace packmoor::rpc {

struct SshCommand {
  std::string problem;               // a sentence for the client's user; empty: the rest is set
  gitlayer::GitService service = gitlayer::GitService::kUploadPack;
  std::string repository;            // as written, without quotes
};
SshCommand parseSshCommand(std::string_view text);

// The highest version that GIT_PROTOCOL names ("version=2"; several keys are separated by ':').
uint32_t gitProtocolVersion(std::string_view text);

}  // namespace packmoor::rpc
