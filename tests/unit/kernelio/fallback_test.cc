// Goal: where the kernel refuses io_uring, the disk runs on threads and says why; where io_uring is
// demanded, the refusal is a sentence. Method: a thread that filters its own system calls.
#include "kernelio/ring_disk.h"

#include "support/temp_dir.h"

#include <gtest/gtest.h>
#include <kj/async-io.h>
#include <kj/debug.h>

#include <linux/filter.h>
#include <linux/seccomp.h>
#include <sys/prctl.h>
#include <sys/syscall.h>
#include <sys/uio.h>

#include <cerrno>
#include <cstddef>
#include <string>
#include <thread>

namespace packmoor::kernelio {
namespace {

// From here on, io_uring_setup fails for this thread and those that it starts.
bool refuseIoUring(int error) {
  sock_filter rules[] = {
      BPF_STMT(BPF_LD | BPF_W | BPF_ABS, offsetof(seccomp_data, nr)),
      BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, __NR_io_uring_setup, 0, 1),
      BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ERRNO | static_cast<unsigned>(error)),
      BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ALLOW),
  };
  sock_fprog program{sizeof(rules) / sizeof(rules[0]), rules};
  return prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) == 0 &&
         prctl(PR_SET_SECCOMP, SECCOMP_MODE_FILTER, &program) == 0;
}

struct Outcome {
  bool filtered = false;
  std::string backend, reason, refusal;
  bool works = false;
};

Outcome withoutIoUring(int error) {
  Outcome outcome;
  std::thread thread([&outcome, error]() {
    outcome.filtered = refuseIoUring(error);
    if (!outcome.filtered) return;
    testing::TempDir folder;
    auto io = kj::setupAsyncIo();
    auto made = makeDisk(io.unixEventPort, DiskBackend::kAuto, folder.path().c_str());
    outcome.backend = made.disk->backend().cStr();
    outcome.reason = made.fallbackReason.cStr();
    replaceFile(*made.disk, "a", kj::StringPtr("text").asBytes()).wait(io.waitScope);
    outcome.works = readWholeFile(*made.disk, "a", 10).wait(io.waitScope) != nullptr;
    auto refusal = kj::runCatchingExceptions([&]() {
      makeDisk(io.unixEventPort, DiskBackend::kIoUring, folder.path().c_str());
    });
    KJ_IF_MAYBE (e, refusal) { outcome.refusal = e->getDescription().cStr(); }
  });
  thread.join();
  return outcome;
}

TEST(DiskFallback, ThreadsTakeOverAndTheReasonIsTold) {
  Outcome off = withoutIoUring(EPERM);
  if (!off.filtered) GTEST_SKIP() << "system calls cannot be filtered here";
  EXPECT_EQ(off.backend, "threads");
  EXPECT_NE(off.reason.find("kernel.io_uring_disabled"), std::string::npos) << off.reason;
  EXPECT_TRUE(off.works);
  EXPECT_NE(off.refusal.find("demanded by the configuration"), std::string::npos) << off.refusal;

  Outcome absent = withoutIoUring(ENOSYS);
  EXPECT_EQ(absent.reason, "This kernel has no io_uring.");
  EXPECT_EQ(absent.backend, "threads");
}

}  // namespace
}  // namespace packmoor::kernelio
