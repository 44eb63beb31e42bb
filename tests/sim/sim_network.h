// SimNetwork, SimPeers: nodes that talk over a network that follows from a seed.
//
// A message takes a random time; it may be lost, repeated, or overtaken; links may be cut in one
// direction, or clogged: what is sent waits, and arrives when the clog is gone. Blocks of extents
// may arrive with a bit flipped. What was sent arrives even when the sender has stopped waiting. A node that is
// down refuses at once. A lost message or answer is noticed after `silenceMs`, as a broken
// connection would be.
//
// A SimTap sees what is sent and answered, and may judge it. Everything that happens is folded into
// traceHash().
#pragma once

#include "kernelio/co.h"
#include "kernelio/seeded_random.h"
#include "replicator/peer.h"
#include "wake_signal.h"

#include <kj/async.h>
#include <kj/timer.h>

#include <map>
#include <memory>
#include <set>
#include <string>

namespace packmoor::replicator {

struct SimLinks {
  uint32_t lossPerMillion = 0;
  uint32_t repeatPerMillion = 0;
  uint32_t corruptPerMillion = 0; // of extent blocks
  bool overtaking = false;        // else messages of a pair arrive in order
  int64_t delayUsMin = 50, delayUsMax = 300;
  int64_t silenceMs = 400;
};

// Called in the turn in which a node sends or answers; must not destroy a node.
class SimTap {
 public:
  virtual void appendSent(const NodeId& primary, const NodeId& member, const AppendRequest&) {}
  virtual void appendAnswered(const NodeId& primary, const NodeId& member, const VolumeId& volume,
                              const AppendReply&) {}
  virtual void fenceAnswered(const NodeId& primary, const NodeId& member, const VolumeId& volume,
                             const FenceReply&) {}

 protected:
  ~SimTap() = default;
};

class SimNetwork final : private kj::TaskSet::ErrorHandler {
 public:
  SimNetwork(kj::Timer& timer, uint64_t seed) : timer_(timer), random_(seed), tasks_(*this) {}

  SimLinks links;
  SimTap* tap = nullptr;

  void attach(const NodeId& node, PeerService& service);
  void detach(const NodeId& node);     // a crash: calls that it was serving end
  bool isUp(const NodeId& node) const { return nodes_.count(node) > 0; }
  void cut(const NodeId& from, const NodeId& to) { cuts_.insert({from, to}); }
  void uncut(const NodeId& from, const NodeId& to) {
    cuts_.erase({from, to});
    changed_.notify();
  }
  // A node came or went, or links healed.
  kj::Promise<void> whenChanged() { return changed_.wait(); }
  void isolate(const NodeId& node, const std::vector<NodeId>& others);
  void clog(const NodeId& from, const NodeId& to) { clogs_.insert({from, to}); }
  void heal() {
    cuts_.clear();
    clogs_.clear();
    unclogged_.notify();
    changed_.notify();
  }
  bool isCut(const NodeId& from, const NodeId& to) const { return cuts_.count({from, to}) > 0; }

  kj::Own<Peers> makePeers(const NodeId& self);

  void trace(uint64_t a, uint64_t b = 0);
  uint64_t traceHash() const { return trace_; }
  uint64_t messages() const { return messages_; }

  // For SimPeer. `method` is called at the receiver with a copy of the request.
  template <typename Reply, typename Request, typename Method>
  kj::Promise<Reply> call(NodeId from, NodeId to, Request request, Method method);

 private:
  struct Node {
    PeerService& service;
    kj::Canceler serving;
    explicit Node(PeerService& service) : service(service) {}
  };
  template <typename Reply, typename Request, typename Method>
  Co<Reply> deliver(NodeId from, NodeId to, Request request, Method method);
  template <typename Request, typename Method>
  Co<void> repeat(NodeId from, NodeId to, Request request, Method method);
  kj::Promise<void> travel(const NodeId& from, const NodeId& to);
  Co<void> passClog(NodeId from, NodeId to);
  kernelio::IoBuffer maybeCorrupt(kernelio::IoBuffer data);
  template <typename Message>
  void damage(Message& message);
  void taskFailed(kj::Exception&&) override {}

  kj::Timer& timer_;
  kernelio::SeededRandom random_;
  std::map<NodeId, std::shared_ptr<Node>> nodes_;
  std::set<std::pair<NodeId, NodeId>> cuts_, clogs_;
  std::map<std::pair<NodeId, NodeId>, kj::TimePoint> lastArrival_;
  uint64_t trace_ = 0, messages_ = 0;
  Signal changed_, unclogged_;
  kj::TaskSet tasks_;
};

}  // namespace packmoor::replicator
