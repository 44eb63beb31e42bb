// Goal: TLS files that cannot work are refused at start, by name and with the reason. Method: the
// files of a good node, changed in one way each.
#include "rpc/tls.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <kj/exception.h>

#include <fstream>

#include "peer_fixture.h"

namespace packmoor::rpc {
namespace {

using ::testing::EndsWith;
using ::testing::HasSubstr;

constexpr int64_t kDayMs = 24LL * 3600 * 1000;

class TlsTest : public ::testing::Test {
 protected:
  std::string refusal(const TlsFiles& files, const std::string& node = "a",
                      int64_t nowMs = wallClockMs()) {
    KJ_IF_MAYBE(e, kj::runCatchingExceptions([&]() { TlsMaterial::load(files, node, nowMs); })) {
      return e->getDescription().cStr();
    }
    return "";
  }
  std::string file(const std::string& name, const std::string& content) {
    const std::string path = folder.path(name);
    std::ofstream(path) << content;
    return path;
  }

  TestCertificates& certificates = TestCertificates::instance();
  TlsFiles good = certificates.files("a");
  testing::TempDir folder;
};

TEST_F(TlsTest, LoadsAndTellsItsEnd) {
  EXPECT_EQ(refusal(good), "");
  auto tls = TlsMaterial::load(good, "a", wallClockMs());
  EXPECT_NEAR(static_cast<double>(tls->certificateEndsMs() - wallClockMs()) / kDayMs, 730, 1);
  EXPECT_NEAR(static_cast<double>(tls->authorityEndsMs() - wallClockMs()) / kDayMs, 3650, 1);
  EXPECT_EQ(tls->warning(wallClockMs()), "");
  EXPECT_THAT(tls->warning(wallClockMs() + 720 * kDayMs), HasSubstr("a.crt expires on "));
  EXPECT_THAT(tls->warning(wallClockMs() + 740 * kDayMs), HasSubstr("a.crt expired on "));
}

TEST_F(TlsTest, MissingFiles) {
  auto files = good;
  files.key = "/nowhere/a.key";
  EXPECT_EQ(refusal(files), "Cannot read this node's key /nowhere/a.key: No such file or directory.");
  files = good;
  files.certificate = "/nowhere/a.crt";
  EXPECT_THAT(refusal(files), HasSubstr("this node's certificate /nowhere/a.crt"));
  files = good;
  files.authority = "";
  EXPECT_EQ(refusal(files), "No file is configured for the cluster's authority.");
}

TEST_F(TlsTest, FilesOfAnotherKind) {
  auto files = good;
  files.certificate = file("text", "hello\n");
  EXPECT_THAT(refusal(files), HasSubstr("holds no PEM certificate"));
  files.certificate = file("damaged", "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n");
  EXPECT_THAT(refusal(files), HasSubstr("is damaged"));
  files = good;
  files.key = good.certificate;
  EXPECT_THAT(refusal(files), HasSubstr("is not a private key in PEM without a passphrase."));
}

TEST_F(TlsTest, WhatDoesNotBelongTogether) {
  auto files = good;
  files.key = certificates.files("b").key;
  EXPECT_THAT(refusal(files), HasSubstr("does not belong to the certificate"));
  EXPECT_THAT(refusal(good, "b"), HasSubstr("is of \"a\", but this node is \"b\"."));
  files = good;
  files.authority = certificates.foreignFiles("a").authority;
  EXPECT_THAT(refusal(files), HasSubstr("is not signed by " + files.authority));
}

TEST_F(TlsTest, OutsideItsDates) {
  EXPECT_THAT(refusal(good, "a", wallClockMs() + 800 * kDayMs), HasSubstr("expired on "));
  EXPECT_THAT(refusal(good, "a", wallClockMs() - 10 * kDayMs),
              EndsWith("on; check the clock of this machine."));
}

TEST_F(TlsTest, ForEtcdACertificateMayBeMissingOrNameAnybody) {
  auto problem = [](const TlsFiles& files, int64_t nowMs = wallClockMs()) -> std::string {
    KJ_IF_MAYBE(e, kj::runCatchingExceptions([&]() { TlsMaterial::loadForClient(files, nowMs); })) {
      return e->getDescription().cStr();
    }
    return "";
  };
  EXPECT_EQ(problem(good), "");
  auto files = good;
  files.certificate = files.key = "";
  EXPECT_EQ(problem(files), "");
  EXPECT_THAT(TlsMaterial::loadForClient(files, wallClockMs())->warning(wallClockMs() + 3645 * kDayMs),
              HasSubstr("ca.crt expires on "));
  files = good;
  files.authority = certificates.foreignFiles("a").authority;
  EXPECT_EQ(problem(files), "") << "etcd's authority need not be that of our certificate";
  files.authority = "/nowhere/ca";
  EXPECT_EQ(problem(files), "Cannot read etcd's authority /nowhere/ca: No such file or directory.");
  files = good;
  files.key = certificates.files("b").key;
  EXPECT_THAT(problem(files), HasSubstr("does not belong to the certificate"));
  EXPECT_THAT(problem(good, wallClockMs() + 800 * kDayMs), HasSubstr("expired on "));
}

}  // namespace
}  // namespace packmoor::rpc
