// packmoor-shell: what sshd runs for a git user, as the forced command of the user's key.
#include "relay.h"

#include <rpc/ssh_keys.h>

#include <CLI/CLI.hpp>

#include <cstdio>
#include <cstdlib>
#include <fstream>
#include <iostream>
#include <iterator>

namespace packmoor::shell {
namespace {

// Exit codes: 0 served, 1 refused, 2 wrong usage, 3 the node cannot be reached.
constexpr int kRefused = 1, kWrongUsage = 2, kUnreachable = 3;
constexpr std::streamsize kKeysBytesMax = 64 << 20;

constexpr const char* kFooter = R"(
For sshd_config(5), with the account "git" and its shell /bin/sh:

  Match User git
    AuthorizedKeysCommand /usr/bin/packmoor-shell authorized-keys --keys /etc/packmoor/ssh_keys %t %k
    AuthorizedKeysCommandUser nobody
    AuthorizedKeysFile none
    AcceptEnv GIT_PROTOCOL
    PasswordAuthentication no

A line of /etc/packmoor/ssh_keys is a user's name and the user's public key:

  alice ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAA... alice@example.org

The account must be a member of the group that ssh.group names in the node's configuration.
Exit codes: 0 served, 1 refused, 2 wrong usage, 3 the node cannot be reached.
)";

const char* environment(const char* name) {
  const char* value = std::getenv(name);
  return value == nullptr ? "" : value;
}

// "10.0.0.7:52344", of sshd's SSH_CONNECTION ("ADDRESS PORT OWN-ADDRESS OWN-PORT").
std::string clientAddress() {
  const std::string connection = environment("SSH_CONNECTION");
  const size_t space = connection.find(' ');
  if (space == std::string::npos) return {};
  return connection.substr(0, space) + ":" +
         connection.substr(space + 1, connection.find(' ', space + 1) - space - 1);
}

int serve(const std::string& socket, const std::string& user, const std::string& command) {
  if (command.empty()) {
    std::fprintf(stderr, "Hello%s%s. You are authenticated; this account is for git only, and has no "
                         "shell.\n", user.empty() ? "" : ", ", user.c_str());
    return kRefused;
  }
  Request request;
  request.command = rpc::parseSshCommand(command);
  if (!request.command.problem.empty()) {
    std::fprintf(stderr, "%s\n", request.command.problem.c_str());
    return kRefused;
  }
  request.protocolVersion = rpc::gitProtocolVersion(environment("GIT_PROTOCOL"));
  request.user = user;
  request.client = clientAddress();
  try {
    relay(socket, request);
    return 0;
  } catch (const RelayFailure& failure) {
    std::fprintf(stderr, "%s\n", failure.what());
    return failure.refused ? kRefused : kUnreachable;
  }
}

// For sshd: prints nothing for a key that nobody has. Problems go to standard error, which sshd logs.
int authorizedKeys(const std::string& program, const std::string& socket, const std::string& path,
                   const std::string& type, const std::string& key) {
  std::ifstream file(path, std::ios::binary);
  std::string text((std::istreambuf_iterator<char>(file)), std::istreambuf_iterator<char>());
  if (!file || text.size() > static_cast<size_t>(kKeysBytesMax)) {
    std::fprintf(stderr, "%s cannot be read, or is larger than 64 MiB.\n", path.c_str());
    return kRefused;
  }
  const auto match = rpc::findSshKey(text, type, key);
  for (const std::string& problem : match.problems) {
    std::fprintf(stderr, "%s: %s\n", path.c_str(), problem.c_str());
  }
  if (match.users.size() > 1) {
    std::fprintf(stderr, "%s: The key of %s is also that of %s. Give each user a key of their own.\n",
                 path.c_str(), match.users[0].c_str(), match.users[1].c_str());
    return kRefused;
  }
  for (const std::string& user : match.users) {
    std::cout << rpc::authorizedKeyLine(program, socket, user, type, key);
  }
  return 0;
}

int run(int argc, char** argv) {
  CLI::App app("Serves git over ssh: the forced command of git users' keys.", "packmoor-shell");
  std::string socket = "/run/packmoor/git.sock", user, keys, type, key, program = "/usr/bin/packmoor-shell";
  app.set_version_flag("--version", std::string("packmoor-shell " PACKMOOR_VERSION));
  app.footer(kFooter);
  app.add_option("--socket", socket, "The node's git socket (ssh.socket)")->capture_default_str();
  app.add_option("--user", user, "Whom sshd has authenticated");
  // As git runs ssh: options, the host, the command.
  std::string options, host, command;
  auto* local = app.add_subcommand("local", "In place of ssh on this node: GIT_SSH_COMMAND=\"packmoor-shell local\"");
  local->fallthrough();
  local->add_option("-o", options, "Not used");
  local->add_option("HOST", host, "Not used")->required();
  local->add_option("COMMAND", command, "What git asks for")->required();
  auto* list = app.add_subcommand("authorized-keys", "For sshd: the line of a key that a user has");
  list->fallthrough();
  list->add_option("--keys", keys, "The file of users' keys")->required();
  list->add_option("--program", program, "What the key may run")->capture_default_str();
  list->add_option("TYPE", type, "sshd's %t")->required();
  list->add_option("KEY", key, "sshd's %k")->required();
  try {
    app.parse(argc, argv);
  } catch (const CLI::ParseError& error) {
    return app.exit(error) == 0 ? 0 : kWrongUsage;
  }
  if (!user.empty() && !rpc::isSshUser(user)) {
    std::fprintf(stderr, "\"%s\" is no user's name.\n", user.c_str());
    return kWrongUsage;
  }
  if (list->parsed()) return authorizedKeys(program, socket, keys, type, key);
  return serve(socket, user, local->parsed() ? command : environment("SSH_ORIGINAL_COMMAND"));
}

}  // namespace
}  // namespace packmoor::shell

int main(int argc, char** argv) { return packmoor::shell::run(argc, argv); }
