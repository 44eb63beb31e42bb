#include "etcd_past.h"

#include <kernelio/disk.h>

#include <kj/debug.h>

#include <algorithm>

#include "rpc/etcd_records.h"

namespace packmoor::rpc {
namespace {

using replicator::VolumeRecord;

constexpr const char* kConsequence =
    " No takeover happens, and volumes go on under their present primaries. Put the right data "
    "back, or, when this etcd is to be used from now on, see `packmoorctl coordinator status` and "
    "run `packmoorctl coordinator accept`.";

kj::Exception failure(kj::Exception::Type type, const std::string& sentence) {
  return kj::Exception(type, __FILE__, __LINE__, kj::str(sentence.c_str()));
}

auto placeOf(std::vector<VolumeRecord>& volumes, const std::string& name) {
  return std::lower_bound(volumes.begin(), volumes.end(), name,
                          [](const VolumeRecord& r, const std::string& n) { return r.name < n; });
}

bool sameContent(const VolumeRecord& a, const VolumeRecord& b) {
  return a.id == b.id && a.phase == b.phase && a.current == b.current &&
         a.lastActive == b.lastActive;
}

bool sameNode(const replicator::NodeRegistration& a, const replicator::NodeRegistration& b) {
  return a.node == b.node && a.journal == b.journal && a.rpcAddress == b.rpcAddress &&
         a.httpAddress == b.httpAddress && a.version == b.version;
}

// Empty, or how `now`, as of `revision`, contradicts what is remembered of the record.
std::string contradiction(const VolumeRecord& known, const VolumeRecord& now, int64_t revision) {
  const uint64_t before = generationOf(known.revision), after = generationOf(now.revision);
  const bool older = after < before || (after == before && now.revision < known.revision);
  if (older && (after < before || modRevisionOf(known.revision) <= revision)) {
    return "its record of volume " + now.name + " is older than the one that this node knows";
  }
  if (now.revision == known.revision && !sameContent(known, now)) {
    return "its record of volume " + now.name + " is another one than this node knows at the same "
           "revision";
  }
  return {};
}

}  // namespace

EtcdPast::EtcdPast(kernelio::Disk* disk, std::string file, EtcdMemory memory, NoticeSink notices)
    : disk_(disk), file_(kj::mv(file)), memory_(kj::mv(memory)), notices_(kj::mv(notices)),
      doubt_(memory_.doubt), keptRevision_(memory_.revision), tasks_(*this) {
  if (!doubt_.empty()) notify(notices_, NoticeLevel::kWarning, doubt_.c_str());
}

void EtcdPast::requireTrusted(const Tag& tag) const {
  if (!doubt_.empty()) kj::throwFatalException(failure(kj::Exception::Type::FAILED, doubt_));
  if (tag.generation != generation_) {
    kj::throwFatalException(failure(kj::Exception::Type::DISCONNECTED,
                                    "The coordinator was accepted while etcd was being asked; the "
                                    "answer is not used. Ask again."));
  }
}

EtcdPast::Verdict EtcdPast::judge(const Tag& tag, const EtcdHeader& header) {
  if (tag.generation != generation_ || !doubt_.empty()) return Verdict::kRefused;
  if (memory_.clusterId == 0) {
    memory_.clusterId = header.clusterId;
    ++version_;
  }
  if (header.clusterId != memory_.clusterId) return Verdict::kForeign;
  if (header.revision < tag.floor) {
    stepBack("etcd (cluster " + clusterIdText(header.clusterId) + ") has gone back: this node has "
             "seen revision " + std::to_string(tag.floor) + ", and etcd now is at " +
             std::to_string(header.revision) + ", as after a restore from a backup.", header);
    return Verdict::kRefused;
  }
  memory_.revision = std::max(memory_.revision, header.revision);
  return Verdict::kKnown;
}

void EtcdPast::foreign(const EtcdHeader& header) {
  if (!doubt_.empty() || header.clusterId == memory_.clusterId) return;
  raise("etcd is another cluster (" + clusterIdText(header.clusterId) + ") than the one that this "
        "node knows (" + clusterIdText(memory_.clusterId) + "), as after a restore from a backup." +
        kConsequence, header);
}

bool EtcdPast::reconcile(const EtcdHeader& header) {
  if (doubt_.empty() || lasting() || adopting_) return false;
  if (header.clusterId != memory_.clusterId || header.revision < memory_.revision) return false;
  doubt_.clear();
  notify(notices_, NoticeLevel::kInfo, "etcd is the cluster that this node knows again.");
  return true;
}

void EtcdPast::note(const Tag& tag, const EtcdHeader& header,
                    const std::vector<VolumeRecord>& records, bool all) {
  requireTrusted(tag);
  for (const auto& record : records) {
    auto known = placeOf(memory_.volumes, record.name);
    const bool present = known != memory_.volumes.end() && known->name == record.name;
    if (!present) {
      memory_.volumes.insert(known, record);
      ++version_;
      continue;
    }
    const std::string wrong = contradiction(*known, record, header.revision);
    if (!wrong.empty()) {
      stepBack("etcd (cluster " + clusterIdText(header.clusterId) + ") tells of a different past: " +
               wrong + ", as after a restore from a backup.", header);
      requireTrusted(tag);
    }
    if (record.revision <= known->revision) continue;
    *known = record;
    ++version_;
  }
  if (!all) return;
  memory_.listed = std::max(memory_.listed, header.revision);
  const size_t gone = std::erase_if(memory_.volumes, [&](const VolumeRecord& known) {
    return modRevisionOf(known.revision) <= header.revision &&
           std::none_of(records.begin(), records.end(),
                        [&](const VolumeRecord& r) { return r.name == known.name; });
  });
  if (gone > 0) ++version_;
}

void EtcdPast::noteNodes(std::vector<replicator::NodeRegistration> nodes) {
  // A node that is not there any more may only not have come back yet, after a restore.
  for (const auto& known : memory_.nodes) {
    const bool there = std::any_of(nodes.begin(), nodes.end(),
                                   [&](const auto& node) { return node.node == known.node; });
    if (!there) nodes.push_back(known);
  }
  std::sort(nodes.begin(), nodes.end(),
            [](const auto& a, const auto& b) { return a.node < b.node; });
  if (std::equal(nodes.begin(), nodes.end(), memory_.nodes.begin(), memory_.nodes.end(), sameNode)) {
    return;
  }
  memory_.nodes = kj::mv(nodes);
  ++version_;
}

void EtcdPast::followMarker(const replicator::Uuid& past) {
  if (memory_.past == past) return;
  memory_.past = past;
  ++version_;
}

void EtcdPast::stepBack(std::string what, const EtcdHeader& header) {
  memory_.doubt = kj::mv(what) + kConsequence;
  ++version_;
  raise(memory_.doubt, header);
  // When this fails, the next answer raises the doubt again: what is remembered has not moved.
  tasks_.add(kept().catch_([](kj::Exception&&) {}));
}

void EtcdPast::raise(std::string sentence, const EtcdHeader& header) {
  seen_ = header;
  doubt_ = kj::mv(sentence);
  notify(notices_, NoticeLevel::kWarning, doubt_.c_str());
}

kj::Promise<void> EtcdPast::kept(bool lazily) {
  if (lazily && keptRevision_ < memory_.revision && keptVersion_ == version_) ++version_;
  if (disk_ == nullptr || keptVersion_ >= version_) return kj::READY_NOW;
  auto paf = kj::newPromiseAndFulfiller<void>();
  waiters_.push_back({version_, kj::mv(paf.fulfiller)});
  if (!writing_) {
    writing_ = true;
    tasks_.add(kj::Promise<void>(writeLoop()));
  }
  return kj::mv(paf.promise);
}

// One write at a time; what came meanwhile goes into the next.
Co<void> EtcdPast::writeLoop() {
  while (!waiters_.empty()) {
    const uint64_t version = version_;
    const int64_t revision = memory_.revision;
    const std::string text = memoryToText(memory_);
    kj::Maybe<kj::Exception> failed;
    try {
      co_await kernelio::replaceFile(*disk_, file_.c_str(),
                                     kj::arrayPtr(text.data(), text.size()).asBytes());
      keptVersion_ = version;
      keptRevision_ = revision;
    } catch (kj::Exception& e) {
      failed = kj::mv(e);
    }
    std::vector<Waiter> waiting;
    std::swap(waiting, waiters_);
    for (auto& waiter : waiting) {
      KJ_IF_MAYBE(e, failed) {
        waiter.fulfiller->reject(failure(
            e->getType(), std::string("What etcd has said cannot be kept on this node's disk: ") +
                              e->getDescription().cStr()));
      } else if (waiter.version <= version) {
        waiter.fulfiller->fulfill();
      } else {
        waiters_.push_back(kj::mv(waiter));
      }
    }
  }
  writing_ = false;
}

Co<void> EtcdPast::adopt(EtcdMemory next) {
  KJ_REQUIRE(!adopting_, "the coordinator is being accepted already");
  adopting_ = true;
  KJ_DEFER(adopting_ = false);
  ++generation_;  // from now on no answer to an earlier question counts
  next.doubt.clear();
  EtcdMemory before = memory_;
  memory_ = kj::mv(next);
  ++version_;
  kj::Maybe<kj::Exception> failed;
  try {
    co_await kept();
  } catch (kj::Exception& e) {
    failed = kj::mv(e);
  }
  KJ_IF_MAYBE(e, failed) {
    memory_ = kj::mv(before);
    ++version_;
    kj::throwFatalException(kj::mv(*e));
  }
  doubt_.clear();
}

}  // namespace packmoor::rpc
