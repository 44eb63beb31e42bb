// packmoorctl node replace: one node takes another's place in every volume.
//
// Nothing is remembered anywhere but in the volumes' configurations: each step is looked up and made
// where it is missing. So an attempt that was broken off goes on when it is asked for again.
#include "commands.h"

#include <rpc/control.pb.h>

#include <algorithm>
#include <chrono>
#include <cstdio>
#include <thread>

namespace packmoor::ctl {
namespace {

using control::MemberStatus;
using control::VolumeChangeRequest;
using control::VolumeStatus;

constexpr auto kPollTime = std::chrono::milliseconds(500);

const MemberStatus* memberOf(const VolumeStatus& volume, const std::string& node) {
  for (const auto& member : volume.members()) {
    if (member.node() == node) return &member;
  }
  return nullptr;
}

class Replacement {
 public:
  Replacement(const Session& session, std::string old, std::string by)
      : session_(session), old_(std::move(old)), by_(std::move(by)) {}

  int run() {
    int code = check();
    if (code != kDone) return code;
    control::VolumeListReply all;
    code = list(all);
    if (code != kDone) return code;
    for (const VolumeStatus& volume : all.volumes()) {
      if (memberOf(volume, old_) == nullptr) continue;
      const int one = replaceIn(volume.name());
      if (one != kDone) code = one;  // the others are done all the same
    }
    if (session_.json) std::printf("%s", jsonText(done_).c_str());
    if (code != kDone) return code;
    say(done_.volumes_size() == 0 ? "Node " + old_ + " is a member of no volume; there is nothing to do."
                                  : by_ + " has taken the place of " + old_ + " in all volumes.");
    return kDone;
  }

 private:
  void say(const std::string& sentence) const {
    if (session_.json) return;
    std::printf("%s\n", plain(sentence).c_str());
    std::fflush(stdout);
  }
  int refuse(const std::string& message, const std::string& cause, const std::string& advice) const {
    printError(message, cause, advice);
    return kRefused;
  }

  // Before anything is changed.
  int check() {
    control::Request request;
    control::Response response;
    request.mutable_node_list();
    const int code = session_.ask(request, true, response);
    if (code != kDone) return code;
    bool oldKnown = false, byKnown = false;
    for (const auto& node : response.node_list().nodes()) {
      oldKnown = oldKnown || node.node() == old_;
      if (node.node() != by_) continue;
      byKnown = true;
      if (!node.self() && !node.connected()) {
        return refuse("Node " + old_ + " was not replaced.", "Node " + by_ + " is not connected.",
                      "Start it, and ask again.");
      }
    }
    for (const auto& [known, node] : {std::pair{oldKnown, old_}, std::pair{byKnown, by_}}) {
      if (known) continue;
      return refuse("Node " + old_ + " was not replaced.",
                    "No node " + node + " has registered with the coordinator.",
                    "See `packmoorctl node list`.");
    }
    return kDone;
  }

  int list(control::VolumeListReply& all) {
    control::Request request;
    control::Response response;
    request.mutable_volume_list();
    const int code = session_.ask(request, true, response);
    all = response.volume_list();
    return code;
  }

  int show(const std::string& name, VolumeStatus& volume) {
    control::Request request;
    control::Response response;
    request.mutable_volume_show()->set_name(name);
    const int code = session_.ask(request, true, response);
    if (code == kDone) volume = response.volume_list().volumes(0);
    return code;
  }

  int change(const std::string& name, VolumeChangeRequest::Kind kind, const std::string& node) {
    control::Request request;
    control::Response response;
    request.mutable_volume_change()->set_name(name);
    request.mutable_volume_change()->set_kind(kind);
    request.mutable_volume_change()->set_node(node);
    return session_.ask(request, false, response);
  }

  int replaceIn(const std::string& name) {
    VolumeStatus volume;
    int code = show(name, volume);
    if (code != kDone) return code;
    const MemberStatus* old = memberOf(volume, old_);
    const bool wasCounted = old != nullptr && (old->counted() || old->joining());
    if (volume.pair() && old != nullptr && old->counted()) {
      return refuse("Volume " + name + ": " + old_ + " was not replaced.",
                    "The volume is a pair, and both of its nodes acknowledge every write.",
                    "Stop " + old_ + ", wait until the other goes on alone (NO_REDUNDANCY), and ask again.");
    }
    const bool counted = wasCounted || lacksOne(volume);
    code = addNew(name, volume, counted);
    if (code == kDone && counted) code = waitCounted(name);
    if (code == kDone) code = show(name, volume);
    if (code == kDone && volume.primary() == old_) code = moveLead(name);
    if (code == kDone && memberOf(volume, old_) != nullptr) code = removeOld(name);
    if (code == kDone) code = show(name, volume);
    if (code != kDone) return code;
    *done_.add_volumes() = volume;
    say("Volume " + name + ": done.");
    return kDone;
  }

