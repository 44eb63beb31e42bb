#include "etcd_watch.h"

#include <kj/debug.h>

#include <nlohmann/json.hpp>

#include <algorithm>

#include "etcd_values.h"

namespace packmoor::rpc {

using nlohmann::json;

EtcdWatch::EtcdWatch(EtcdClient& client, std::string prefix, std::function<void()> changed)
    : client_(client), prefix_(kj::mv(prefix)), changed_(kj::mv(changed)) {}

kj::Promise<void> EtcdWatch::run() { return loop(); }

void EtcdWatch::giveUp() {
  if (!pausing_ && interrupt_.get() != nullptr) interrupt_->fulfill();
}

void EtcdWatch::retryNow() {
  retryMs_ = kEtcdRetryMinMs;
  if (pausing_ && interrupt_.get() != nullptr) interrupt_->fulfill();
}

Co<void> EtcdWatch::loop() {
  co_await kj::evalLater([]() {});  // not from within the constructor
  for (;;) {
    auto ended = kj::newPromiseAndFulfiller<void>();
    interrupt_ = kj::mv(ended.fulfiller);
    auto watching = kj::Promise<void>(watchOnce()).exclusiveJoin(kj::mv(ended.promise));
    // The requests say what is wrong with etcd; a watch only has to come back.
    auto done = watching.catch_([](kj::Exception&&) {});
    co_await kj::mv(done);
    ++endpoint_;
    pausing_ = true;
    auto woken = kj::newPromiseAndFulfiller<void>();
    interrupt_ = kj::mv(woken.fulfiller);
    const int64_t pauseMs = retryMs_;
    retryMs_ = std::min(retryMs_ * 2, kEtcdRetryMaxMs);
    auto pause = client_.options().timer.afterDelay(pauseMs * kj::MILLISECONDS)
                     .exclusiveJoin(kj::mv(woken.promise));
    co_await kj::mv(pause);
    pausing_ = false;
  }
}

// Watches until the stream ends. Each line of it is one JSON object.
Co<void> EtcdWatch::watchOnce() {
  const json body = {{"create_request",
                      {{"key", etcdBase64(prefix_)},
                       {"range_end", etcdBase64(endOfPrefix(prefix_))}}}};
  auto stream = co_await client_.open(endpoint_, "/v3/watch", body.dump());
  auto buffer = kj::heapArray<char>(16u << 10);
  std::string line;
  for (;;) {
    auto bytes = co_await stream->tryRead(buffer.begin(), 1, buffer.size());
    if (bytes == 0) co_return;
    for (size_t i = 0; i < bytes; ++i) {
      if (buffer[i] != '\n') {
        line.push_back(buffer[i]);
        continue;
      }
      const bool goesOn = handle(line);
      if (!goesOn) co_return;
      line.clear();
    }
    if (line.size() > kEtcdAnswerBytesMax) co_return;
  }
}

// False: etcd ends the watch.
bool EtcdWatch::handle(const std::string& line) {
  auto message = json::parse(line, nullptr, false);
  if (!message.is_object()) return false;
  auto result = message.find("result");
  if (result == message.end() || !result->is_object() || result->contains("canceled")) {
    client_.forgetToken();  // a token that etcd does not know any more shows here, too
    return false;
  }
  // Created: what happened while nobody watched is not told. Otherwise: there are events.
  retryMs_ = kEtcdRetryMinMs;
  changed_();
  return true;
}

}  // namespace packmoor::rpc
