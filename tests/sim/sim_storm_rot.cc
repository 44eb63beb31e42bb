// What rots, changes of members, and a coordinator that is restored from a copy.
#include "sim_storm.h"

#include "replicator/journal_format.h"
#include "replicator/outcome.h"
#include "sim_rot.h"

#include <algorithm>

namespace packmoor::replicator {

namespace {

// Of the batches in a journal: those that may rot, from the end, and the newest, which may not: what
// shows that a batch is not a torn end are batches behind it, and the marker, which comes late.
constexpr size_t kLast = 80, kNewest = 5;

}  // namespace

// ---- Rot ----------------------------------------------------------------------------------------

void SimStorm::rot() {
  if (!mayRot()) return;
  const size_t n = any();
  if (random_.chance(400'000)) {
    rotExtent(n);
  } else if (rotJournal(n)) {
    restartSoon(n, 60);
  }
}

bool SimStorm::isRotten(size_t n) {
  if (rotten_ != n) return false;
  SimNode& node = cluster_.node(n);
  for (const auto& [volume, record] : cluster_.coordinator().volumes) {
    if (!cluster_.isMember(node, volume)) continue;
    if (!node.hasVolume(volume.c_str())) return true;
    if (node.volume(volume.c_str()).status().repairing) return true;
  }
  if (!node.up()) return true;
  rotten_.reset();
  return false;
}

// One at a time, and the others are enough both to take over and to commit (rule 17 needs an active
// primary). What a member has lost was acknowledged by W.
bool SimStorm::mayRot() {
  if (changing_ > 0 || (rotten_ && isRotten(*rotten_))) return false;
  if (cluster_.coordinator().isRestored()) return false;  // who the members are is not known from it
  for (const auto& [volume, record] : cluster_.coordinator().volumes) {
    for (const VolumeConfiguration* configuration :
         {&record.current, record.lastActive ? &*record.lastActive : &record.current}) {
      const size_t members = configuration->members.size();
      if (configuration->writeQuorum < 2 || configuration->writeQuorum + 1 > members) return false;
    }
  }
  return true;
}

bool SimStorm::rotJournal(size_t n) {
  SimNode& node = cluster_.node(n);
  if (!node.idle()) node.stop();
  auto frames = journalFrames(node.storage());
  if (frames.size() < 2 * kNewest) {
    restartSoon(n, 60);
    return false;
  }
  const size_t back = kNewest + 1 + random_.below(std::min(kLast, frames.size()) - kNewest);
  const size_t batches = random_.chance(600'000) ? 1 : 1 + random_.below(back - kNewest);
  tell("the journal of " + name(n) + " rots, " + std::to_string(batches) + " batches from the " +
       std::to_string(back) + "th from its end");
  auto place = std::prev(frames.end(), static_cast<ptrdiff_t>(back));
  for (size_t i = 0; i < batches; ++i, ++place) {
    const JournalFrame& frame = place->second;
    const bool header = random_.chance(300'000);
    const uint64_t at = random_.below(header ? sizeof(format::FrameHeader) : frame.bytes);
    node.storage().rot(frame.path.c_str(), frame.at + at, 1);
  }
  cluster_.damageExpected = true;
  rotten_ = n;
  for (auto& checker : checkers_) checker->rotted(node);
  return true;
}

void SimStorm::rotExtent(size_t n) {
  SimNode& node = cluster_.node(n);
  const auto& extents = checkers_[random_.below(checkers_.size())]->extents();
  if (!node.up() || extents.empty()) return;
  const ExtentId id = extents[random_.below(extents.size())];
  if (!node.extents().isSealed(id) || rottenExtents_.count(id) > 0) return;
  const std::string path = node.extents().path(id).cStr();
  auto bytes = node.storage().content(path.c_str());
  KJ_IF_MAYBE(content, bytes) {
    tell("an extent of " + name(n) + " rots");
    node.storage().rot(path.c_str(), 0, 1);
    rottenExtents_.emplace(id, RottenExtent{n, path, kj::mv(*content)});
  }
}

// The core does without the others, and so cannot ask them for a block.
void SimStorm::undoExtentRot() {
  for (auto& [id, extent] : rottenExtents_) {
    cluster_.node(extent.node).storage().poke(extent.path.c_str(), 0, extent.bytes);
  }
  rottenExtents_.clear();
}

// ---- Members --------------------------------------------------------------------------------------

void SimStorm::changeMembers() {
  using Kind = ConfigurationChange::Kind;
  const std::string& volume = anyVolume();
  SimNode* primary = cluster_.primary(volume);
  if (primary == nullptr || (rotten_ && isRotten(*rotten_))) return;
  ConfigurationChange change;
  change.kind = static_cast<Kind>(random_.below(5));
  change.node = name(any());
  change.writeQuorum = static_cast<uint32_t>(1 + random_.below(cluster_.size()));
  if (options_.rot) change.writeQuorum = std::max(change.writeQuorum, 2u);
  static const char* const kWhat[] = {"add member ", "add async ", "remove ", "set quorum ",
                                      "promote "};
  tell(primary->id() + " is told to " + kWhat[static_cast<size_t>(change.kind)] +
       (change.kind == Kind::kSetQuorum ? std::to_string(change.writeQuorum) : change.node));
  ++changing_;
  auto changed = primary->volume(volume.c_str()).changeConfiguration(change);
  cluster_.tasks().add(outcomeOf(kj::mv(changed)).then([this](kj::Maybe<kj::Exception>&&) {
    --changing_;
  }));
}

// ---- The coordinator (rule 18) ----------------------------------------------------------------------

void SimStorm::coordinatorGoesBack() {
  SimCoordinator& coordinator = cluster_.coordinator();
  if (random_.chance(150'000)) {
    coordinator.keepCopy();
    return;
  }
  if (!coordinator.goBack()) return;
  tell("the coordinator is restored from an older copy");
  const auto lasts = static_cast<int64_t>(random_.below(400)) * kj::MILLISECONDS;
  cluster_.tasks().add(cluster_.timer().afterDelay(lasts).then([this]() {
    if (over_) return;
    tell("the coordinator is accepted");
    cluster_.coordinator().accept();
  }));
}

}  // namespace packmoor::replicator
