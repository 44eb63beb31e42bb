// Goal: an ssh client's command is git's or is refused, never given to a shell; the file of keys names at
// most whom it names; what sshd is told to run is what was meant. Method: the forms that git writes, and
// odd ones.
#include "rpc/ssh_command.h"
#include "rpc/ssh_keys.h"

#include <gtest/gtest.h>

namespace packmoor::rpc {
namespace {

using gitlayer::GitService;

#define EXPECT_HAS(text, part) EXPECT_NE((text).find(part), std::string::npos) << (text)

TEST(SshCommandTest, GitsCommandsAreRead) {
  auto fetch = parseSshCommand("git-upload-pack '/team/app.git'");
  EXPECT_EQ(fetch.problem, "");
  EXPECT_EQ(fetch.service, GitService::kUploadPack);
  EXPECT_EQ(fetch.repository, "/team/app.git");
  auto push = parseSshCommand("git-receive-pack 'it'\\''s'\\!' odd'");
  EXPECT_EQ(push.problem, "");
  EXPECT_EQ(push.service, GitService::kReceivePack);
  EXPECT_EQ(push.repository, "it's! odd");
  EXPECT_EQ(parseSshCommand("git receive-pack r").service, GitService::kReceivePack);
  EXPECT_EQ(parseSshCommand("git upload-pack  r ").repository, "r");
  auto archive = parseSshCommand("git-upload-archive '/team/app.git'");
  EXPECT_EQ(archive.problem, "");
  EXPECT_EQ(archive.service, GitService::kUploadArchive);
  EXPECT_EQ(archive.repository, "/team/app.git");
}

TEST(SshCommandTest, EverythingElseIsRefusedWithASentence) {
  EXPECT_HAS(parseSshCommand("bash -i").problem, "for git only: it does not run \"bash -i\"");
  EXPECT_HAS(parseSshCommand("git-upload-pack").problem, "does not name one repository");
  EXPECT_HAS(parseSshCommand("git-upload-pack ''").problem, "does not name one repository");
  EXPECT_HAS(parseSshCommand("git-upload-pack 'a' 'b'").problem, "does not name one repository");
  EXPECT_HAS(parseSshCommand("git-upload-pack 'a").problem, "does not name one repository");
  EXPECT_HAS(parseSshCommand("git-upload-pack a\\").problem, "does not name one repository");
  EXPECT_HAS(parseSshCommand("git-upload-pack 'a';rm").repository, "a;rm");   // a name like any other
  EXPECT_HAS(parseSshCommand("git gc 'a'").problem, "for git only");
  EXPECT_HAS(parseSshCommand(std::string(9000, 'a')).problem, "too long");
  const std::string shown = parseSshCommand("x\x1b[31m\n").problem;
  EXPECT_EQ(shown.find('\x1b'), std::string::npos);
  EXPECT_EQ(shown.find('\n'), std::string::npos);
}

TEST(SshCommandTest, TheHighestProtocolVersionCounts) {
  EXPECT_EQ(gitProtocolVersion(""), 0u);
  EXPECT_EQ(gitProtocolVersion("version=1"), 1u);
  EXPECT_EQ(gitProtocolVersion("key=x:version=2"), 2u);
  EXPECT_EQ(gitProtocolVersion("version=2:version=1"), 2u);
  EXPECT_EQ(gitProtocolVersion("version=20"), 0u);
}

constexpr const char* kFile =
    "# people\n"
    "\n"
    "alice ssh-ed25519 AAAAalice alice@example.org\r\n"
    "  bob\tssh-rsa AAAAbob\n"
    "not a key!\n"
    "-o ssh-rsa AAAAoption\n"
    "carol ssh-ed25519 AAAAshared\n"
    "dave ssh-ed25519 AAAAshared";

TEST(SshKeysTest, AKeyNamesItsUserAndOddLinesAreTold) {
  auto alice = findSshKey(kFile, "ssh-ed25519", "AAAAalice");
  EXPECT_EQ(alice.users, std::vector<std::string>{"alice"});
  ASSERT_EQ(alice.problems.size(), 2u);
  EXPECT_HAS(alice.problems[0], "Line 5 is not USER TYPE KEY");
  EXPECT_HAS(alice.problems[1], "Line 6 is not USER TYPE KEY");
  EXPECT_EQ(findSshKey(kFile, "ssh-rsa", "AAAAbob").users, std::vector<std::string>{"bob"});
  EXPECT_TRUE(findSshKey(kFile, "ssh-rsa", "AAAAalice").users.empty());
  EXPECT_TRUE(findSshKey(kFile, "ssh-ed25519", "AAAA").users.empty());
  EXPECT_EQ(findSshKey(kFile, "ssh-ed25519", "AAAAshared").users.size(), 2u);
  EXPECT_TRUE(findSshKey("", "ssh-rsa", "AAAA").users.empty());
}

TEST(SshKeysTest, ALineForSshdRunsTheProgramAndNothingElse) {
  EXPECT_EQ(authorizedKeyLine("/usr/bin/packmoor-shell", "/run/git.sock", "alice", "ssh-rsa", "AAAA"),
            "restrict,command=\"'/usr/bin/packmoor-shell' --socket '/run/git.sock' --user 'alice'\" "
            "ssh-rsa AAAA\n");
  // sshd takes \" for a quote; the shell that it starts takes '\'' for one.
  EXPECT_HAS(authorizedKeyLine("/p", "/a'b\"c", "u", "t", "k"), "--socket '/a'\\''b\\\"c'");
}

}  // namespace
}  // namespace packmoor::rpc
