#include "kernelio/loop_mailbox.h"

#include "kernelio/check.h"

#include <kj/debug.h>

#include <sys/eventfd.h>
#include <unistd.h>

#include <cerrno>

namespace packmoor::kernelio {

struct LoopMailbox::Reader {
  Reader(LoopMailbox& box, kj::UnixEventPort& port)
      : box(box), observer(port, box.wakeFd_, kj::UnixEventPort::FdObserver::OBSERVE_READ) {
    loop = wait().eagerlyEvaluate([](kj::Exception&& exception) {
      PACKMOOR_CHECK(false, "reading a mailbox failed: ", exception.getDescription());
    });
  }

  kj::Promise<void> wait() {
    return observer.whenBecomesReadable().then([this]() {
      deliver();
      return wait();
    });
  }

  void deliver() {
    uint64_t count;
    ssize_t got = ::read(box.wakeFd_, &count, sizeof(count));
    PACKMOOR_CHECK(got == sizeof(count) || errno == EAGAIN, "reading an eventfd", errno);
    std::vector<Letter> letters;
    {
      std::lock_guard<std::mutex> lock(box.mutex_);
      letters.swap(box.letters_);
      box.woken_ = false;
    }
    for (Letter& letter : letters) letter();
  }

  LoopMailbox& box;
  kj::UnixEventPort::FdObserver observer;
  kj::Promise<void> loop = nullptr;
};

std::shared_ptr<LoopMailbox> LoopMailbox::create(kj::UnixEventPort& port) {
  int fd;
  KJ_SYSCALL(fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK));
  auto box = std::make_shared<LoopMailbox>(Key(), kj::AutoCloseFd(fd));
  box->reader_ = kj::heap<Reader>(*box, port);
  return box;
}

LoopMailbox::LoopMailbox(Key, kj::AutoCloseFd wakeFd) noexcept : wakeFd_(kj::mv(wakeFd)) {}

LoopMailbox::~LoopMailbox() noexcept {}

void LoopMailbox::close() {
  reader_ = nullptr;
  std::vector<Letter> letters;
  std::lock_guard<std::mutex> lock(mutex_);
  letters.swap(letters_);
}

void LoopMailbox::post(Letter letter) {
  std::lock_guard<std::mutex> lock(mutex_);
  letters_.push_back(kj::mv(letter));
  if (woken_) return;
  woken_ = true;
  uint64_t one = 1;
  ssize_t put = ::write(wakeFd_, &one, sizeof(one));
  PACKMOOR_CHECK(put == sizeof(one), "writing an eventfd", errno);
}

}  // namespace packmoor::kernelio
