#include "replicator/local_coordinator.h"

#include "kernelio/co.h"
#include "wake_signal.h"

#include <kj/debug.h>

#include <map>
#include <sstream>

namespace packmoor::replicator {

// The file, in words separated by spaces, one line for each thing; a dash stands for an empty word:
//
//   packmoor-coordinator 1
//   volume NAME ID REVISION PHASE CONFIGURATION [CONFIGURATION]     the second is the last active one
//   traits NAME WEIGHT                                               of a volume, unless it is usual
//   pair NAME                                                        the volume is one
//   drained NAME NODES
//   joining NAME MEMBERS [MEMBERS]                                   of the current, the last active one
//   deleted NAME
//   former NAME IDS                                                  volumes that had the name before
//   loss NAME EPOCH INDEX EPOCH HASH KEPT IGNORED W AT ACKNOWLEDGED BY WHAT    of a volume, each one
//   node ID JOURNAL RPC HTTP VERSION
//   checksum HASH                                                   XXH3-128 of all lines before
//
// PHASE is recovering or active. CONFIGURATION is EPOCH PRIMARY NONCE W MEMBERS ASYNC, where a
// member is node@journal and lists are separated by commas. BY and WHAT are hexadecimal bytes. A line
// that follows a volume's and is not there means the usual: files of versions that did not know it are
// read as they were meant.

namespace {

constexpr kj::StringPtr kTitle = "packmoor-coordinator 1"_kj;
constexpr size_t kFileBytesMax = 16u << 20;

std::string word(const std::string& text) { return text.empty() ? "-" : text; }
std::string unword(const std::string& text) { return text == "-" ? "" : text; }

std::string memberText(const MemberIdentity& member) {
  if (member.node.empty()) return "-";
  return member.node + "@" + member.journal.text().cStr();
}

template <typename Item, typename Text>
std::string listText(const std::vector<Item>& items, Text textOf) {
  std::string text;
  for (const Item& item : items) text += (text.empty() ? "" : ",") + std::string(textOf(item));
  return word(text);
}

std::string membersText(const std::vector<MemberIdentity>& members) {
  return listText(members, memberText);
}

void write(std::ostream& out, const VolumeConfiguration& configuration) {
  out << ' ' << configuration.epoch.value << ' ' << memberText(configuration.primary) << ' '
      << configuration.nonce.text().cStr() << ' ' << configuration.writeQuorum << ' '
      << membersText(configuration.members) << ' ' << membersText(configuration.async);
}

std::string hexText(const std::string& text) {
  constexpr char kDigits[] = "0123456789abcdef";
  std::string hex;
  for (unsigned char byte : text) {
    hex += kDigits[byte >> 4];
    hex += kDigits[byte & 15];
  }
  return word(hex);
}

void write(std::ostream& out, const AcceptedLoss& loss) {
  out << ' ' << loss.epoch.value << ' ' << loss.adopted.index.value << ' '
      << loss.adopted.epoch.value << ' ' << loss.adopted.hash.text().cStr() << ' '
      << membersText(loss.kept) << ' ' << membersText(loss.ignored) << ' ' << loss.writeQuorum << ' ' << loss.atMs << ' ' << loss.acknowledged << ' ' << hexText(loss.by)
      << ' ' << hexText(loss.what);
}

// What a volume has besides its configurations, where it is not the usual.
void writeBesides(std::ostream& out, const VolumeRecord& record) {
  const VolumeTraits& traits = record.traits;
  const std::string name = ' ' + record.name;
  if (traits.weight != VolumeTraits().weight) out << "traits" << name << ' ' << traits.weight << '\n';
  if (traits.pair) out << "pair" << name << '\n';
  if (!traits.drained.empty()) {
    out << "drained" << name << ' ' << listText(traits.drained, [](const NodeId& node) { return node; })
        << '\n';
  }
  const bool lastJoins = record.lastActive && !record.lastActive->joining.empty();
  if (!record.current.joining.empty() || lastJoins) {
    out << "joining" << name << ' ' << membersText(record.current.joining);
    if (lastJoins) out << ' ' << membersText(record.lastActive->joining);
    out << '\n';
  }
  if (traits.deleted) out << "deleted" << name << '\n';
  if (!traits.former.empty()) {
    out << "former" << name << ' '
        << listText(traits.former, [](const VolumeId& id) { return std::string(id.text().cStr()); }) << '\n';
  }
  for (const AcceptedLoss& loss : record.losses) {
    out << "loss" << name;
    write(out, loss);
    out << '\n';
  }
}

// Reads the words of one line; says what is wrong by throwing.
class Words {
 public:
  explicit Words(const std::string& line) : line_(line), in_(line) {}

