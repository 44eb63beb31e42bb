// Co<T>: C++20 coroutines over KJ promises.
//
// Why: Debian's KJ 0.9.2 has no coroutine support, and g++ 12 miscompiles coroutines whose
// return object has a throwing destructor, which kj::Promise has. Functions whose body is a
// coroutine return Co<T>; it converts to kj::Promise<T>, so interfaces say kj::Promise<T>.
//
// Semantics: a coroutine starts at once and runs to its first suspension. It may await
// kj::Promise<U> and Co<U>. An exception thrown in the body rejects the promise. Dropping the
// Co (or the promise made from it) destroys the frame where it is suspended: locals are
// destroyed in the usual order and nothing of the body runs again.
//
// Rules for bodies: bind `auto r = co_await f();` before looking at r (g++ 12 mishandles
// co_await inside conditions and as a function argument beside temporaries). Parameters are
// taken by value, or refer to what outlives the returned promise. `this` and reference
// parameters are not kept alive. Never write a coroutine as a lambda with captures that
// escapes its full expression. co_await is not allowed inside a catch block.
// g++ 12 destroys two kinds of temporaries of a co_await expression twice: lambdas whose captures
// own something, and aggregates that do, however they are passed. So never
// `co_await pool.run([x = ...]() {...})` nor `co_await peer.send({.bytes = kj::mv(b)})`; make the
// promise in a statement of its own, `auto done = pool.run([x = ...]() {...});`, and then
// `co_await kj::mv(done)`. It also evaluates statement expressions there wrongly, and so
// KJ_ASSERT_NONNULL and KJ_REQUIRE_NONNULL. The lint looks for all three.
//
// Lifetime and threads: a frame belongs to the event loop of the thread that called it.
//
// It leans on kj::_ and is therefore tied to the KJ versions that its tests ran with.
#pragma once

#include <capnp/common.h>
#include <kj/async.h>
#include <kj/debug.h>
#include <kj/exception.h>

#include <coroutine>
#include <exception>
#include <utility>

#if CAPNP_VERSION != 9002
#error "co.h uses internals of KJ and is tested with KJ 0.9.2 only: run co_test and extend this check"
#endif

namespace packmoor::kernelio {

template <typename T>
class Co;

namespace detail {

// What all coroutine frames share: the event that resumes them when what they await is
// ready, and the hook of whoever waits for their result.
class CoFrame : public kj::_::PromiseNode, public kj::_::Event {
 public:
  explicit CoFrame(std::coroutine_handle<> handle) noexcept : handle_(handle) {}
  ~CoFrame() noexcept {}

  void onReady(kj::_::Event* event) noexcept override { waiter_.init(event); }
  void tracePromise(kj::_::TraceBuilder& builder, bool stopAtNextEvent) override {
    if (stopAtNextEvent) return;
    if (awaited_ != nullptr) (*awaited_)->tracePromise(builder, false);
  }
  void traceEvent(kj::_::TraceBuilder& builder) override {
    if (awaited_ != nullptr) (*awaited_)->tracePromise(builder, true);
    waiter_.traceEvent(builder);
  }

  // `node` stays where it is until this frame fires or is destroyed. What it points to may change:
  // a chain of promises puts its end in its place.
  void await(kj::Own<kj::_::PromiseNode>& node) {
    awaited_ = &node;
    node->setSelfPointer(&node);
    node->onReady(this);
  }

 protected:
  void finished() { waiter_.arm(); }

 private:
  kj::Maybe<kj::Own<kj::_::Event>> fire() override {
    awaited_ = nullptr;
    handle_.resume();
    return nullptr;
  }

  std::coroutine_handle<> handle_;
  kj::Own<kj::_::PromiseNode>* awaited_ = nullptr;
  OnReadyEvent waiter_;
};

template <typename U>
class Awaiter {
 public:
  Awaiter(CoFrame& frame, kj::Own<kj::_::PromiseNode> node) noexcept
      : frame_(frame), node_(kj::mv(node)) {}
  Awaiter(Awaiter&&) = delete;
  ~Awaiter() noexcept {}

  bool await_ready() const noexcept { return false; }
  void await_suspend(std::coroutine_handle<>) {
    frame_.await(node_);
  }
  U await_resume() {
    kj::_::ExceptionOr<kj::_::FixVoid<U>> result;
    node_->get(result);
    kj::Maybe<kj::Exception> dropped = kj::runCatchingExceptions([this]() { node_ = nullptr; });
    KJ_IF_MAYBE(exception, dropped) { result.addException(kj::mv(*exception)); }
    KJ_IF_MAYBE(exception, result.exception) { kj::throwFatalException(kj::mv(*exception)); }
    if constexpr (!std::is_void_v<U>) return kj::mv(KJ_ASSERT_NONNULL(result.value));
  }

