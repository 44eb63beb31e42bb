#include "sim_storage.h"

#include "kernelio/check.h"
#include "path.h"

#include <kj/debug.h>

#include <algorithm>
#include <cstring>

namespace packmoor::kernelio {

namespace sim {

namespace {

InodeRef walk(const InodeRef& root, kj::StringPtr path, Entries Inode::*entries) {
  checkFolderPath(path);
  InodeRef at = root;
  while (path.size() > 0) {
    size_t end = path.size();
    KJ_IF_MAYBE (slash, path.findFirst('/')) { end = *slash; }
    std::string name(path.begin(), end);
    path = path.slice(std::min(end + 1, path.size()));
    if (!at->folder) return nullptr;
    auto found = ((*at).*entries).find(name);
    if (found == ((*at).*entries).end()) return nullptr;
    at = found->second;
  }
  return at;
}

template <typename F>
void forEachInode(const InodeRef& inode, Entries Inode::*entries, F f) {
  f(*inode);
  for (auto& [name, child] : (*inode).*entries) forEachInode(child, entries, f);
}

bool startsWith(kj::StringPtr path, const std::string& prefix) {
  return path.startsWith(kj::StringPtr(prefix.c_str(), prefix.size()));
}

OpKind struckBy(SimFaultKind kind) {
  switch (kind) {
    case SimFaultKind::kSyncError:
      return OpKind::kSync;
    case SimFaultKind::kReadError:
      return OpKind::kRead;
    default:
      return OpKind::kWrite;
  }
}

}  // namespace

InodeRef Storage::find(kj::StringPtr path) const { return walk(root, path, &Inode::entries); }

InodeRef Storage::folder(kj::StringPtr path) const {
  InodeRef inode = find(path);
  KJ_REQUIRE(inode != nullptr, "No such folder", path);
  KJ_REQUIRE(inode->folder, "Not a folder", path);
  return inode;
}

InodeRef Storage::file(kj::StringPtr path) const {
  InodeRef inode = find(path);
  KJ_REQUIRE(inode != nullptr, "No such file", path);
  KJ_REQUIRE(!inode->folder, "Is a folder, not a file", path);
  return inode;
}

InodeRef Storage::durableFile(kj::StringPtr path) const {
  InodeRef inode = walk(root, path, &Inode::durableEntries);
  return inode == nullptr || inode->folder ? nullptr : inode;
}

bool Storage::cutsDuring() {
  ++boundaries;
  if (cutAt != boundaries || cutWhen != PowerCut::kDuring) return false;
  cutPower();
  return true;
}

bool Storage::cutsAfter() {
  if (cutAt != boundaries || cutWhen != PowerCut::kAfter) return false;
  cutPower();
  return true;
}

void Storage::cutPower() {
  powered = false;
  cutAt = 0;
  for (auto& watcher : powerWatchers) watcher->fulfill();
  powerWatchers.clear();
}

void Storage::crash() {
  PACKMOOR_CHECK(attached == 0, "a crash while a SimDisk is still there");
  if (powered) cutPower();
  names.crash(random);
  forEachInode(root, &Inode::durableEntries, [this](Inode& inode) {
    inode.entries = inode.durableEntries;
    inode.crash(random);
  });
  for (PendingWrite& write : pendingWrites) {
    write.inode->crashWrite(write.offset, write.data.bytes(), random);
    write.inode->current = write.inode->durable;
  }
  pendingWrites.clear();
  powered = true;
}

void Storage::completePending() {
  if (!powered) return;  // then crash() decides
  for (PendingWrite& write : pendingWrites) write.inode->write(write.offset, write.data.bytes());
  pendingWrites.clear();
}

kj::Duration Storage::duration(OpKind kind) {
  auto between = [this](kj::Duration low, kj::Duration high) -> kj::Duration {
    if (high <= low) return low;
    int64_t extra = random.below((high - low) / kj::NANOSECONDS + 1);
    return low + extra * kj::NANOSECONDS;
  };
  switch (kind) {
    case OpKind::kRead:
      return between(timing.readMin, timing.readMax);
    case OpKind::kWrite:
      return between(timing.writeMin, timing.writeMax);
    default:
      return between(timing.syncMin, timing.syncMax);
  }
}

bool Storage::strikes(Planned& fault, OpKind kind, kj::StringPtr path) {
  bool anyKind = fault.kind == SimFaultKind::kSlow || fault.kind == SimFaultKind::kStuck;
  if (!anyKind && struckBy(fault.kind) != kind) return false;
  if (fault.count == 0 || !startsWith(path, fault.pathPrefix)) return false;
  if (fault.skip > 0) {
    --fault.skip;
    return false;
  }
  if (fault.count != SimFault::kForever) --fault.count;
  ++struck;
  return true;
}

Verdict Storage::judge(OpKind kind, kj::StringPtr path) {
  Verdict verdict;
  verdict.delay = duration(kind);
  for (Planned& fault : planned) {
    if (!strikes(fault, kind, path)) continue;
    switch (fault.kind) {
      case SimFaultKind::kLostWrite:
        verdict.lost = true;
        break;
      case SimFaultKind::kMisdirectedWrite:
        verdict.misdirected = true;
        break;
      case SimFaultKind::kWriteError:
      case SimFaultKind::kSyncError:
      case SimFaultKind::kReadError:
        verdict.failed = true;
        break;
      case SimFaultKind::kSlow:
        verdict.delay += fault.delay;
        break;
      case SimFaultKind::kStuck:
        verdict.stuck = true;
        break;
    }
  }
  auto byChance = [this](uint32_t rate) {
    bool hit = random.chance(rate);
    if (hit) ++struck;
    return hit;
  };
  if (kind == OpKind::kWrite) {
    verdict.lost |= byChance(rates.lostWrite);
    verdict.misdirected |= byChance(rates.misdirectedWrite);
    verdict.failed |= byChance(rates.writeError);
  } else if (kind == OpKind::kRead) {
    verdict.failed |= byChance(rates.readError);
    verdict.rots |= byChance(rates.rotPerRead);
  }
  if (byChance(rates.slow)) verdict.delay += rates.slowDelay;
  return verdict;
}

uint64_t Storage::usedBytes() const {
  uint64_t used = 0;
  forEachInode(root, &Inode::entries, [&used](Inode& inode) {
    used += std::max<uint64_t>(inode.reservedBytes, inode.current.sectors.size() * kIoAlignment);
  });
  return used;
}

void Storage::requireSpace(Inode& inode, uint64_t offset, uint64_t bytes,
                           kj::StringPtr path) const {
  if (capacityBytes == UINT64_MAX) return;
  uint64_t needed = 0;
  uint64_t last = (offset + bytes + kIoAlignment - 1) / kIoAlignment;
  for (uint64_t sector = offset / kIoAlignment; sector < last; ++sector) {
    bool reserved = (sector + 1) * kIoAlignment <= inode.reservedBytes;
    if (!reserved && inode.current.get(sector) == nullptr) needed += kIoAlignment;
  }
  uint64_t used = usedBytes();
  if (needed > 0 && used + needed > capacityBytes) {
    kj::throwFatalException(kj::Exception(
        kj::Exception::Type::OVERLOADED, __FILE__, __LINE__,
        kj::str("Could not write ", path, ": no space left on the simulated disk (", used, " of ",
                capacityBytes, " bytes used, ", needed, " more needed).")));
  }
}

}  // namespace sim

SimStorage::SimStorage(uint64_t seed) : storage_(std::make_unique<sim::Storage>(seed)) {}
SimStorage::~SimStorage() noexcept {}

void SimStorage::setTiming(const SimTiming& timing) { storage_->timing = timing; }
void SimStorage::setCapacity(uint64_t bytes) { storage_->capacityBytes = bytes; }
uint64_t SimStorage::writeBoundaries() const { return storage_->boundaries; }
void SimStorage::cutPower() { storage_->cutPower(); }
bool SimStorage::powered() const { return storage_->powered; }
void SimStorage::crash() { storage_->crash(); }

void SimStorage::cutPowerAt(uint64_t boundary, PowerCut when) {
  PACKMOOR_CHECK(boundary > storage_->boundaries, "a power cut planned in the past", boundary);
  storage_->cutAt = boundary;
  storage_->cutWhen = when;
}

kj::Promise<void> SimStorage::whenPowerLost() {
  auto paf = kj::newPromiseAndFulfiller<void>();
  storage_->powerWatchers.add(kj::mv(paf.fulfiller));
  return kj::mv(paf.promise);
}

void SimStorage::inject(const SimFault& fault) {
  storage_->planned.push_back(
      {fault.kind, fault.pathPrefix.cStr(), fault.skip, fault.count, fault.delay});
}

void SimStorage::setFaultRates(const SimFaultRates& rates) { storage_->rates = rates; }

void SimStorage::clearFaults() {
  storage_->planned.clear();
  storage_->rates = SimFaultRates();
}

uint64_t SimStorage::faultsStruck() const { return storage_->struck; }

void SimStorage::rot(kj::StringPtr path, uint64_t offset, uint64_t bytes) {
  auto inode = storage_->file(path);
  PACKMOOR_CHECK(offset + bytes <= inode->current.size, "rot beyond a file's end", path);
  uint64_t at = offset;
  while (at < offset + bytes) {
    uint64_t end = std::min(offset + bytes, (at / kIoAlignment + 1) * kIoAlignment);
    uint64_t victim = at + storage_->random.below(end - at);
    inode->flipBit(victim, storage_->random.below(8));
    at = end;
  }
}

void SimStorage::breakSectors(kj::StringPtr path, uint64_t offset, uint64_t bytes) {
  auto inode = storage_->file(path);
  for (uint64_t sector = offset / kIoAlignment; sector * kIoAlignment < offset + bytes; ++sector) {
    inode->unreadable.insert(sector);
  }
}

kj::Maybe<kj::Array<kj::byte>> SimStorage::content(kj::StringPtr path) const {
  auto inode = storage_->find(path);
  if (inode == nullptr || inode->folder) return nullptr;
  auto bytes = kj::heapArray<kj::byte>(inode->current.size);
  inode->current.read(0, bytes);
  return kj::mv(bytes);
}

kj::Maybe<kj::Array<kj::byte>> SimStorage::durableContent(kj::StringPtr path) const {
  auto inode = storage_->durableFile(path);
  if (inode == nullptr) return nullptr;
  auto bytes = kj::heapArray<kj::byte>(inode->durable.size);
  inode->durable.read(0, bytes);
  return kj::mv(bytes);
}

void SimStorage::poke(kj::StringPtr path, uint64_t offset, kj::ArrayPtr<const kj::byte> bytes) {
  auto inode = storage_->file(path);
  PACKMOOR_CHECK(offset + bytes.size() <= inode->durable.size, "poke beyond the durable end", path);
  inode->write(offset, bytes);
  inode->commitRange(offset, bytes.size());
}

}  // namespace packmoor::kernelio
