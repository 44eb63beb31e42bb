#include "loss_report.h"

#include <algorithm>

namespace packmoor::rpc {
namespace {

using control::LossMember;
using control::LostWrite;
using control::VolumeLogAnswer;
using control::VolumeLostWritesReply;
using replicator::MemberIdentity;
using replicator::VolumeConfiguration;
using replicator::VolumeRecord;

const VolumeConfiguration& lastActive(const VolumeRecord& record) {
  return record.lastActive ? *record.lastActive : record.current;
}

bool contains(const std::vector<MemberIdentity>& members, const MemberIdentity& who) {
  return std::find(members.begin(), members.end(), who) != members.end();
}

template <typename Names>
std::string joined(const Names& names) {
  std::string text;
  for (const std::string& name : names) text += (text.empty() ? "" : ", ") + name;
  return text;
}

// Rule 6's order.
bool isNewer(const LossMember& a, const LossMember& b) {
  return a.last_epoch() != b.last_epoch() ? a.last_epoch() > b.last_epoch() : a.last() > b.last();
}

const VolumeLogAnswer* answerOf(const std::vector<VolumeLogAnswer>& answers,
                                const MemberIdentity& who) {
  for (const VolumeLogAnswer& answer : answers) {
    if (answer.open() && answer.member().node() == who.node &&
        answer.journal() == who.journal.text().cStr()) {
      return &answer;
    }
  }
  return nullptr;
}

LossMember describe(const VolumeRecord& record, const MemberIdentity& who,
                    const std::vector<VolumeLogAnswer>& answers) {
  LossMember member;
  const VolumeLogAnswer* answer = answerOf(answers, who);
  if (answer != nullptr) {
    member = answer->member();
    member.set_reachable(true);
  } else {
    member.set_node(who.node);
    member.set_problem("it does not answer");
    for (const VolumeLogAnswer& other : answers) {
      if (other.member().node() != who.node) continue;
      member.set_problem(other.open() ? "it answers with another journal: an empty disk is not the "
                                        "member that it replaces"
                                      : other.member().problem());
    }
  }
  member.set_counted(contains(lastActive(record).members, who));
  return member;
}

// Whom an acceptance counts: the counted members that are whole, and such others as are asked for or
// have something newer than all of these.
std::vector<LossMember> keptOf(const VolumeLostWritesReply& reply, const std::string& promote) {
  std::vector<LossMember> kept;
  auto usable = [](const LossMember& member) { return member.reachable() && member.whole(); };
  for (const LossMember& member : reply.members()) {
    if (usable(member) && (member.counted() || member.node() == promote)) kept.push_back(member);
  }
  const bool none = kept.empty();
  const std::vector<LossMember> sofar = kept;
  for (const LossMember& member : reply.members()) {
    if (!usable(member) || member.counted() || member.node() == promote) continue;
    const bool newer = std::all_of(sofar.begin(), sofar.end(), [&](const LossMember& other) {
      return isNewer(member, other);
    });
    if (none || newer) kept.push_back(member);
  }
  return kept;
}

// Where none is whole, the newest of the damaged ones.
const LossMember* damagedOf(const VolumeLostWritesReply& reply) {
  const LossMember* best = nullptr;
  for (const LossMember& member : reply.members()) {
    const bool usable = member.reachable() && member.damaged() && member.counted();
    if (usable && (best == nullptr || isNewer(member, *best))) best = &member;
  }
  return best;
}

void choose(const std::string& promote, VolumeLostWritesReply& reply) {
  std::vector<LossMember> kept = keptOf(reply, promote);
  const LossMember* damaged = kept.empty() ? damagedOf(reply) : nullptr;
  if (damaged != nullptr) {
    kept.push_back(*damaged);
    reply.set_as_is(true);
  }
  const LossMember* best = nullptr;
  for (const LossMember& member : kept) {
    if (best == nullptr || isNewer(member, *best)) best = &member;
    reply.add_keep(member.node());
  }
  for (const LossMember& member : reply.members()) {
    const auto& keep = reply.keep();
    if (member.counted() && std::find(keep.begin(), keep.end(), member.node()) == keep.end()) {
      reply.add_ignore(member.node());
    }
  }
  if (best == nullptr) return;
  reply.set_keeps_up_to(best->last());
  const bool named = std::find(reply.keep().begin(), reply.keep().end(), promote) !=
                     reply.keep().end();
  reply.set_leader(named ? promote : best->node());
}

}  // namespace

std::vector<MemberIdentity> membersToAsk(const VolumeRecord& record) {
  std::vector<MemberIdentity> all;
  auto add = [&](const std::vector<MemberIdentity>& members) {
    for (const MemberIdentity& member : members) {
      if (!contains(all, member)) all.push_back(member);
    }
  };
  add(lastActive(record).members);
  add(lastActive(record).async);
  add(record.current.members);
  add(record.current.async);
  for (const auto& loss : record.losses) add(loss.ignored);
  return all;
}

void judge(const VolumeRecord& record, const std::vector<VolumeLogAnswer>& answers,
           const std::string& promote, VolumeLostWritesReply& reply) {
  const VolumeConfiguration& last = lastActive(record);
  reply.set_volume(record.name);
  reply.set_revision(record.revision);
  reply.set_epoch(record.current.epoch.value);
  size_t whole = 0;
  std::string leads;
  for (const MemberIdentity& who : membersToAsk(record)) {
    LossMember& member = *reply.add_members();
    member = describe(record, who, answers);
    whole += member.counted() && member.whole();
    if (member.leads()) leads = member.node();
  }
  const size_t needed = last.members.size() - last.writeQuorum + 1;
  if (last.epoch.value == 0) {
    reply.set_state("Nobody has led the volume yet, so nothing was ever acknowledged.");
  } else if (!leads.empty()) {
    reply.set_state(leads + " leads the volume; nothing that it acknowledged is lost.");
  } else if (whole >= needed) {
    reply.set_state("A takeover is possible: " + std::to_string(whole) + " whole counted members "
                    "answer, and " + std::to_string(needed) + " are needed. Nothing is lost.");
  } else {
    reply.set_beyond_repair(true);
    choose(promote, reply);
    reply.set_state("No takeover is possible: of " + std::to_string(last.members.size()) +
                    " counted members " + std::to_string(whole) + " answer and are whole, and " +
                    std::to_string(needed) + " are needed; missing: " + joined(reply.ignore()) + ".");
  }
}

void addWrites(const std::vector<LostWrite>& records, uint64_t common, const std::string& holder,
               const std::string& why, VolumeLostWritesReply& reply) {
  for (const LostWrite& record : records) {
    if (record.index() <= common) continue;
    const bool known = std::any_of(reply.writes().begin(), reply.writes().end(),
                                   [&](const LostWrite& other) {
      return other.index() == record.index() && other.hash() == record.hash();
    });
    if (known) continue;
    if (static_cast<size_t>(reply.writes_size()) >= kLostWritesMax) {
      reply.set_writes_left_off(reply.writes_left_off() + 1);
      continue;
    }
    LostWrite& write = *reply.add_writes();
    write = record;
    write.set_held_by(holder);
    write.set_why(why);
  }
}

void addRanges(const std::vector<VolumeLogAnswer>& answers, VolumeLostWritesReply& reply) {
  if (!reply.beyond_repair()) return;
  uint64_t told = reply.keeps_up_to();
  std::string by;
  for (const VolumeLogAnswer& answer : answers) {
    const uint64_t known = std::max(answer.member().announced(), answer.known());
    if (!answer.open() || answer.member().diverged() || known <= told) continue;
    told = known;
    by = answer.member().node();
  }
  if (told > reply.keeps_up_to()) {
    control::LostRange& range = *reply.add_ranges();
    range.set_first(reply.keeps_up_to() + 1);
    range.set_last(told);
    range.set_why(by + " was told that these are committed, and has not got all of them: what is not "
                       "listed by itself is in no log that can be read, so which repositories and refs "
                       "they are of is not known.");
  }
  control::LostRange& open = *reply.add_ranges();
  open.set_first(told + 1);
  if (reply.as_is()) {
    open.set_why("The only copy that is left is damaged, that of " + reply.leader() + ". What its rot "
                 "has eaten behind record " + std::to_string(told) +
                 ", nobody that can be asked knows.");
    return;
  }
  open.set_why(joined(reply.ignore()) +
               (reply.ignore_size() == 1 ? " can acknowledge writes" : " together can acknowledge writes") +
               " without those that answer. Whether there are any behind record " +
               std::to_string(told) + ", nobody that can be asked knows.");
}

std::string summaryOf(const VolumeLostWritesReply& reply) {
  size_t writes = reply.writes_left_off();
  for (const LostWrite& write : reply.writes()) writes += !write.what().empty();
  std::string text = "Known to be lost: " + std::to_string(writes) + " records";
  for (const auto& range : reply.ranges()) {
    if (range.last() == 0) continue;
    text += "; of records " + std::to_string(range.first()) + " to " + std::to_string(range.last()) +
            " otherwise only that they were committed";
  }
  if (reply.as_is()) text += "; what the rot of " + reply.leader() + " has eaten is not known";
  if (reply.ignore_size() == 0) return text + ".";
  return text + "; whatever " + joined(reply.ignore()) +
         " acknowledged besides that is not known.";
}

std::string lineOf(const LostWrite& write) {
  std::string text = "record " + std::to_string(write.index()) + " of epoch " +
                     std::to_string(write.epoch()) + ": " + write.what();
  if (!write.repository().empty()) text += " in " + write.repository();
  if (write.time_ms() > 0 || write.what() == "push") {
    text += " by " + (write.pusher().empty() ? std::string("somebody anonymous") : write.pusher());
  }
  if (!write.client().empty()) text += " from " + write.client();
  for (const std::string& option : write.push_options()) text += ", option " + option;
  for (const auto& ref : write.refs()) {
    text += "; " + ref.name() + " " + (ref.old_id().empty() ? "(none)" : ref.old_id()) + " to " +
            (ref.new_id().empty() ? "(deleted)" : ref.new_id());
  }
  return text;
}

}  // namespace packmoor::rpc
