// What members know of a volume's log, asked and put together (loss_report.h).
#include "loss_control.h"

#include "loss_report.h"
#include "node_status.h"

#include <gitlayer/record_summary.h>
#include <replicator/outcome.h>

#include <kj/debug.h>

#include <algorithm>
#include <map>

namespace packmoor::rpc {
namespace {

using control::LostWrite;
using control::Response;
using control::VolumeLogAnswer;
using control::VolumeLogQuestion;
using control::VolumeLostWritesReply;
using replicator::MemberIdentity;
using replicator::RecordIndex;
using replicator::VolumeRecord;

}  // namespace

// ---- What members know --------------------------------------------------------------------------

Co<VolumeRecord> LossControl::recordOf(std::string name) {
  auto record = co_await view_.coordinator->readVolume(name);
  KJ_REQUIRE(record.has_value(), "there is no volume of this name", name);
  co_return kj::mv(*record);
}

kj::Promise<kj::Array<kj::byte>> LossControl::answerLog(kj::Array<const kj::byte> question) {
  VolumeLogQuestion message;
  KJ_REQUIRE(message.ParseFromArray(question.begin(), static_cast<int>(question.size())),
             "another node asked what this one does not know");
  return answerHere(kj::mv(message)).promise().then(
      [](VolumeLogAnswer answer) { return messageBytes(answer); });
}

void LossControl::describe(replicator::Volume& volume, const replicator::Record& record,
                           LostWrite& write) {
  const auto summary = gitlayer::summarize(record);
  write.set_index(record.index.value);
  write.set_epoch(record.epoch.value);
  write.set_hash(record.hash.text().cStr());
  write.set_what(summary.what);
  if (!summary.repository.isNull()) {
    write.set_repository_id(summary.repository.text().cStr());
    const bool told = !summary.repositoryName.empty();
    write.set_repository(told ? summary.repositoryName
                              : view_.git->repositoryName(volume, summary.repository));
  }
  for (const auto& update : summary.refs) {
    auto& ref = *write.add_refs();
    ref.set_name(update.name);
    if (!(update.oldId == gitlayer::ObjectId())) ref.set_old_id(update.oldId.hex().cStr());
    if (!(update.newId == gitlayer::ObjectId())) ref.set_new_id(update.newId.hex().cStr());
  }
  write.set_pusher(summary.principal);
  write.set_client(summary.client);
  for (const std::string& option : summary.pushOptions) {
    std::string text = option;
    std::replace_if(text.begin(), text.end(), [](char c) { return c < 0x20 || c > 0x7e; }, '?');
    write.add_push_options(text);
  }
  write.set_time_ms(summary.timeMs);
}

Co<VolumeLogAnswer> LossControl::answerHere(VolumeLogQuestion question) {
  VolumeLogAnswer answer;
  answer.mutable_member()->set_node(view_.config->node.id);
  if (view_.replicator == nullptr || view_.git == nullptr) {
    answer.mutable_member()->set_problem("it is still starting");
    co_return answer;
  }
  auto open = view_.replicator->findVolume(question.name().c_str());
  KJ_IF_MAYBE(volume, open) {
    const auto known = volume->logKnowledge();
    auto& member = *answer.mutable_member();
    answer.set_open(true);
    answer.set_journal(known.member.journal.text().cStr());
    member.set_whole(known.whole);
    member.set_diverged(known.diverged);
    member.set_damaged(known.damaged);
    member.set_leads(known.leads);
    member.set_problem(known.problem);
    member.set_base(known.base.value);
    member.set_last(known.last.index.value);
    member.set_last_epoch(known.last.epoch.value);
    member.set_committed(known.committed.value);
    member.set_announced(known.announced.value);
    for (const auto& [node, index] : known.acknowledged) {
      answer.set_known(std::max(answer.known(), index.value));
    }
    for (const auto& point : question.points()) {
      auto held = volume->positionAt(RecordIndex(point.index()));
      KJ_IF_MAYBE(position, held) {
        const bool equal = point.hash() == position->hash.text().cStr();
        if (equal) answer.set_common(std::max(answer.common(), point.index()));
      }
    }
    for (const std::string& text : question.repositories()) {
      gitlayer::RepositoryId id;
      if (!replicator::Uuid::parse(text.c_str(), id)) continue;
      const std::string name = view_.git->repositoryName(*volume, id);
      if (!name.empty()) (*answer.mutable_names())[text] = name;
    }
    RecordIndex next(std::max(question.first(), known.base.value + 1));
    const size_t limit = std::min<size_t>(question.limit(), kLogRecordsMax);
    while (static_cast<size_t>(answer.records_size()) < limit && next <= known.last.index) {
      auto read = volume->readLog(next);
      auto records = co_await kj::mv(read);
      if (records.empty()) break;
      for (const auto& record : records) describe(*volume, *record, *answer.add_records());
      next = records.back()->index.next();
    }
    if (question.extents()) co_await scanExtents(*volume, answer);
  } else {
    answer.mutable_member()->set_problem("the volume is not open there");
  }
  co_return answer;
}

// Records of the log that name extents which are not sealed here.
Co<void> LossControl::scanExtents(replicator::Volume& volume, VolumeLogAnswer& answer) {
  RecordIndex next(answer.member().base() + 1);
  size_t left = kLogScanRecordsMax;
  while (next.value <= answer.member().last() && left > 0) {
    auto read = volume.readLog(next);
    auto records = co_await kj::mv(read);
    if (records.empty()) break;
    for (const auto& record : records) {
      std::vector<std::string> missing;
      for (const auto& extent : record->extents) {
        if (!view_.extents->isSealed(extent)) missing.push_back(extent.text().cStr());
      }
      if (missing.empty()) continue;
      auto& write = *answer.add_incomplete();
      describe(volume, *record, write);
      for (const auto& extent : missing) write.add_extents(extent);
    }
    left -= std::min(left, records.size());
    next = records.back()->index.next();
  }
}

Co<VolumeLogAnswer> LossControl::askNode(std::string node, VolumeLogQuestion question) {
  if (node == view_.config->node.id) {
    auto here = answerHere(kj::mv(question)).promise();
    auto answer = co_await kj::mv(here);
    co_return answer;
  }
  auto bytes = messageBytes(question);
  auto asked = view_.env->timer.timeoutAfter(
      kLogQueryTimeoutMs * kj::MILLISECONDS,
      view_.peers->peer(node).query(replicator::VolumeId(),
                                    std::string(kLogQuery.begin(), kLogQuery.size()),
                                    kj::mv(bytes)));
  auto outcome = co_await replicator::outcomeOf(kj::mv(asked));
  VolumeLogAnswer answer;
  if (outcome.ok() &&
      answer.ParseFromArray(outcome.value->begin(), static_cast<int>(outcome.value->size())) &&
      answer.member().node() == node) {
    co_return answer;
  }
  answer.Clear();
  answer.mutable_member()->set_node(node);
  answer.mutable_member()->set_problem("it does not answer");
  co_return answer;
}

Co<LossControl::Answers> LossControl::askAll(const VolumeRecord& record,
                                             VolumeLogQuestion question) {
  kj::Vector<kj::Promise<VolumeLogAnswer>> asked;
  std::vector<std::string> done;
  for (const MemberIdentity& member : membersToAsk(record)) {
    if (std::find(done.begin(), done.end(), member.node) != done.end()) continue;
    done.push_back(member.node);
    asked.add(askNode(member.node, question).promise());
  }
  auto all = kj::joinPromises(asked.releaseAsArray());
  auto answers = co_await kj::mv(all);
  Answers result;
  for (VolumeLogAnswer& answer : answers) result.push_back(kj::mv(answer));
  co_return kj::mv(result);
}

// ---- What is lost ---------------------------------------------------------------------------------

// What `holder`'s log has from `from` on that `best`'s has not.
Co<void> LossControl::addHeld(std::string best, std::string holder, uint64_t from, std::string why,
                              VolumeLostWritesReply& reply) {
  VolumeLogQuestion question;
  question.set_name(reply.volume());
  question.set_first(from);
  question.set_limit(kLogRecordsMax);
  auto asked = askNode(holder, question).promise();
  auto held = co_await kj::mv(asked);
  VolumeLogQuestion compare;
  compare.set_name(reply.volume());
  for (const LostWrite& record : held.records()) {
    auto& point = *compare.add_points();
    point.set_index(record.index());
    point.set_hash(record.hash());
  }
  auto compared = askNode(best, compare).promise();
  auto common = co_await kj::mv(compared);
  const std::vector<LostWrite> records(held.records().begin(), held.records().end());
  addWrites(records, common.common(), holder, why, reply);
  if (records.empty() || records.back().index() >= held.member().last()) co_return;
  reply.set_writes_left_off(reply.writes_left_off() + held.member().last() - records.back().index());
}

// Extents that a log names and that nobody holds who can be asked.
Co<void> LossControl::addIncomplete(const Answers& answers, VolumeLostWritesReply& reply) {
  for (const VolumeLogAnswer& answer : answers) {
    for (const LostWrite& record : answer.incomplete()) {
      LostWrite lost = record;
      lost.clear_extents();
      for (const std::string& text : record.extents()) {
        replicator::ExtentId id;
        if (!replicator::Uuid::parse(text.c_str(), id)) continue;
        bool found = view_.extents->isSealed(id);
        for (const VolumeLogAnswer& other : answers) {
          if (found || !other.open() || other.member().node() == view_.config->node.id) continue;
          auto info = view_.env->timer.timeoutAfter(
              kLogQueryTimeoutMs * kj::MILLISECONDS,
              view_.peers->peer(other.member().node()).extentInfo(id));
          auto outcome = co_await replicator::outcomeOf(kj::mv(info));
          found = outcome.ok() && outcome.value->first > 0;
        }
        if (!found) lost.add_extents(text);
      }
      if (lost.extents_size() == 0) continue;
      std::vector<LostWrite> one(1, lost);
      addWrites(one, 0, answer.member().node(),
                "The record is there; no member that can be asked holds the packs that it names.",
                reply);
    }
  }
}

Co<void> LossControl::survey(std::string name, std::string promote, VolumeLostWritesReply& reply) {
  auto record = co_await recordOf(name);
  VolumeLogQuestion question;
  question.set_name(name);
  question.set_extents(true);
  auto asked = askAll(record, question).promise();
  auto answers = co_await kj::mv(asked);
  judge(record, answers, promote, reply);
  for (const auto& loss : record.losses) fillLoss(loss, *reply.add_losses());
  std::string best = reply.leader();
  for (const auto& member : reply.members()) {
    if (member.leads()) best = member.node();
    if (best.empty() && member.reachable() && member.whole()) best = member.node();
  }
  for (const VolumeLogAnswer& answer : answers) {
    const std::string node = answer.member().node();
    if (best.empty() || !answer.open() || answer.member().whole() || node == best) continue;
    if (answer.member().diverged()) {
      uint64_t from = 1;
      for (const auto& loss : record.losses) {
        if (loss.epoch.value > answer.member().last_epoch()) {
          from = loss.adopted.index.value;
          break;
        }
      }
      auto held = addHeld(best, node, from,
                          "An accepted loss left " + node + " out; its copy is all that there is of "
                          "this.", reply).promise();
      co_await kj::mv(held);
    } else if (reply.beyond_repair()) {
      auto held = addHeld(best, node, reply.keeps_up_to(),
                          "Only the damaged copy of " + node + " has it, which may not lead.",
                          reply).promise();
      co_await kj::mv(held);
    }
  }
  auto incomplete = addIncomplete(answers, reply).promise();
  co_await kj::mv(incomplete);
  auto named = addNames(answers, reply).promise();
  co_await kj::mv(named);
  addRanges(answers, reply);
}

// The holder of a record need not have applied the one that made the repository; another may have.
Co<void> LossControl::addNames(const Answers& answers, VolumeLostWritesReply& reply) {
  VolumeLogQuestion question;
  question.set_name(reply.volume());
  std::map<std::string, std::string> names;
  for (const LostWrite& write : reply.writes()) {
    if (write.repository_id().empty() || !names.emplace(write.repository_id(), "").second) continue;
    question.add_repositories(write.repository_id());
  }
  for (const LostWrite& write : reply.writes()) {
    if (!write.repository().empty()) names[write.repository_id()] = write.repository();
  }
  if (names.empty()) co_return;
  for (const VolumeLogAnswer& answer : answers) {
    if (!answer.open()) continue;
    auto asked = askNode(answer.member().node(), question).promise();
    auto told = co_await kj::mv(asked);
    for (const auto& [id, name] : told.names()) {
      if (names[id].empty()) names[id] = name;
    }
  }
  for (LostWrite& write : *reply.mutable_writes()) {
    if (!write.repository().empty() || write.repository_id().empty()) continue;
    const std::string& name = names[write.repository_id()];
    write.set_repository(name.empty() ? write.repository_id() : name);
  }
}

Co<void> LossControl::lostWrites(std::string name, std::string promote, Response& response) {
  auto& reply = *response.mutable_volume_lost_writes();
  auto surveyed = survey(name, promote, reply).promise();
  co_await kj::mv(surveyed);
}

}  // namespace packmoor::rpc
