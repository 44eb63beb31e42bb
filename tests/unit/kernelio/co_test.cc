// Goal: Co<T> behaves as co.h says: values, exceptions, cancellation at every await, nesting,
// and lifetimes of locals and parameters. Method: small coroutines on a virtual loop, with a
// counter of live objects; run under AddressSanitizer, which sees what a counter does not.
#include "kernelio/co.h"

#include "kernelio/virtual_loop.h"

#include <gtest/gtest.h>
#include <kj/debug.h>

#include <stdexcept>
#include <string>

namespace packmoor::kernelio {
namespace {

// Counts its living instances and notes in which order they die.
class Tracked {
 public:
  explicit Tracked(std::string& log, char name) : log_(&log), name_(name) { ++alive; }
  Tracked(Tracked&& other) noexcept : log_(other.log_), name_(other.name_) {
    other.name_ = 0;
    ++alive;
  }
  ~Tracked() {
    --alive;
    if (name_ != 0) *log_ += name_;
  }
  Tracked(const Tracked&) = delete;
  char name() const { return name_; }

  static int alive;

 private:
  std::string* log_;
  char name_;
};
int Tracked::alive = 0;

struct Gate {
  kj::PromiseFulfillerPair<int> paf = kj::newPromiseAndFulfiller<int>();
};

class CoTest : public ::testing::Test {
 protected:
  ~CoTest() noexcept override { EXPECT_EQ(Tracked::alive, 0); }

  template <typename T>
  T wait(kj::Promise<T> promise) {
    return promise.wait(loop_.waitScope());
  }
  template <typename T>
  std::string failure(kj::Promise<T> promise) {
    auto exception = kj::runCatchingExceptions([&]() { (void)wait(kj::mv(promise)); });
    KJ_IF_MAYBE (e, exception) { return e->getDescription().cStr(); }
    return "";
  }

