// Checkpoints of a KvStateMachine: the state as text in one file, others beside it to give a
// transfer something to move. Staged ones are folders kv/state-INDEX on the node's disk.
#include "kv_state_machine.h"

#include <kj/debug.h>

#include <sstream>

namespace packmoor::replicator {

namespace {

constexpr size_t kStateBytesMax = 256u << 20;
constexpr uint64_t kFillerBytes = 600'000;   // of each file beside the state

Uuid uuidFrom(const std::string& text) {
  Uuid id;
  KJ_REQUIRE(Uuid::parse(text.c_str(), id), text.c_str());
  return id;
}

Co<void> writeFile(kernelio::Disk& disk, std::string path, std::string content) {
  kernelio::OpenOptions options;
  options.write = options.create = true;
  auto file = co_await disk.open(path, options);
  auto data = kernelio::IoBuffer::copyOf(
      kj::arrayPtr(reinterpret_cast<const kj::byte*>(content.data()), content.size()));
  co_await file->write(0, kj::mv(data), kernelio::WriteMode::kBuffered);
}

}  // namespace

std::string encodeState(const KvState& state) {
  std::ostringstream out;
  out << state.applied.index.value << ' ' << state.applied.epoch.value << ' '
      << state.applied.hash.low << ' ' << state.applied.hash.high << ' ' << state.history.low << ' '
      << state.history.high << '\n';
  for (const auto& [key, value] : state.values) out << "v " << key << ' ' << value << '\n';
  for (const auto& [name, repository] : state.repositories) {
    out << "g " << name << ' ' << repository.guard.lastPrune.value << ' '
        << repository.guard.lastChange.value << '\n';
    for (const auto& object : repository.objects) out << "o " << name << ' ' << object << '\n';
    for (const auto& [ref, object] : repository.refs) {
      out << "f " << name << ' ' << ref << ' ' << object << '\n';
    }
  }
  for (const auto& [txn, result] : state.results) {
    out << "r " << txn.text().cStr() << ' ' << result.index.value << ' ' << result.times << ' '
        << result.answer << '\n';
  }
  for (const auto& [index, txn] : state.expiring) {
    out << "x " << index.value << ' ' << txn.text().cStr() << '\n';
  }
  for (const ExtentId& extent : state.extents) out << "e " << extent.text().cStr() << '\n';
  return out.str();
}

KvState decodeState(const std::string& text) {
  KvState state;
  std::istringstream in(text);
  in >> state.applied.index.value >> state.applied.epoch.value >> state.applied.hash.low >>
      state.applied.hash.high >> state.history.low >> state.history.high;
  std::string kind, id;
  while (in >> kind) {
    if (kind == "v") {
      std::string key;
      in >> key;
      in >> state.values[key];
    } else if (kind == "g") {
      in >> id;
      PruneGuard& guard = state.repositories[id].guard;
      in >> guard.lastPrune.value >> guard.lastChange.value;
    } else if (kind == "o") {
      std::string object;
      in >> id >> object;
      state.repositories[id].objects.insert(object);
    } else if (kind == "f") {
      std::string ref;
      in >> id >> ref;
      in >> state.repositories[id].refs[ref];
    } else if (kind == "r") {
      in >> id;
      KvResult& result = state.results[uuidFrom(id)];
      in >> result.index.value >> result.times;
      in.ignore();
      std::getline(in, result.answer);
    } else if (kind == "x") {
      RecordIndex index;
      in >> index.value >> id;
      state.expiring.emplace_back(index, uuidFrom(id));
    } else {
      KJ_REQUIRE(kind == "e", kind.c_str());
      in >> id;
      state.extents.push_back(uuidFrom(id));
    }
  }
  return state;
}

std::string KvStateMachine::folderOf(RecordIndex index) const {
  return options_.folder + "/state-" + std::to_string(index.value);
}

kj::Promise<LogPosition> KvStateMachine::open() {
  if (disk_.unreadable) return KJ_EXCEPTION(FAILED, disk_.damage.c_str());
  if (disk_.staged) return openState();
  state_ = disk_.durable;
  for (const ExtentId& extent : state_.extents) extents_.link(extent);
  return state_.applied;
}

Co<LogPosition> KvStateMachine::openState() {
  RecordIndex chosen;
  auto names = co_await env_.disk.list(options_.folder);
  for (const kj::String& name : names) {
    const RecordIndex index(std::stoull(std::string(name.cStr()).substr(6)));
    if (index <= checkpoint_.index) chosen = std::max(chosen, index);
  }
  for (const kj::String& name : names) {
    const std::string path = options_.folder + "/" + name.cStr();
    if (path != folderOf(chosen)) co_await env_.disk.removeTree(path);
  }
  // What was flushed since then is in KvDisk.
  if (chosen > disk_.installed) co_await load(chosen);
  state_ = disk_.durable;
  for (const ExtentId& extent : state_.extents) extents_.link(extent);
  co_return state_.applied;
}

kj::Promise<std::vector<StoredFile>> KvStateMachine::storedFiles() {
  return std::vector<StoredFile>{{"state", 4096}};
}

kj::Promise<void> KvStateMachine::verifyStored(std::string name, Pace& pace) {
  return pace(4096).then([this]() {
    if (!disk_.rot.empty()) disk_.damage = disk_.rot;
  });
}

Co<void> KvStateMachine::load(RecordIndex installed) {
  const std::string path = folderOf(installed) + "/state";
  auto content = co_await kernelio::readWholeFile(env_.disk, path, kStateBytesMax);
  KJ_IF_MAYBE(bytes, content) {
    disk_.durable = decodeState(std::string(bytes->asChars().begin(), bytes->size()));
    disk_.installed = installed;
    ++disk_.replaced;
    disk_.damage.clear();
    disk_.rot.clear();
    disk_.unreadable = false;
  } else {
    KJ_FAIL_REQUIRE("a staged state without its file", path.c_str());
  }
}

kj::Promise<CheckpointContent> KvStateMachine::makeCheckpoint(std::string folder) {
  return writeCheckpoint(std::move(folder));
}

Co<CheckpointContent> KvStateMachine::writeCheckpoint(std::string folder) {
  CheckpointContent content{state_.applied, state_.extents};
  std::string text = encodeState(state_);
  co_await env_.disk.makeFolders(folder);
  co_await writeFile(env_.disk, folder + "/state", std::move(text));
  // The same bytes in every checkpoint, as the files of a state that seldom change.
  uint64_t number = 0;
  for (uint64_t left = options_.checkpointBytes; left > 0;) {
    const uint64_t bytes = std::min(left, kFillerBytes);
    std::string filler(bytes, '\0');
    for (uint64_t i = 0; i < bytes; ++i) {
      filler[i] = static_cast<char>((i * 2654435761u + number * 40503u) >> 13);
    }
    const std::string path = folder + "/filler-" + std::to_string(number++);
    co_await writeFile(env_.disk, path, std::move(filler));
    left -= bytes;
  }
  co_return kj::mv(content);
}

kj::Promise<void> KvStateMachine::stageCheckpoint(std::string folder, LogPosition position) {
  return stage(std::move(folder), position);
}

Co<void> KvStateMachine::stage(std::string folder, LogPosition position) {
  disk_.staged = true;
  co_await env_.disk.makeFolders(options_.folder);
  co_await env_.disk.syncDirectory("");
  const std::string target = folderOf(position.index);
  co_await env_.disk.removeTree(target);
  co_await env_.disk.rename(folder, target);
  co_await env_.disk.syncDirectory(options_.folder);
}

kj::Promise<void> KvStateMachine::switchToStaged(LogPosition position) {
  return load(position.index).promise().then([this, position]() {
    KJ_REQUIRE(disk_.durable.applied == position, "a checkpoint of another position");
    state_ = disk_.durable;
    for (const ExtentId& extent : state_.extents) extents_.link(extent);
    unflushed_.clear();
    unflushedBytes_ = 0;
    inFlight_.clear();
    guards_.clear();
  });
}

}  // namespace packmoor::replicator