  std::string next() {
    std::string text;
    KJ_REQUIRE(bool(in_ >> text), "a line of the coordinator's file ends early", line_);
    return text;
  }
  bool more() { return !(in_ >> std::ws).eof(); }
  uint64_t number() {
    const std::string text = next();
    size_t used = 0;
    uint64_t value = 0;
    for (; used < text.size() && text[used] >= '0' && text[used] <= '9' && used < 19; ++used) {
      value = value * 10 + static_cast<uint64_t>(text[used] - '0');
    }
    KJ_REQUIRE(used == text.size() && used > 0, "not a number in the coordinator's file", line_);
    return value;
  }
  Uuid uuid(const std::string& text) {
    Uuid id;
    KJ_REQUIRE(Uuid::parse(text.c_str(), id), "not an identifier in the coordinator's file", line_);
    return id;
  }
  MemberIdentity member(const std::string& text) {
    if (text == "-") return {};
    const size_t at = text.find('@');
    KJ_REQUIRE(at != std::string::npos, "not a member in the coordinator's file", line_);
    return MemberIdentity{text.substr(0, at), uuid(text.substr(at + 1))};
  }
  std::vector<std::string> list() {
    std::vector<std::string> parts;
    std::istringstream in(unword(next()));
    for (std::string part; std::getline(in, part, ',');) parts.push_back(part);
    return parts;
  }
  std::vector<MemberIdentity> members() {
    std::vector<MemberIdentity> found;
    for (const std::string& part : list()) found.push_back(member(part));
    return found;
  }
  std::string hexBytes() {
    const std::string hex = unword(next());
    auto digit = [&](char c) -> int {
      KJ_REQUIRE((c >= '0' && c <= '9') || (c >= 'a' && c <= 'f'),
                 "not hexadecimal in the coordinator's file", line_);
      return c <= '9' ? c - '0' : c - 'a' + 10;
    };
    KJ_REQUIRE(hex.size() % 2 == 0, "not hexadecimal in the coordinator's file", line_);
    std::string text;
    for (size_t i = 0; i < hex.size(); i += 2) {
      text += static_cast<char>(digit(hex[i]) << 4 | digit(hex[i + 1]));
    }
    return text;
  }
  AcceptedLoss loss() {
    AcceptedLoss result;
    result.epoch = Epoch(number());
    result.adopted.index = RecordIndex(number());
    result.adopted.epoch = Epoch(number());
    const std::string hash = hexBytes();
    KJ_REQUIRE(hash.size() == 16, "not a hash in the coordinator's file", line_);
    for (size_t i = 0; i < 16; ++i) {
      uint64_t& half = i < 8 ? result.adopted.hash.high : result.adopted.hash.low;
      half = half << 8 | static_cast<unsigned char>(hash[i]);
    }
    result.kept = members();
    result.ignored = members();
    result.writeQuorum = static_cast<uint32_t>(number());
    result.atMs = static_cast<int64_t>(number());
    result.acknowledged = number() != 0;
    result.by = hexBytes();
    result.what = hexBytes();
    return result;
  }
  VolumeConfiguration configuration() {
    VolumeConfiguration result;
    result.epoch = Epoch(number());
    result.primary = member(next());
    result.nonce = uuid(next());
    result.writeQuorum = static_cast<uint32_t>(number());
    result.members = members();
    result.async = members();
    return result;
  }

