#include "rpc/etcd_coordinator.h"

#include <kj/debug.h>
#include <kj/encoding.h>

#include <nlohmann/json.hpp>

#include <algorithm>

#include "change_signal.h"
#include "etcd_client.h"
#include "rpc/etcd_records.h"

namespace packmoor::rpc {
namespace {

using nlohmann::json;
using replicator::NodeRegistration;
using replicator::VolumeRecord;

template <typename... Parts>
[[noreturn]] void fail(Parts&&... parts) {
  kj::throwFatalException(kj::Exception(kj::Exception::Type::FAILED, __FILE__, __LINE__,
                                        kj::str(kj::fwd<Parts>(parts)...)));
}

std::string base64(const std::string& text) {
  return kj::encodeBase64(kj::StringPtr(text.c_str(), text.size()).asBytes(), false).cStr();
}

std::string unbase64(const json& object, const char* name) {
  auto found = object.find(name);
  if (found == object.end()) return {};
  if (found->is_string()) {
    const auto& text = found->get_ref<const std::string&>();
    auto bytes = kj::decodeBase64(kj::StringPtr(text.c_str(), text.size()));
    if (!bytes.hadErrors) return std::string(bytes.asChars().begin(), bytes.size());
  }
  fail("etcd's answer holds a ", name, " that is not base64.");
}

// The end of the range of keys that begin with `prefix`.
std::string endOf(std::string prefix) {
  ++prefix.back();  // ends in '/'
  return prefix;
}

struct Entry {
  std::string key, value;
  int64_t revision = 0;
};

std::vector<Entry> entriesOf(const json& answer) {
  std::vector<Entry> entries;
  auto kvs = answer.find("kvs");
  if (kvs == answer.end()) return entries;
  if (!kvs->is_array()) fail("etcd's answer holds no list of keys.");
  for (auto& kv : *kvs) {
    entries.push_back({unbase64(kv, "key"), unbase64(kv, "value"), etcdInteger(kv, "mod_revision")});
  }
  return entries;
}

// Names the key in what is wrong with its value.
template <typename Func>
auto decode(const Entry& entry, Func func) {
  using Value = decltype(func());
  kj::Maybe<Value> value;
  KJ_IF_MAYBE(e, kj::runCatchingExceptions([&]() { value = func(); })) {
    fail("The value of ", entry.key.c_str(), " in etcd cannot be used: ", e->getDescription(), ".");
  }
  return kj::mv(KJ_ASSERT_NONNULL(value));
}

VolumeRecord volumeOf(const Entry& entry) {
  return decode(entry, [&]() { return volumeFromJson(entry.value, entry.revision); });
}

class Etcd final : public EtcdCoordinator, private kj::TaskSet::ErrorHandler {
 public:
  explicit Etcd(EtcdOptions options)
      : client_(kj::mv(options)),
        root_(client_.options().prefix + "/" + client_.options().cluster + "/"),
        tasks_(*this) {
    const auto& cluster = client_.options().cluster;
    if (!replicator::isValidNodeId(kj::StringPtr(cluster.c_str(), cluster.size()))) {
      fail("\"", cluster.c_str(), "\" is not a cluster name; use small letters, digits and dashes.");
    }
    tasks_.add(kj::Promise<void>(watchLoop()));
    tasks_.add(kj::Promise<void>(pollLoop()));
  }

  kj::Promise<std::optional<VolumeRecord>> readVolume(std::string name) override {
    return range(volumeKey(name)).then([](std::vector<Entry> entries) {
      std::optional<VolumeRecord> record;
      if (!entries.empty()) record = volumeOf(entries[0]);
      return record;
    });
  }
  kj::Promise<std::vector<VolumeRecord>> listVolumes() override {
    const std::string prefix = root_ + "volumes/";
    return range(prefix, endOf(prefix)).then([](std::vector<Entry> entries) {
      std::vector<VolumeRecord> records;
      for (auto& entry : entries) records.push_back(volumeOf(entry));
      return records;
    });
  }
  kj::Promise<bool> compareAndSwap(VolumeRecord next) override { return swap(kj::mv(next)); }

  kj::Promise<void> registerNode(NodeRegistration registration) override {
    const json body = {{"key", base64(root_ + "nodes/" + registration.node)},
                       {"value", base64(nodeToJson(registration))}};
    return client_.callAny("/v3/kv/put", body.dump()).ignoreResult();
  }
  kj::Promise<std::vector<NodeRegistration>> listNodes() override {
    const std::string prefix = root_ + "nodes/";
    return range(prefix, endOf(prefix)).then([](std::vector<Entry> entries) {
      std::vector<NodeRegistration> nodes;
      for (auto& entry : entries) {
        nodes.push_back(decode(entry, [&]() { return nodeFromJson(entry.value); }));
      }
      return nodes;
    });
  }

