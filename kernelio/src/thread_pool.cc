#include "kernelio/thread_pool.h"

#include "kernelio/check.h"
#include "kernelio/loop_mailbox.h"

#include <kj/debug.h>

#include <pthread.h>
#include <signal.h>

#include <condition_variable>
#include <map>
#include <mutex>
#include <thread>
#include <unordered_map>

namespace packmoor::kernelio {

namespace {

class ThreadPool final : public WorkerPool {
 public:
  ThreadPool(kj::UnixEventPort& port, size_t threads, kj::StringPtr name)
      : mailbox_(LoopMailbox::create(port)) {
    PACKMOOR_CHECK(threads >= 1 && threads <= kWorkerThreadsMax, "worker threads", threads);
    PACKMOOR_CHECK(name.size() <= 15, "name of worker threads: ", name);
    // Threads inherit the mask: no signal meant for the loop is ever taken by a worker.
    sigset_t all, before;
    sigfillset(&all);
    pthread_sigmask(SIG_SETMASK, &all, &before);
    for (size_t i = 0; i < threads; ++i) {
      threads_.emplace_back([this]() { work(); });
      pthread_setname_np(threads_.back().native_handle(), name.cStr());
    }
    pthread_sigmask(SIG_SETMASK, &before, nullptr);
  }

  ~ThreadPool() noexcept(false) {
    std::map<uint64_t, kj::Function<void()>> dropped;
    {
      std::lock_guard<std::mutex> lock(mutex_);
      stopping_ = true;
      dropped.swap(queue_);
    }
    wake_.notify_all();
    for (std::thread& thread : threads_) thread.join();
    mailbox_->close();
    for (auto& [id, waiter] : waiting_) waiter->abandon();
  }

  size_t threadCount() override { return threads_.size(); }

 protected:
  kj::Promise<void> runJob(kj::Function<void()> job) override {
    uint64_t id = nextId_++;
    {
      std::lock_guard<std::mutex> lock(mutex_);
      if (queue_.size() >= kQueueMax) {
        return kj::Exception(kj::Exception::Type::OVERLOADED, __FILE__, __LINE__,
                             kj::str("Too much work is queued (", kQueueMax,
                                     " jobs): try again when the load is lower."));
      }
      queue_.emplace(id, kj::mv(job));
    }
    wake_.notify_one();
    return kj::newAdaptedPromise<void, Waiter>(*this, id);
  }

 private:
  // The loop's side of a job, as long as somebody waits for it.
  class Waiter {
   public:
    Waiter(kj::PromiseFulfiller<void>& fulfiller, ThreadPool& pool, uint64_t id)
        : fulfiller_(fulfiller), pool_(&pool), id_(id) {
      pool.waiting_.emplace(id, this);
    }
    ~Waiter() noexcept(false) {
      if (pool_ == nullptr) return;
      pool_->waiting_.erase(id_);
      pool_->drop(id_);
    }
    KJ_DISALLOW_COPY(Waiter);

    void finish(kj::Maybe<kj::Exception> failure) {
      pool_->waiting_.erase(id_);
      pool_ = nullptr;
      KJ_IF_MAYBE (exception, failure) {
        fulfiller_.reject(kj::mv(*exception));
      } else {
        fulfiller_.fulfill();
      }
    }
    void abandon() {
      pool_ = nullptr;
      fulfiller_.reject(kj::Exception(kj::Exception::Type::DISCONNECTED, __FILE__, __LINE__,
                                      kj::str("The worker pool was shut down.")));
    }

   private:
    kj::PromiseFulfiller<void>& fulfiller_;
    ThreadPool* pool_;
    uint64_t id_;
  };

  void drop(uint64_t id) {
    std::map<uint64_t, kj::Function<void()>>::node_type dropped;
    std::lock_guard<std::mutex> lock(mutex_);
    dropped = queue_.extract(id);
  }

  void work() {
    while (true) {
      uint64_t id;
      kj::Maybe<kj::Exception> failure;
      {
        std::unique_lock<std::mutex> lock(mutex_);
        wake_.wait(lock, [this]() { return stopping_ || !queue_.empty(); });
        if (queue_.empty()) return;
        auto node = queue_.extract(queue_.begin());
        lock.unlock();
        id = node.key();
        failure = kj::runCatchingExceptions([&node]() { node.mapped()(); });
      }  // the job is destroyed here, before anybody hears of its end
      mailbox_->post([this, id, failure = kj::mv(failure)]() mutable {
        auto found = waiting_.find(id);
        if (found != waiting_.end()) found->second->finish(kj::mv(failure));
      });
    }
  }

  std::shared_ptr<LoopMailbox> mailbox_;
  std::unordered_map<uint64_t, Waiter*> waiting_;  // loop's thread only
  uint64_t nextId_ = 1;                            // loop's thread only

  std::mutex mutex_;
  std::condition_variable wake_;
  std::map<uint64_t, kj::Function<void()>> queue_;  // guarded by mutex_; oldest first
  bool stopping_ = false;                           // guarded by mutex_
  std::vector<std::thread> threads_;
};

}  // namespace

kj::Own<WorkerPool> makeThreadPool(kj::UnixEventPort& port, size_t threads, kj::StringPtr name) {
  return kj::heap<ThreadPool>(port, threads, name);
}

}  // namespace packmoor::kernelio
