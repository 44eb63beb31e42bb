#include "configuration_change.h"

#include "kernelio/check.h"
#include "quorum.h"

#include <kj/debug.h>

#include <algorithm>

namespace packmoor::replicator {

namespace {

using Kind = ConfigurationChange::Kind;
using Members = std::vector<MemberIdentity>;

Members::const_iterator findNode(const Members& members, const NodeId& node) {
  return std::find_if(members.begin(), members.end(),
                      [&](const MemberIdentity& member) { return member.node == node; });
}

void erase(Members& members, const NodeId& node) {
  std::erase_if(members, [&](const MemberIdentity& member) { return member.node == node; });
}

template <typename... Parts>
[[noreturn]] void refuse(Parts&&... parts) {
  kj::throwFatalException(kj::Exception(kj::Exception::Type::FAILED, __FILE__, __LINE__,
                                        kj::str(kj::fwd<Parts>(parts)...)));
}

// A pair whose partner is away has one that joins already: the partner.
void join(VolumeConfiguration& next, const MemberIdentity& joiner, bool pair) {
  if (findNode(next.joining, joiner.node) != next.joining.end()) return;
  if (pair && next.members.size() + next.joining.size() >= 2) {
    refuse("the volume is a pair and has its two members");
  }
  next.joining.push_back(joiner);
}

void add(VolumeConfiguration& next, const ConfigurationChange& change, bool pair,
         const std::vector<NodeRegistration>& nodes) {
  const char* node = change.node.c_str();
  auto registered = std::find_if(nodes.begin(), nodes.end(), [&](const NodeRegistration& n) {
    return n.node == change.node;
  });
  if (registered == nodes.end()) refuse("no node ", node, " has registered with the coordinator");
  const MemberIdentity joiner{change.node, registered->journal};
  if (next.hasMember(change.node)) {
    if (isMember(next, joiner)) refuse("node ", node, " is a member of the volume already");
    refuse("node ", node, " is a member of the volume with another journal; remove it first");
  }
  auto known = findNode(next.async, change.node);
  if (known != next.async.end() && *known != joiner) {
    refuse("node ", node, " is an async standby of the volume with another journal; remove it first");
  }
  if (known != next.async.end() && change.kind == Kind::kAddAsync) {
    refuse("node ", node, " is an async standby of the volume already");
  }
  if (known == next.async.end()) next.async.push_back(joiner);
  if (change.kind == Kind::kAddMember) join(next, joiner, pair);
}

void promote(VolumeConfiguration& next, const NodeId& node, bool pair) {
  if (next.hasMember(node)) refuse("node ", node.c_str(), " is a counted member of the volume already");
  auto known = findNode(next.async, node);
  if (known == next.async.end()) {
    refuse("node ", node.c_str(), " is not an async standby of the volume; add it first");
  }
  join(next, *known, pair);
}

void remove(VolumeConfiguration& next, const NodeId& node) {
  if (next.primary.node == node) {
    refuse("node ", node.c_str(), " leads the volume; move the lead to another member first");
  }
  if (next.hasMember(node)) {
    if (next.members.size() <= next.writeQuorum) {
      refuse("the volume has ", next.members.size(), " counted members, and a write is kept on ",
             next.writeQuorum, " of them; add a member, or lower the write quorum, first");
    }
    erase(next.members, node);
  } else if (findNode(next.async, node) == next.async.end()) {
    refuse("node ", node.c_str(), " is not a member of the volume");
  }
  erase(next.async, node);
  erase(next.joining, node);
}

void setQuorum(VolumeConfiguration& next, uint32_t writeQuorum, bool pair) {
  if (pair) refuse("the volume is a pair: its write quorum is the number of its members");
  if (writeQuorum < 1 || writeQuorum > next.members.size()) {
    refuse("the write quorum must be between 1 and the number of counted members, which is ",
           next.members.size());
  }
  if (writeQuorum == next.writeQuorum) refuse("the write quorum is ", writeQuorum, " already");
  next.writeQuorum = writeQuorum;
}

}  // namespace

bool namesNode(const VolumeConfiguration& configuration, const NodeId& node) {
  return configuration.hasMember(node) ||
         findNode(configuration.async, node) != configuration.async.end();
}

bool isAsync(const VolumeConfiguration& configuration, const MemberIdentity& who) {
  const Members& async = configuration.async;
  return std::find(async.begin(), async.end(), who) != async.end();
}

VolumeConfiguration changedBy(const ConfigurationChange& change, const VolumeConfiguration& last,
                              bool pair, const std::vector<NodeRegistration>& nodes) {
  VolumeConfiguration next = last;
  switch (change.kind) {
    case Kind::kAddMember:
    case Kind::kAddAsync: add(next, change, pair, nodes); break;
    case Kind::kPromote: promote(next, change.node, pair); break;
    case Kind::kRemove: remove(next, change.node); break;
    case Kind::kSetQuorum: setQuorum(next, change.writeQuorum, pair); break;
  }
  if (next == last) refuse("node ", change.node.c_str(), " joins the volume already");
  return next;
}

VolumeConfiguration counting(const MemberIdentity& joiner, const VolumeConfiguration& last,
                             bool pair) {
  VolumeConfiguration next = last;
  erase(next.async, joiner.node);
  erase(next.joining, joiner.node);
  next.members.push_back(joiner);
  if (pair) next.writeQuorum = static_cast<uint32_t>(next.members.size());
  return next;
}

VolumeConfiguration aloneWith(const MemberIdentity& survivor, const VolumeConfiguration& last) {
  VolumeConfiguration next = last;
  for (const MemberIdentity& member : last.members) {
    if (member == survivor) continue;
    erase(next.async, member.node);
    next.async.push_back(member);
    join(next, member, false);
  }
  next.members = {survivor};
  next.writeQuorum = 1;
  return next;
}

std::optional<MemberIdentity> partnerOf(const MemberIdentity& self,
                                        const VolumeConfiguration& configuration) {
  if (configuration.members.size() != 2 || !isMember(configuration, self)) return std::nullopt;
  return configuration.members.front() == self ? configuration.members.back()
                                               : configuration.members.front();
}

}  // namespace packmoor::replicator