 private:
  CoFrame& frame_;
  kj::Own<kj::_::PromiseNode> node_;
};

// Turns whatever the body threw into a kj::Exception.
inline kj::Exception currentException() noexcept {
  try {
    throw;
  } catch (kj::Exception& e) {
    return kj::mv(e);
  } catch (const std::exception& e) {
    return kj::Exception(kj::Exception::Type::FAILED, __FILE__, __LINE__, kj::heapString(e.what()));
  } catch (...) {
    return kj::Exception(kj::Exception::Type::FAILED, __FILE__, __LINE__,
                         kj::heapString("unknown exception type"));
  }
}

template <typename T, typename Promise>
class CoPromiseBase : public CoFrame {
 public:
  CoPromiseBase() noexcept
      : CoFrame(std::coroutine_handle<Promise>::from_promise(static_cast<Promise&>(*this))) {}

  Co<T> get_return_object() noexcept;
  std::suspend_never initial_suspend() noexcept { return {}; }
  std::suspend_always final_suspend() noexcept { return {}; }
  void unhandled_exception() noexcept {
    result_.addException(currentException());
    finished();
  }

  void get(kj::_::ExceptionOrValue& output) noexcept override {
    output.as<kj::_::FixVoid<T>>() = kj::mv(result_);
  }

  template <typename U>
  Awaiter<U> await_transform(kj::Promise<U> promise) {
    return Awaiter<U>(*this, kj::_::PromiseNode::from(kj::mv(promise)));
  }
  template <typename U>
  Awaiter<U> await_transform(Co<U> co) {
    return Awaiter<U>(*this, kj::mv(co).releaseNode());
  }
  template <typename P>
    requires requires(P&& p) { kj::_::PromiseNode::from(kj::mv(p)); } &&
             (!std::is_lvalue_reference_v<P>)
  auto await_transform(P&& promise) {  // classes derived from kj::Promise
    return await_transform(toPromise(kj::mv(promise)));
  }

 protected:
  kj::_::ExceptionOr<kj::_::FixVoid<T>> result_;

 private:
  template <typename U>
  static kj::Promise<U> toPromise(kj::Promise<U>&& promise) {
    return kj::mv(promise);
  }
};

template <typename T>
class CoPromise final : public CoPromiseBase<T, CoPromise<T>> {
 public:
  template <typename U>
  void return_value(U&& value) {
    this->result_.value = T(kj::fwd<U>(value));
    this->finished();
  }
};

template <>
class CoPromise<void> final : public CoPromiseBase<void, CoPromise<void>> {
 public:
  void return_void() {
    this->result_.value = kj::_::Void();
    this->finished();
  }
};

// Destroys the frame when the owner of its promise node lets go.
template <typename T>
class CoDisposer final : public kj::Disposer {
 public:
  static const CoDisposer kInstance;

 private:
  void disposeImpl(void* pointer) const override {
    std::coroutine_handle<CoPromise<T>>::from_promise(*static_cast<CoPromise<T>*>(pointer)).destroy();
  }
};
template <typename T>
const CoDisposer<T> CoDisposer<T>::kInstance;

}  // namespace detail

template <typename T>
class [[nodiscard]] Co {
 public:
  using promise_type = detail::CoPromise<T>;

  explicit Co(promise_type& frame) noexcept
      : node_(static_cast<kj::_::PromiseNode*>(&frame), detail::CoDisposer<T>::kInstance) {}
  Co(Co&&) noexcept = default;
  Co& operator=(Co&&) = delete;
  ~Co() noexcept {}

  operator kj::Promise<T>() && {  // NOLINT(google-explicit-constructor): the point of it
    return kj::_::PromiseNode::to<kj::Promise<T>>(kj::mv(node_));
  }

  kj::Promise<T> promise() && { return kj::mv(*this); }
  kj::Own<kj::_::PromiseNode> releaseNode() && { return kj::mv(node_); }

 private:
  kj::Own<kj::_::PromiseNode> node_;
};

template <typename T, typename Promise>
Co<T> detail::CoPromiseBase<T, Promise>::get_return_object() noexcept {
  return Co<T>(static_cast<Promise&>(*this));
}

}  // namespace packmoor::kernelio

namespace packmoor {
using kernelio::Co;  // used in every module
}  // namespace packmoor