  VirtualLoop loop_;
  std::string log_;
};

Co<int> answer() { co_return 42; }

Co<void> note(std::string& log, char name) {
  log += name;
  co_return;
}

Co<int> addOne(kj::Promise<int> promise) {
  int value = co_await kj::mv(promise);
  co_return value + 1;
}

Co<kj::Own<int>> makeOwned(int value) {
  co_await kj::evalLater([]() {});
  co_return kj::heap<int>(value);
}

// ---- Values -----------------------------------------------------------------------------------

TEST_F(CoTest, ReturnsValues) {
  EXPECT_EQ(wait(answer().promise()), 42);
  kj::Promise<int> converted = answer();
  EXPECT_EQ(wait(kj::mv(converted)), 42);
  EXPECT_EQ(*wait(makeOwned(7).promise()), 7);
}

TEST_F(CoTest, ReturnsVoidAndStartsAtOnce) {
  kj::Promise<void> promise = note(log_, 'a');
  EXPECT_EQ(log_, "a");
  wait(kj::mv(promise));
}

TEST_F(CoTest, AwaitsPromisesAndCoroutines) {
  EXPECT_EQ(wait(addOne(kj::Promise<int>(1)).promise()), 2);
  EXPECT_EQ(wait(addOne(answer()).promise()), 43);
  EXPECT_EQ(wait(addOne(addOne(addOne(kj::evalLater([]() { return 5; })))).promise()), 8);
  EXPECT_EQ(wait(addOne(answer().promise().then([](int v) { return v * 2; })).promise()), 85);
}

Co<std::string> converts() { co_return "a literal becomes a string"; }
Co<kj::Maybe<int>> noValue() { co_return nullptr; }
Co<int> throughTimer(kj::Timer& timer) {
  co_await timer.afterDelay(1 * kj::HOURS);
  co_await timer.afterDelay(1 * kj::HOURS);
  co_return 3;
}

TEST_F(CoTest, ConvertsTheReturnedValue) {
  EXPECT_EQ(wait(converts().promise()), "a literal becomes a string");
  EXPECT_TRUE(wait(noValue().promise()) == nullptr);
}

TEST_F(CoTest, WaitsForTimers) {
  EXPECT_EQ(wait(throughTimer(loop_.timer()).promise()), 3);
  EXPECT_EQ(loop_.elapsed(), 2 * kj::HOURS);
}

Co<kj::Own<int>> passOn(kj::Promise<kj::Own<int>> promise) {
  kj::Own<int> value = co_await kj::mv(promise);
  *value += 1;
  co_return kj::mv(value);
}

TEST_F(CoTest, MovesValuesThatOnlyMove) {
  EXPECT_EQ(*wait(passOn(passOn(makeOwned(1))).promise()), 3);
}

struct NoDefault {
  explicit NoDefault(int value) : value(value) {}
  int value;
};
Co<NoDefault> makeNoDefault() { co_return NoDefault(9); }

TEST_F(CoTest, ValuesNeedNoDefaultConstructor) {
  EXPECT_EQ(wait(makeNoDefault().promise()).value, 9);
}

// ---- Awaiting what several wait for ------------------------------------------------------------

TEST_F(CoTest, AwaitsForkedBranches) {
  Gate gate;
  auto fork = kj::mv(gate.paf.promise).fork();
  kj::Promise<int> one = addOne(fork.addBranch());
  kj::Promise<int> other = addOne(fork.addBranch());
  { kj::Promise<int> dropped = addOne(fork.addBranch()); }
  gate.paf.fulfiller->fulfill(10);
  EXPECT_EQ(wait(kj::mv(one)), 11);
  EXPECT_EQ(wait(kj::mv(other)), 11);
}

TEST_F(CoTest, ItsOwnPromiseCanBeForkedJoinedAndAttached) {
  kj::Promise<int> source = answer();
  auto fork = source.fork();
  EXPECT_EQ(wait(fork.addBranch()) + wait(fork.addBranch()), 84);
  auto joined = kj::joinPromises(kj::arr(addOne(answer()).promise(), answer().promise()));
  auto values = wait(kj::mv(joined));
  EXPECT_EQ(values[0] + values[1], 85);
  EXPECT_EQ(wait(answer().promise().attach(Tracked(log_, 'a')).eagerlyEvaluate(nullptr)), 42);
  EXPECT_EQ(log_, "a");
  EXPECT_EQ(wait(throughTimer(loop_.timer())
                     .promise()
                     .exclusiveJoin(loop_.timer().afterDelay(1 * kj::SECONDS).then([]() {
                       return -1;
                     }))),
            -1);
}

// ---- Exceptions ---------------------------------------------------------------------------------

Co<int> throwsAtOnce() {
  KJ_FAIL_REQUIRE("at once");
  co_return 1;
}
Co<void> throwsLater(Tracked local) {
  co_await kj::evalLater([]() {});
  KJ_FAIL_REQUIRE("later");
}
Co<int> throwsStandard(int kind) {
  co_await kj::evalLater([]() {});
  if (kind == 0) throw std::runtime_error("standard");
  throw 5;
}
Co<std::string> catches(kj::Promise<int> promise, std::string& log) {
  std::string caught;
  try {
    Tracked inner(log, 'i');
    co_await kj::mv(promise);
  } catch (kj::Exception& e) {
    caught = e.getDescription().cStr();
  }
  co_await kj::evalLater([]() {});
  co_return caught;
}

TEST_F(CoTest, ExceptionsRejectThePromise) {
  EXPECT_EQ(failure(throwsAtOnce().promise()), "at once");
  EXPECT_EQ(failure(throwsLater(Tracked(log_, 'a')).promise()), "later");
  EXPECT_EQ(log_, "a");
  EXPECT_EQ(failure(throwsStandard(0).promise()), "standard");
  EXPECT_EQ(failure(throwsStandard(1).promise()), "unknown exception type");
}

TEST_F(CoTest, ExceptionsPassThroughNesting) {
  EXPECT_EQ(failure(addOne(addOne(throwsAtOnce())).promise()), "at once");
  EXPECT_EQ(failure(addOne(throwsStandard(0)).promise()), "standard");
}

TEST_F(CoTest, ExceptionsCanBeCaughtInTheBody) {
  EXPECT_EQ(wait(catches(throwsAtOnce(), log_).promise()), "at once");
  EXPECT_EQ(wait(catches(throwsStandard(0), log_).promise()), "standard");
  EXPECT_EQ(wait(catches(KJ_EXCEPTION(OVERLOADED, "rejected"), log_).promise()), "rejected");
  EXPECT_EQ(wait(catches(answer(), log_).promise()), "");
  EXPECT_EQ(log_, "iiii");
}

TEST_F(CoTest, TheTypeOfAnExceptionIsKept) {
  kj::Promise<int> promise = addOne(KJ_EXCEPTION(DISCONNECTED, "gone"));
  auto exception = kj::runCatchingExceptions([&]() { wait(kj::mv(promise)); });
  EXPECT_EQ(KJ_ASSERT_NONNULL(exception).getType(), kj::Exception::Type::DISCONNECTED);
}

Co<int> chained(kj::Promise<int> promise) {
  int value = co_await kj::mv(promise);
  co_return value;
}

TEST_F(CoTest, TracesOfWaitingFramesAreSafe) {
  // A chain that shortens itself while it is awaited, and a trace taken through it.
  Gate first;
  kj::Promise<int> waiting = chained(kj::mv(first.paf.promise).then([](int) {
    return kj::evalLater([]() { return kj::evalLater([]() { return 1; }); });
  }));
  first.paf.fulfiller->fulfill(0);
  for (int i = 0; i < 3; ++i) {
    waiting.trace();
    if (waiting.poll(loop_.waitScope())) break;
  }
  waiting.trace();
  EXPECT_EQ(wait(kj::mv(waiting)), 1);
  kj::Promise<int> nestedThrice = addOne(addOne(addOne(kj::NEVER_DONE)));
  EXPECT_GT(nestedThrice.trace().size(), 0u);
}

// ---- Lifetimes and cancellation ------------------------------------------------------------------

// Waits three times; each wait is one place where a caller may let go.
Co<void> threeSteps(Tracked parameter, std::string& log, kj::Promise<int> first,
                    kj::Promise<int> second, kj::Promise<int> third) {
  Tracked a(log, 'a');
  co_await kj::mv(first);
  log += '1';
  {
    Tracked b(log, 'b');
    co_await kj::mv(second);
    log += '2';
  }
  Tracked c(log, 'c');
  co_await kj::mv(third);
  log += '3';
}

TEST_F(CoTest, LocalsAndParametersDieInOrder) {
  wait(threeSteps(Tracked(log_, 'p'), log_, 1, 2, 3).promise());
  EXPECT_EQ(log_, "12b3cap");
}

TEST_F(CoTest, CancellationAtEachAwaitDestroysWhatIsThere) {
  const char* expected[] = {"ap", "1bap", "12bcap"};
  for (int step = 0; step < 3; ++step) {
    log_.clear();
    Gate gates[3];
    {
      kj::Promise<void> promise =
          threeSteps(Tracked(log_, 'p'), log_, kj::mv(gates[0].paf.promise),
                     kj::mv(gates[1].paf.promise), kj::mv(gates[2].paf.promise));
      for (int i = 0; i < step; ++i) gates[i].paf.fulfiller->fulfill(0);
      EXPECT_FALSE(promise.poll(loop_.waitScope()));
      EXPECT_EQ(Tracked::alive, step == 0 ? 2 : 3);
    }
    EXPECT_EQ(log_, expected[step]);
    EXPECT_EQ(Tracked::alive, 0);
    EXPECT_FALSE(gates[step].paf.fulfiller->isWaiting());
    for (auto& gate : gates) gate.paf.fulfiller->fulfill(0);  // nobody is there to hear it
    loop_.settle();
    EXPECT_EQ(log_, expected[step]);
  }
}

TEST_F(CoTest, CancellationWhenTheAwaitedIsReadyButNotDelivered) {
  Gate gate;
  {
    kj::Promise<void> promise = threeSteps(Tracked(log_, 'p'), log_, kj::mv(gate.paf.promise),
                                           kj::NEVER_DONE, kj::NEVER_DONE);
    gate.paf.fulfiller->fulfill(1);  // the resumption is now queued
  }
  loop_.settle();
  EXPECT_EQ(log_, "ap");
}

TEST_F(CoTest, ACoThatIsNeverTurnedIntoAPromiseIsCancelledToo) {
  { Co<void> co = threeSteps(Tracked(log_, 'p'), log_, kj::NEVER_DONE, 1, 1); }
  EXPECT_EQ(log_, "ap");
}

Co<void> outer(std::string& log, kj::Promise<int> inner) {
  Tracked own(log, 'o');
  co_await threeSteps(Tracked(log, 'p'), log, kj::mv(inner), 1, 1);
}

TEST_F(CoTest, CancellationReachesNestedCoroutines) {
  {
    kj::Promise<void> promise = outer(log_, kj::NEVER_DONE);
    EXPECT_FALSE(promise.poll(loop_.waitScope()));
    // o, p, a, and what p was moved from: a temporary lives to the end of its co_await.
    EXPECT_EQ(Tracked::alive, 4);
  }
  EXPECT_EQ(log_, "apo");
}

// A coroutine that is destroyed by what it does itself, through another event.
Co<void> runsAndDrops(kj::Own<kj::Promise<void>>& slot, kj::Promise<int> trigger) {
  co_await kj::mv(trigger);
  slot = nullptr;
}

TEST_F(CoTest, OneCoroutineMayDropAnother) {
  auto slot = kj::heap<kj::Promise<void>>(
      threeSteps(Tracked(log_, 'p'), log_, kj::NEVER_DONE, 1, 1).promise());
  wait(runsAndDrops(slot, kj::evalLater([]() { return 1; })).promise());
  EXPECT_EQ(log_, "ap");
}

Co<char> keepsParameter(Tracked parameter) {
  co_await kj::evalLater([]() {});
  co_return parameter.name();
}

TEST_F(CoTest, ParametersByValueLiveInTheFrame) {
  kj::Promise<char> promise = nullptr;
  {
    Tracked outside(log_, 'x');
    promise = keepsParameter(kj::mv(outside));
  }
  EXPECT_EQ(wait(kj::mv(promise)), 'x');
}

Co<size_t> keepsString(kj::String text) {
  co_await kj::evalLater([]() {});
  co_return text.size();
}

TEST_F(CoTest, TemporariesAsParametersAreMovedIn) {
  EXPECT_EQ(wait(keepsString(kj::str("a string of some length, on the heap")).promise()), 36u);
}

Co<void> localBeforeResult(std::string& log) {
  Tracked local(log, 'l');
  co_await kj::evalLater([]() {});
}

TEST_F(CoTest, LocalsAreGoneWhenTheResultIsSeen) {
  wait(localBeforeResult(log_).promise().then([this]() { log_ += 'r'; }));
  EXPECT_EQ(log_, "lr");
}

// ---- Depth ---------------------------------------------------------------------------------------

Co<int> nested(int depth) {
  if (depth == 0) {
    co_await kj::evalLater([]() {});
    co_return 0;
  }
  int below = co_await nested(depth - 1);
  co_return below + 1;
}

Co<int> loops(int count) {
  int sum = 0;
  for (int i = 0; i < count; ++i) {
    int value = co_await addOne(kj::Promise<int>(0));
    sum += value;
  }
  co_return sum;
}

TEST_F(CoTest, DeepNestingUnwindsThroughTheLoop) {
  EXPECT_EQ(wait(nested(2000).promise()), 2000);
  { kj::Promise<int> dropped = nested(2000); }  // destroyed from the outside in
}

TEST_F(CoTest, LongLoopsUseNoStack) { EXPECT_EQ(wait(loops(100'000).promise()), 100'000); }

// ---- Shapes of use --------------------------------------------------------------------------------

class Holder {
 public:
  explicit Holder(int value) : value_(value) {}
  Co<int> later() {
    co_await kj::evalLater([]() {});
    co_return value_;
  }
  virtual ~Holder() {}
  virtual kj::Promise<int> interface() { return later(); }

 private:
  int value_;
};

Co<int> sum(Holder& holder, bool twice) {
  int total = co_await holder.later();
  if (twice) {
    int more = co_await holder.interface();
    total += more;
  }
  for (int i : {1, 2, 3}) {
    int value = co_await kj::Promise<int>(i);
    total += value;
  }
  co_return total;
}

TEST_F(CoTest, MemberFunctionsAndControlFlow) {
  Holder holder(10);
  EXPECT_EQ(wait(sum(holder, false).promise()), 16);
  EXPECT_EQ(wait(sum(holder, true).promise()), 26);
}

template <typename T>
Co<T> generic(T value) {
  co_await kj::evalLater([]() {});
  co_return kj::mv(value);
}

TEST_F(CoTest, Templates) {
  EXPECT_EQ(wait(generic(5).promise()), 5);
  EXPECT_EQ(*wait(generic(kj::heap<int>(6)).promise()), 6);
}

TEST_F(CoTest, InATaskSet) {
  struct Handler final : kj::TaskSet::ErrorHandler {
    void taskFailed(kj::Exception&& exception) override { failed = exception.getDescription().cStr(); }
    std::string failed;
  } handler;
  {
    kj::TaskSet tasks(handler);
    tasks.add(note(log_, 'a'));
    tasks.add(throwsLater(Tracked(log_, 't')));
    tasks.add(threeSteps(Tracked(log_, 'p'), log_, kj::NEVER_DONE, 1, 1));
    loop_.settle();
    EXPECT_EQ(handler.failed, "later");
    EXPECT_FALSE(tasks.isEmpty());
  }
  EXPECT_EQ(log_, "atap");
}

}  // namespace
}  // namespace packmoor::kernelio
