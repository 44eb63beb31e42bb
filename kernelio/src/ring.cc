#include "kernelio/ring.h"

#include "kernelio/check.h"

#include <kj/debug.h>

#include <liburing.h>
#include <sys/eventfd.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <cerrno>
#include <cstring>
#include <deque>
#include <unordered_map>

namespace packmoor::kernelio {

namespace {

struct Operation {
  uint8_t opcode = IORING_OP_NOP;
  SharedFd fd;
  IoBuffer buffer;
  uint64_t offset = 0;
  uint64_t bytes = 0;
  int flags = 0;
  kj::Own<kj::PromiseFulfiller<int32_t>> fulfiller;
};

constexpr uint8_t kOpcodes[] = {IORING_OP_READ, IORING_OP_WRITE, IORING_OP_FSYNC,
                                IORING_OP_FALLOCATE};

kj::String describeSetupError(int error) {
  switch (error) {
    case ENOSYS:
      return kj::str("This kernel has no io_uring.");
    case EPERM:
    case EACCES:
      return kj::str(
          "io_uring is switched off here: see the sysctl kernel.io_uring_disabled, or the "
          "container's system call filter.");
    case ENOMEM:
      return kj::str("There is not enough lockable memory for io_uring: raise LimitMEMLOCK.");
    default:
      return kj::str("io_uring could not be set up: ", strerrordesc_np(error), ".");
  }
}

}  // namespace

class Ring::Impl {
 public:
  Impl(const io_uring& ring, kj::AutoCloseFd eventFd, kj::UnixEventPort& port, bool deferred,
       kj::String setup)
      : ring_(ring),
        deferred_(deferred),
        setup_(kj::mv(setup)),
        eventFd_(kj::mv(eventFd)),
        observer_(port, eventFd_, kj::UnixEventPort::FdObserver::OBSERVE_READ) {
    watch_ = watch().eagerlyEvaluate([](kj::Exception&& exception) {
      PACKMOOR_CHECK(false, "watching the ring failed: ", exception.getDescription());
    });
  }

  ~Impl() noexcept {
    // The kernel writes into buffers that live here: wait for it.
    closing_ = true;
    queue_.clear();
    while (!inFlight_.empty()) {
      int result = io_uring_submit_and_wait(&ring_, 1);
      PACKMOOR_CHECK(result >= 0 || result == -EINTR, "waiting for the ring's last operations: ",
                     strerrordesc_np(-result));
      reap();
    }
    io_uring_queue_exit(&ring_);
  }
  KJ_DISALLOW_COPY(Impl);

  kj::Promise<int32_t> start(Operation operation) {
    if (queue_.size() >= kQueueMax) {
      return kj::Exception(kj::Exception::Type::OVERLOADED, __FILE__, __LINE__,
                           kj::str("Too many disk operations are waiting (", kQueueMax,
                                   "): try again when the load is lower."));
    }
    ++stats_.operations;
    auto paf = kj::newPromiseAndFulfiller<int32_t>();
    operation.fulfiller = kj::mv(paf.fulfiller);
    queue_.push_back(kj::mv(operation));
    bool firstOfTurn = !flushPlanned_;
    if ((firstOfTurn && inFlight_.empty()) || queue_.size() >= kBatchMax) submit();
    if (firstOfTurn) {
      flushPlanned_ = true;
      flush_ = kj::evalLast([this]() {
                 flushPlanned_ = false;
                 submit();
               }).eagerlyEvaluate([](kj::Exception&& exception) {
        PACKMOOR_CHECK(false, "submitting to the ring failed: ", exception.getDescription());
      });
    }
    return kj::mv(paf.promise);
  }

  RingStats stats() const {
    RingStats stats = stats_;
    stats.inFlight = inFlight_.size();
    stats.queued = queue_.size();
    return stats;
  }
  kj::StringPtr setup() const { return setup_; }

 private:
  kj::Promise<void> watch() {
    return observer_.whenBecomesReadable().then([this]() {
      uint64_t count;
      ssize_t got = ::read(eventFd_, &count, sizeof(count));
      PACKMOOR_CHECK(got == sizeof(count) || errno == EAGAIN, "reading the ring's eventfd", errno);
      ++stats_.wakes;
      if (!inFlight_.empty()) enterForCompletions();
      submit();  // completions made room for what waits
      return watch();
    });
  }

  void enterForCompletions() {
    if (deferred_) {
      int result = io_uring_get_events(&ring_);
      PACKMOOR_CHECK(result >= 0 || result == -EINTR || result == -EAGAIN,
                     "entering the ring: ", strerrordesc_np(-result));
    }
    reap();
  }

