#include "libgit2_init.h"

#include <kj/debug.h>

#include <git2/common.h>
#include <git2/global.h>

namespace packmoor::gitlayer {

namespace {

bool start() {
  KJ_REQUIRE(git_libgit2_init() >= 1, "libgit2 does not start");
  // What is read through our backends was hashed when it came in and is protected by block
  // checksums; libgit2 need not hash each object again.
  git_libgit2_opts(GIT_OPT_ENABLE_STRICT_HASH_VERIFICATION, 0);
  return true;
}

}  // namespace

void initLibgit2() {
  static const bool kStarted = start();
  (void)kStarted;
}

}  // namespace packmoor::gitlayer