 private:
  const std::string line_;
  std::istringstream in_;
};

struct Store {
  std::map<std::string, VolumeRecord> volumes;   // by name
  std::map<NodeId, NodeRegistration> nodes;

  std::string text() const {
    std::ostringstream out;
    out << kTitle.cStr() << '\n';
    for (const auto& [name, record] : volumes) {
      out << "volume " << name << ' ' << record.id.text().cStr() << ' ' << record.revision << ' '
          << (record.phase == VolumePhase::kActive ? "active" : "recovering");
      write(out, record.current);
      if (record.lastActive.has_value()) write(out, *record.lastActive);
      out << '\n';
      writeBesides(out, record);
    }
    for (const auto& [id, node] : nodes) {
      out << "node " << id << ' ' << node.journal.text().cStr() << ' ' << word(node.rpcAddress)
          << ' ' << word(node.httpAddress) << ' ' << word(node.version) << '\n';
    }
    const std::string body = out.str();
    return body + "checksum " + hashBytes(kj::StringPtr(body.c_str(), body.size()).asBytes())
                                    .text().cStr() + "\n";
  }

  void readLine(const std::string& line) {
    Words words(line);
    const std::string kind = words.next();
    if (kind == "volume") {
      VolumeRecord record;
      record.name = words.next();
      record.id = words.uuid(words.next());
      record.revision = static_cast<int64_t>(words.number());
      const std::string phase = words.next();
      KJ_REQUIRE(phase == "active" || phase == "recovering", "not a phase", line);
      record.phase = phase == "active" ? VolumePhase::kActive : VolumePhase::kRecovering;
      record.current = words.configuration();
      if (words.more()) record.lastActive = words.configuration();
      volumes[record.name] = record;
    } else if (kind == "node") {
      NodeRegistration node;
      node.node = words.next();
      node.journal = words.uuid(words.next());
      node.rpcAddress = unword(words.next());
      node.httpAddress = unword(words.next());
      node.version = unword(words.next());
      nodes[node.node] = node;
    } else {
      readBesides(kind, words, line);
    }
    KJ_REQUIRE(!words.more(), "a line of the coordinator's file is too long", line);
  }

  void readBesides(const std::string& kind, Words& words, const std::string& line) {
    auto volume = volumes.find(words.next());
    KJ_REQUIRE(volume != volumes.end(), "a line of the coordinator's file is about no volume", line);
    VolumeRecord& record = volume->second;
    VolumeTraits& traits = record.traits;
    if (kind == "traits") {
      traits.weight = static_cast<uint32_t>(words.number());
    } else if (kind == "pair") {
      traits.pair = true;
    } else if (kind == "drained") {
      traits.drained = words.list();
    } else if (kind == "joining") {
      record.current.joining = words.members();
      if (words.more() && record.lastActive) record.lastActive->joining = words.members();
    } else if (kind == "deleted") {
      traits.deleted = true;
    } else if (kind == "former") {
      for (const std::string& id : words.list()) traits.former.push_back(words.uuid(id));
    } else if (kind == "loss") {
      record.losses.push_back(words.loss());
    } else {
      KJ_FAIL_REQUIRE("an unknown kind of line in the coordinator's file", line);
    }
  }

