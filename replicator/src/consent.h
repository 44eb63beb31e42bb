// Consent: the round of questions before a takeover that nobody ordered (rule 9).
//
// Why: a node that is cut off from its peers, but not from the coordinator, would otherwise take an
// epoch and make a healthy volume stop for it. So a candidate first asks: a fence quorum of the last
// active configuration and W of the target must not be hearing from the primary. An automatic
// takeover aims at the last active configuration, so both are among its members. The answers bind
// nobody and no safety rests on them.
//
// The round ends with the first answers that are enough, or that can be enough no more.
//
// Loop: the node's. What is borrowed at the construction outlives it; dropping it drops the round.
#pragma once

#include "kernelio/co.h"
#include "kernelio/env.h"
#include "replicator/peer.h"
#include "tasks.h"
#include "wake_signal.h"

#include <string>

namespace packmoor::replicator {

struct ConsentOutcome {
  bool granted = false;
  bool outrun = false;      // a member that consents has a newer log
  size_t answered = 0;      // this node's own answer included
  Epoch highest;            // the highest promise that was told
  std::string reason;       // when not granted
};

class Consent final {
 public:
  // `self` is one of the members of `configuration`; `own` is its own answer.
  Consent(kernelio::Env& env, Peers& peers, ConsentRequest request, ConsentReply own,
          VolumeConfiguration configuration, int64_t timeoutMs);
  KJ_DISALLOW_COPY(Consent);

  Co<ConsentOutcome> ask();

 private:
  Co<void> askMember(MemberIdentity member);
  void note(const ConsentReply& reply);

  kernelio::Env& env_;
  Peers& peers_;
  const ConsentRequest request_;
  const VolumeConfiguration configuration_;
  const int64_t timeoutMs_;
  const size_t needed_;
  size_t pending_ = 0, granted_ = 0;
  ConsentOutcome outcome_;
  Signal answered_;
  Tasks asking_{"consent"};
};

// The newer of two logs, as rule 6 compares them.
bool isNewer(const LogPosition& a, const LogPosition& b);

}  // namespace packmoor::replicator