  // Hands the kernel as much of the queue as it may have.
  void submit() {
    while (!queue_.empty() && inFlight_.size() < kInFlightMax) {
      uint64_t batch = 0;
      while (!queue_.empty() && inFlight_.size() < kInFlightMax && batch < kBatchMax) {
        io_uring_sqe* sqe = io_uring_get_sqe(&ring_);
        if (sqe == nullptr) break;
        prepare(sqe, queue_.front());
        uint64_t id = nextId_++;
        io_uring_sqe_set_data64(sqe, id);
        inFlight_.emplace(id, kj::mv(queue_.front()));
        queue_.pop_front();
        ++batch;
      }
      stats_.batchMax = std::max(stats_.batchMax, batch);
      stats_.inFlightMax = std::max<uint64_t>(stats_.inFlightMax, inFlight_.size());
      enterToSubmit();
    }
  }

  void enterToSubmit() {
    while (true) {
      int result =
          deferred_ ? io_uring_submit_and_get_events(&ring_) : io_uring_submit(&ring_);
      // Short of memory or with the completion queue full, the kernel asks to be called again.
      bool again = result == -EINTR || result == -EAGAIN || result == -EBUSY;
      PACKMOOR_CHECK(result >= 0 || again, "submitting to the ring: ", strerrordesc_np(-result));
      ++stats_.submits;
      reap();
      if (!again && io_uring_sq_ready(&ring_) == 0) return;
    }
  }

  void prepare(io_uring_sqe* sqe, Operation& operation) {
    int fd = *operation.fd;
    switch (operation.opcode) {
      case IORING_OP_READ:
        io_uring_prep_read(sqe, fd, operation.buffer.begin(), operation.bytes, operation.offset);
        break;
      case IORING_OP_WRITE:
        io_uring_prep_write(sqe, fd, operation.buffer.begin(), operation.bytes, operation.offset);
        sqe->rw_flags = operation.flags;
        break;
      case IORING_OP_FSYNC:
        io_uring_prep_fsync(sqe, fd, IORING_FSYNC_DATASYNC);
        break;
      case IORING_OP_FALLOCATE:
        io_uring_prep_fallocate(sqe, fd, 0, 0, operation.bytes);
        break;
    }
  }

  void reap() {
    io_uring_cqe* completions[kBatchMax];
    while (true) {
      unsigned count = io_uring_peek_batch_cqe(&ring_, completions, kBatchMax);
      if (count == 0) return;
      for (unsigned i = 0; i < count; ++i) {
        auto found = inFlight_.find(io_uring_cqe_get_data64(completions[i]));
        PACKMOOR_CHECK(found != inFlight_.end(), "a completion of no operation");
        if (!closing_) found->second.fulfiller->fulfill(int32_t{completions[i]->res});
        inFlight_.erase(found);
        ++stats_.completions;
      }
      io_uring_cq_advance(&ring_, count);
    }
  }

  io_uring ring_;
  bool deferred_;
  bool closing_ = false;
  kj::String setup_;
  uint64_t nextId_ = 1;
  std::deque<Operation> queue_;
  std::unordered_map<uint64_t, Operation> inFlight_;
  RingStats stats_;

