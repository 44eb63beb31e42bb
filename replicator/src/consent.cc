#include "consent.h"

#include "replicator/outcome.h"
#include "quorum.h"

#include <algorithm>
#include <tuple>

namespace packmoor::replicator {

bool isNewer(const LogPosition& a, const LogPosition& b) {
  return std::tie(a.epoch, a.index) > std::tie(b.epoch, b.index);
}

Consent::Consent(kernelio::Env& env, Peers& peers, ConsentRequest request, ConsentReply own,
                 VolumeConfiguration configuration, int64_t timeoutMs)
    : env_(env), peers_(peers), request_(std::move(request)),
      configuration_(std::move(configuration)), timeoutMs_(timeoutMs),
      needed_(std::max<size_t>(fenceQuorum(configuration_), configuration_.writeQuorum)) {
  note(own);
}

Co<ConsentOutcome> Consent::ask() {
  for (const MemberIdentity& member : configuration_.members) {
    if (member == request_.candidate) continue;
    ++pending_;
    asking_.add(askMember(member));
  }
  const int64_t deadlineMs = monotonicMs(env_.timer) + timeoutMs_;
  while (granted_ < needed_ && granted_ + pending_ >= needed_) {
    const int64_t leftMs = deadlineMs - monotonicMs(env_.timer);
    if (leftMs <= 0) break;
    co_await answered_.waitFor(env_.timer, leftMs);
  }
  outcome_.granted = granted_ >= needed_;
  if (outcome_.reason.empty()) outcome_.reason = "too few members answer";
  co_return outcome_;
}

Co<void> Consent::askMember(MemberIdentity member) {
  auto asked = peers_.peer(member.node).consent(request_);
  auto reply = co_await outcomeOf(kj::mv(asked));
  --pending_;
  if (reply.ok() && reply.value->member == member) note(*reply.value);
  answered_.notify();
}

void Consent::note(const ConsentReply& reply) {
  ++outcome_.answered;
  outcome_.highest = std::max(outcome_.highest, reply.promised);
  if (!reply.consents) {
    if (outcome_.reason.empty()) {
      outcome_.reason = kj::str(reply.member.node.c_str(), ": ", reply.reason.c_str()).cStr();
    }
    return;
  }
  ++granted_;
  if (isNewer(reply.last, request_.last)) outcome_.outrun = true;
}

}  // namespace packmoor::replicator