  int addNew(const std::string& name, const VolumeStatus& volume, bool counted) {
    const MemberStatus* now = memberOf(volume, by_);
    if (now != nullptr && (now->counted() || now->joining() || !counted)) return kDone;
    say("Volume " + name + ": adding " + by_ + ".");
    int code = kDone;
    if (now == nullptr) {
      // A pair has no third member: the new one follows before the lost one goes.
      const bool member = counted && !volume.pair();
      code = change(name, member ? VolumeChangeRequest::KIND_ADD_MEMBER
                                 : VolumeChangeRequest::KIND_ADD_ASYNC, by_);
      if (member || !counted) return code;
    }
    if (code == kDone && volume.pair() && memberOf(volume, old_) != nullptr) code = removeOld(name);
    return code == kDone ? change(name, VolumeChangeRequest::KIND_PROMOTE, by_) : code;
  }

  // A pair of which one is lost and removed, as this leaves it when it is stopped half-way.
  static bool lacksOne(const VolumeStatus& volume) {
    int members = 0;
    for (const MemberStatus& member : volume.members()) members += member.counted() || member.joining();
    return volume.pair() && members < 2;
  }

  // As long as it gets on, and --timeout without.
  int waitCounted(const std::string& name) {
    auto movedAt = std::chrono::steady_clock::now();
    uint64_t progress = 0;
    std::string told;
    for (;;) {
      VolumeStatus volume;
      const int code = show(name, volume);
      if (code != kDone) return code;
      const MemberStatus* now = memberOf(volume, by_);
      if (now != nullptr && now->counted()) return kDone;
      if (now == nullptr) {
        return refuse("Volume " + name + ": " + old_ + " was not replaced.",
                      "Somebody has removed " + by_ + " meanwhile.", "Ask again.");
      }
      std::string state;
      const uint64_t reached = reachedBy(name, state);
      if (state != told) say("Volume " + name + ": waiting for " + by_ + state + ".");
      told = state;
      const auto time = std::chrono::steady_clock::now();
      if (reached != progress) movedAt = time;
      progress = reached;
      if (time - movedAt >= std::chrono::seconds(session_.timeoutSeconds)) {
        return refuse("Volume " + name + ": " + old_ + " is still a member.",
                      by_ + " has not caught up, and does not get on" + state + ".",
                      "See `packmoorctl volume show " + name + "`; asked again, this goes on.");
      }
      std::this_thread::sleep_for(kPollTime);
    }
  }

  // Grows as the node catches up; `state` says how far it is.
  uint64_t reachedBy(const std::string& name, std::string& state) {
    control::Request request;
    control::Response response;
    request.mutable_status()->set_cluster(true);
    if (session_.ask(request, true, response) != kDone) return 0;
    const control::StatusReply& reply = response.status();
    uint64_t reached = 0, last = 0;
    auto look = [&](const control::NodeStatus& node) {
      for (const VolumeStatus& volume : node.volumes()) {
        if (volume.name() != name) continue;
        last = std::max(last, volume.last());
        if (node.node() != by_) continue;
        reached = volume.durable() + volume.transfer().bytes_fetched();
        if (volume.has_transfer()) {
          state = ", which fetches the state: " + bytesText(volume.transfer().bytes_fetched()) + " so far";
        } else if (last > volume.durable()) {
          state = ", " + countText(last - volume.durable()) + " records behind";
        }
      }
    };
    look(reply.self());
    for (const auto& other : reply.others()) {
      if (other.has_status()) look(other.status());
    }
    return reached;
  }

  int moveLead(const std::string& name) {
    say("Volume " + name + ": moving the lead to " + by_ + ".");
    control::Request request;
    control::Response response;
    request.mutable_volume_switchover()->set_name(name);
    request.mutable_volume_switchover()->set_to(by_);
    return session_.ask(request, false, response);
  }

  int removeOld(const std::string& name) {
    say("Volume " + name + ": removing " + old_ + ".");
    return change(name, VolumeChangeRequest::KIND_REMOVE_MEMBER, old_);
  }

  const Session& session_;
  const std::string old_, by_;
  control::VolumeListReply done_;
};

}  // namespace

int nodeReplace(const Session& session, const std::string& old, const std::string& by) {
  if (old == by) {
    printError("A node cannot take its own place.", "", "packmoorctl node replace OLD NEW");
    return kUsage;
  }
  return Replacement(session, old, by).run();
}

}  // namespace packmoor::ctl