  kj::Promise<void> changed() override { return changes_.changed(); }
  kj::StringPtr kind() override { return "etcd"_kj; }
  bool reachable() override { return client_.reachable(); }
  EtcdIdentity identity() override { return client_.identity(); }
  std::string endpoint() override { return client_.endpoint(); }
  std::string problem() override { return client_.problem(); }

 private:
  std::string volumeKey(const std::string& name) const { return root_ + "volumes/" + name; }

  kj::Promise<std::vector<Entry>> range(std::string key, std::string end = {}) {
    json body = {{"key", base64(key)}};
    if (!end.empty()) body["range_end"] = base64(end);
    return client_.callAny("/v3/kv/range", body.dump()).then([](EtcdAnswer answer) {
      return entriesOf(*answer);
    });
  }

  Co<bool> swap(VolumeRecord next);
  Co<void> watchLoop();
  Co<void> watchOnce();
  Co<void> pollLoop();
  void taskFailed(kj::Exception&& e) override {
    KJ_LOG(ERROR, "Watching etcd has ended.", e);
  }

  EtcdClient client_;
  std::string root_;  // ends in '/'
  ChangeSignal changes_;
  int64_t polledRevision_ = 0;
  size_t watchedEndpoint_ = 0;
  int64_t retryMs_ = kEtcdRetryMinMs;
  kj::TaskSet tasks_;
};

Co<bool> Etcd::swap(VolumeRecord next) {
  if (!replicator::isValidNodeId(kj::StringPtr(next.name.c_str(), next.name.size()))) {
    fail("\"", next.name.c_str(), "\" is not a volume name; use small letters, digits and dashes.");
  }
  const std::string key = volumeKey(next.name);
  // A transaction is sent to one endpoint only; a read finds one that answers.
  if (!client_.reachable()) co_await range(key);
  const std::string encoded = base64(key);
  const json body = {{"compare",
                      {{{"key", encoded},
                        {"target", "MOD"},
                        {"result", "EQUAL"},
                        {"mod_revision", std::to_string(next.revision)}}}},
                     {"success",
                      {{{"request_put",
                         {{"key", encoded}, {"value", base64(volumeToJson(next))}}}}}}};
  auto answer = co_await client_.callOnce("/v3/kv/txn", body.dump());
  auto succeeded = answer->find("succeeded");
  co_return succeeded != answer->end() && succeeded->is_boolean() && succeeded->get<bool>();
}

Co<void> Etcd::pollLoop() {
  for (;;) {
    co_await client_.options().timer.afterDelay(kEtcdPollMs * kj::MILLISECONDS);
    const json body = {{"key", base64(root_)},
                       {"range_end", base64(endOf(root_))},
                       {"count_only", true}};
    auto polled = client_.callAny("/v3/kv/range", body.dump())
                      .then([](EtcdAnswer) {}, [](kj::Exception&&) {});  // noted by the client
    co_await kj::mv(polled);
    const int64_t revision = client_.identity().revision;
    if (revision != polledRevision_) changes_.raise();
    polledRevision_ = revision;
  }
}

Co<void> Etcd::watchLoop() {
  co_await kj::evalLater([]() {});  // not from within the constructor
  for (;;) {
    try {
      co_await watchOnce();
    } catch (kj::Exception& e) {
      // The requests say what is wrong with etcd; a watch only has to come back.
    }
    ++watchedEndpoint_;
    const int64_t pauseMs = retryMs_;
    retryMs_ = std::min(retryMs_ * 2, kEtcdRetryMaxMs);
    co_await client_.options().timer.afterDelay(pauseMs * kj::MILLISECONDS);
  }
}

// Watches until the stream ends. Each line of it is one JSON object.
Co<void> Etcd::watchOnce() {
  const json body = {{"create_request",
                      {{"key", base64(root_)}, {"range_end", base64(endOf(root_))}}}};
  auto stream = co_await client_.open(watchedEndpoint_, "/v3/watch", body.dump());
  auto buffer = kj::heapArray<char>(16u << 10);
  std::string line;
  for (;;) {
    auto bytes = co_await stream->tryRead(buffer.begin(), 1, buffer.size());
    if (bytes == 0) co_return;
    for (size_t i = 0; i < bytes; ++i) {
      if (buffer[i] != '\n') {
        line.push_back(buffer[i]);
        continue;
      }
      auto message = json::parse(line, nullptr, false);
      line.clear();
      if (!message.is_object()) co_return;
      auto result = message.find("result");
      if (result == message.end() || !result->is_object() || result->contains("canceled")) {
        co_return;
      }
      // Created: what happened while nobody watched is not told. Otherwise: there are events.
      retryMs_ = kEtcdRetryMinMs;
      changes_.raise();
    }
    if (line.size() > kEtcdAnswerBytesMax) co_return;
  }
}

}  // namespace

kj::Own<EtcdCoordinator> EtcdCoordinator::create(EtcdOptions options) {
  return kj::heap<Etcd>(kj::mv(options));
}

}  // namespace packmoor::rpc