  kj::AutoCloseFd eventFd_;
  kj::UnixEventPort::FdObserver observer_;
  bool flushPlanned_ = false;  // from the first operation of a turn until the turn's end
  kj::Promise<void> flush_ = nullptr;
  kj::Promise<void> watch_ = nullptr;
};

namespace {

// The best setup that this kernel takes; 0 or a negative error number.
int initialise(io_uring* ring, bool deferTaskrun, bool* deferred) {
  for (bool modern : {true, false}) {
    if (modern && !deferTaskrun) continue;
    io_uring_params params;
    std::memset(&params, 0, sizeof(params));
    params.flags = IORING_SETUP_R_DISABLED | IORING_SETUP_CQSIZE | IORING_SETUP_CLAMP;
    if (modern) {
      params.flags |=
          IORING_SETUP_SUBMIT_ALL | IORING_SETUP_SINGLE_ISSUER | IORING_SETUP_DEFER_TASKRUN;
    }
    params.cq_entries = Ring::kInFlightMax;
    int result = io_uring_queue_init_params(Ring::kBatchMax, ring, &params);
    *deferred = modern;
    if (result != -EINVAL) return result;
  }
  return -EINVAL;
}

bool hasOpcodes(io_uring* ring) {
  size_t bytes = sizeof(io_uring_probe) + 256 * sizeof(io_uring_probe_op);
  auto memory = kj::heapArray<kj::byte>(bytes);
  std::memset(memory.begin(), 0, bytes);
  auto* probe = reinterpret_cast<io_uring_probe*>(memory.begin());
  if (io_uring_register_probe(ring, probe, 256) < 0) return false;
  for (uint8_t opcode : kOpcodes) {
    if (!io_uring_opcode_supported(probe, opcode)) return false;
  }
  return true;
}

// liburing 2.3 declares calls for restricting and enabling a ring, but its library lacks them.
int registerCall(io_uring* ring, unsigned what, void* argument, unsigned count) {
  int result = syscall(__NR_io_uring_register, ring->ring_fd, what, argument, count);
  return result < 0 ? -errno : result;
}

int restrictTo(io_uring* ring) {
  io_uring_restriction restrictions[sizeof(kOpcodes)];
  std::memset(restrictions, 0, sizeof(restrictions));
  for (size_t i = 0; i < sizeof(kOpcodes); ++i) {
    restrictions[i].opcode = IORING_RESTRICTION_SQE_OP;
    restrictions[i].sqe_op = kOpcodes[i];
  }
  return registerCall(ring, IORING_REGISTER_RESTRICTIONS, restrictions, sizeof(kOpcodes));
}

Ring::Attempt failed(kj::String reason) {
  Ring::Attempt attempt;
  attempt.reason = kj::mv(reason);
  return attempt;
}

}  // namespace

Ring::Attempt Ring::create(kj::UnixEventPort& port, bool deferTaskrun) {
  io_uring ring;
  bool deferred = false;
  int result = initialise(&ring, deferTaskrun, &deferred);
  if (result < 0) return failed(describeSetupError(-result));
  bool kept = false;
  KJ_DEFER(if (!kept) io_uring_queue_exit(&ring));

  if (!hasOpcodes(&ring)) {
    return failed(kj::str("This kernel's io_uring lacks operations that Packmoor needs."));
  }
  int fd;
  KJ_SYSCALL(fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK));
  kj::AutoCloseFd eventFd(fd);
  result = io_uring_register_eventfd(&ring, eventFd);
  if (result < 0) return failed(describeSetupError(-result));
  bool restricted = restrictTo(&ring) >= 0;
  result = registerCall(&ring, IORING_REGISTER_ENABLE_RINGS, nullptr, 0);
  if (result < 0) return failed(describeSetupError(-result));

  auto setup = kj::str(deferred ? "defer-taskrun" : "plain",
                       restricted ? ", restricted" : ", unrestricted");
  auto impl = kj::heap<Impl>(ring, kj::mv(eventFd), port, deferred, kj::mv(setup));
  kept = true;
  Attempt attempt;
  attempt.ring = kj::heap<Ring>(kj::mv(impl));
  return attempt;
}

Ring::Ring(kj::Own<Impl> impl) noexcept : impl_(kj::mv(impl)) {}
Ring::~Ring() noexcept {}

kj::Promise<int32_t> Ring::read(SharedFd fd, IoBuffer into, uint64_t offset) {
  Operation operation;
  operation.opcode = IORING_OP_READ;
  operation.fd = kj::mv(fd);
  operation.bytes = std::min<size_t>(into.size(), INT32_MAX / kIoAlignment * kIoAlignment);
  operation.buffer = kj::mv(into);
  operation.offset = offset;
  return impl_->start(kj::mv(operation));
}

kj::Promise<int32_t> Ring::write(SharedFd fd, IoBuffer data, uint64_t offset, int rwfFlags) {
  Operation operation;
  operation.opcode = IORING_OP_WRITE;
  operation.fd = kj::mv(fd);
  operation.bytes = std::min<size_t>(data.size(), INT32_MAX / kIoAlignment * kIoAlignment);
  operation.buffer = kj::mv(data);
  operation.offset = offset;
  operation.flags = rwfFlags;
  return impl_->start(kj::mv(operation));
}

kj::Promise<int32_t> Ring::fdatasync(SharedFd fd) {
  Operation operation;
  operation.opcode = IORING_OP_FSYNC;
  operation.fd = kj::mv(fd);
  return impl_->start(kj::mv(operation));
}

kj::Promise<int32_t> Ring::allocate(SharedFd fd, uint64_t bytes) {
  Operation operation;
  operation.opcode = IORING_OP_FALLOCATE;
  operation.fd = kj::mv(fd);
  operation.bytes = bytes;
  return impl_->start(kj::mv(operation));
}

RingStats Ring::stats() const { return impl_->stats(); }
kj::StringPtr Ring::setup() const { return impl_->setup(); }

}  // namespace packmoor::kernelio