  void read(const std::string& text) {
    const size_t sumAt = text.rfind("checksum ");
    KJ_REQUIRE(sumAt != std::string::npos && (sumAt == 0 || text[sumAt - 1] == '\n') &&
                   text.substr(sumAt) ==
                       std::string("checksum ") +
                           hashBytes(kj::StringPtr(text.c_str(), text.size()).asBytes()
                                         .slice(0, sumAt)).text().cStr() + "\n",
               "the coordinator's file is damaged: its checksum does not match");
    std::istringstream lines(text.substr(0, sumAt));
    std::string line;
    std::getline(lines, line);
    KJ_REQUIRE(line == kTitle.cStr(), "the coordinator's file is of another version", line);
    while (std::getline(lines, line)) readLine(line);
  }
};

class LocalCoordinator final : public Coordinator {
 public:
  LocalCoordinator(kernelio::Env& env, kj::String path, Store store)
      : env_(env), path_(kj::mv(path)), store_(std::move(store)) {}

  kj::Promise<std::optional<VolumeRecord>> readVolume(std::string name) override {
    auto it = store_.volumes.find(name);
    if (it == store_.volumes.end()) return std::optional<VolumeRecord>();
    return std::optional<VolumeRecord>(it->second);
  }

  kj::Promise<std::vector<VolumeRecord>> listVolumes() override {
    std::vector<VolumeRecord> all;
    for (const auto& [name, record] : store_.volumes) all.push_back(record);
    return all;
  }

  kj::Promise<bool> compareAndSwap(VolumeRecord next) override {
    return swap(kj::mv(next));
  }

  kj::Promise<void> registerNode(NodeRegistration registration) override {
    return add(kj::mv(registration));
  }

  kj::Promise<std::vector<NodeRegistration>> listNodes() override {
    std::vector<NodeRegistration> all;
    for (const auto& [id, node] : store_.nodes) all.push_back(node);
    return all;
  }

  kj::Promise<void> changed() override { return changed_.wait(); }
  kj::StringPtr kind() override { return "local"; }
  bool reachable() override { return true; }

 private:
  // A change is visible to readers only when it is durable, and one is made at a time.
  struct Turn {
    explicit Turn(LocalCoordinator& owner) : owner(owner) {}
    ~Turn() noexcept(false) {
      owner.busy_ = false;
      owner.free_.notify();
    }
    KJ_DISALLOW_COPY(Turn);
    LocalCoordinator& owner;
  };

  Co<kj::Own<Turn>> turn() {
    while (busy_) co_await free_.wait();
    busy_ = true;
    co_return kj::heap<Turn>(*this);
  }

  Co<bool> swap(VolumeRecord next) {
    auto mine = co_await turn();
    auto it = store_.volumes.find(next.name);
    const int64_t revision = it == store_.volumes.end() ? 0 : it->second.revision;
    if (revision != next.revision) co_return false;
    Store changed = store_;
    next.revision = revision + 1;
    const std::string name = next.name;
    changed.volumes[name] = kj::mv(next);
    co_await keep(kj::mv(changed));
    co_return true;
  }

  Co<void> add(NodeRegistration registration) {
    auto mine = co_await turn();
    Store changed = store_;
    const NodeId id = registration.node;
    changed.nodes[id] = kj::mv(registration);
    co_await keep(kj::mv(changed));
  }

  Co<void> keep(Store changed) {
    const std::string text = changed.text();
    co_await kernelio::replaceFile(env_.disk, path_,
                                   kj::StringPtr(text.c_str(), text.size()).asBytes());
    store_ = kj::mv(changed);
    changed_.notify();
  }

  kernelio::Env& env_;
  const kj::String path_;
  Store store_;
  bool busy_ = false;
  Signal free_, changed_;
};

Co<kj::Own<Coordinator>> open(kernelio::Env& env, kj::String path) {
  auto content = co_await kernelio::readWholeFile(env.disk, path, kFileBytesMax);
  Store store;
  KJ_IF_MAYBE(bytes, content) {
    store.read(std::string(bytes->asChars().begin(), bytes->size()));
  }
  co_return kj::heap<LocalCoordinator>(env, kj::mv(path), kj::mv(store));
}

}  // namespace

kj::Promise<kj::Own<Coordinator>> openLocalCoordinator(kernelio::Env& env, kj::String path) {
  return open(env, kj::mv(path));
}

}  // namespace packmoor::replicator
