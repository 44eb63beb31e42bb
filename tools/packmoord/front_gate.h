// FrontGate: a GitFront that answers "not yet" until the real one is there.
//
// Why: the HTTP port is opened first, so that a busy port is found at once and a client of a
// starting node gets a sentence instead of silence.
#pragma once

#include <gitlayer/git_front.h>

#include <string>

namespace packmoor::daemon {

class FrontGate final : public gitlayer::GitFront {
 public:
  // `front` outlives the gate or is taken out by close().
  void open(gitlayer::GitFront& front) { front_ = &front; }
  void close(std::string sentence) {
    front_ = nullptr;
    sentence_ = std::move(sentence);
  }

  kj::Promise<gitlayer::OpenedSession> open(gitlayer::GitRequest request) override {
    if (front_ != nullptr) return front_->open(kj::mv(request));
    gitlayer::OpenedSession refused;
    refused.refusal.reason = gitlayer::Refusal::Reason::kUnavailable;
    refused.refusal.message = sentence_;
    return kj::mv(refused);
  }
  gitlayer::FrontStatistics statistics() override {
    return front_ == nullptr ? gitlayer::FrontStatistics() : front_->statistics();
  }

 private:
  gitlayer::GitFront* front_ = nullptr;
  std::string sentence_ = "This node is starting. Try again in a moment.";
};

}  // namespace packmoor::daemon
