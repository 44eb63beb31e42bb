#include "rpc/etcd_coordinator.h"

#include <kj/debug.h>

#include <nlohmann/json.hpp>

#include <algorithm>

#include "change_signal.h"
#include "etcd_client.h"
#include "etcd_past.h"
#include "etcd_values.h"
#include "etcd_watch.h"
#include "rpc/etcd_records.h"

namespace packmoor::rpc {
namespace {

using nlohmann::json;
using replicator::NodeRegistration;
using replicator::VolumeRecord;

constexpr const char* kRangePath = "/v3/kv/range";
constexpr const char* kTxnPath = "/v3/kv/txn";

template <typename... Parts>
[[noreturn]] void fail(Parts&&... parts) {
  kj::throwFatalException(kj::Exception(kj::Exception::Type::FAILED, __FILE__, __LINE__,
                                        kj::str(kj::fwd<Parts>(parts)...)));
}

class Etcd final : public EtcdCoordinator, private kj::TaskSet::ErrorHandler {
 public:
  Etcd(EtcdOptions options, EtcdMemory memory)
      : fresh_(memory.clusterId == 0), past_(options.disk, options.file, kj::mv(memory), options.notices),
        client_(kj::mv(options), past_, [this]() { recovered(); }),
        root_(client_.options().prefix + "/" + client_.options().cluster + "/"),
        watch_(client_, root_, [this]() { changes_.raise(); }),
        tasks_(*this) {
    const auto& cluster = client_.options().cluster;
    if (!replicator::isValidNodeId(kj::StringPtr(cluster.c_str(), cluster.size()))) {
      fail("\"", cluster.c_str(), "\" is not a cluster name; use small letters, digits and dashes.");
    }
    tasks_.add(watch_.run());
    tasks_.add(kj::Promise<void>(pollLoop()));
  }

  kj::Promise<std::optional<VolumeRecord>> readVolume(std::string name) override {
    return readOne(kj::mv(name));
  }
  kj::Promise<std::vector<VolumeRecord>> listVolumes() override { return readAll(); }
  kj::Promise<bool> compareAndSwap(VolumeRecord next) override { return swap(kj::mv(next)); }
  kj::Promise<void> registerNode(NodeRegistration registration) override {
    registration_ = registration;
    return client_.callAny("/v3/kv/put", registrationBody()).then([this](EtcdAnswer) {
      registered_ = true;
    });
  }
  kj::Promise<std::vector<NodeRegistration>> listNodes() override { return readNodes(); }

  kj::Promise<void> changed() override { return changes_.changed(); }
  kj::StringPtr kind() override { return "etcd"_kj; }
  bool reachable() override { return client_.reachable(); }
  std::string doubt() override { return past_.doubt(); }
  std::vector<VolumeRecord> remembered() override { return past_.memory().volumes; }

  EtcdIdentity identity() override {
    return {past_.memory().clusterId, past_.memory().revision};
  }
  std::string endpoint() override { return client_.endpoint(); }
  std::string problem() override { return client_.problem(); }
  const EtcdMemory& memory() override { return past_.memory(); }
  EtcdIdentity seen() override { return {past_.seen().clusterId, past_.seen().revision}; }
  std::vector<NodeRegistration> rememberedNodes() override { return past_.memory().nodes; }
  kj::Promise<EtcdSurvey> survey() override { return surveyBody(); }
  kj::Promise<void> accept(EtcdAcceptance acceptance) override {
    return acceptBody(kj::mv(acceptance));
  }

 private:
  std::string volumeKey(const std::string& name) const { return volumesPrefix() + name; }
  std::string volumesPrefix() const { return root_ + "volumes/"; }
  std::string markerKey() const { return root_ + "past"; }
  std::string registrationBody() const {
    const json body = {{"key", etcdBase64(root_ + "nodes/" + registration_->node)},
                       {"value", etcdBase64(nodeToJson(*registration_))}};
    return body.dump();
  }

  Co<std::optional<VolumeRecord>> readOne(std::string name);
  Co<std::vector<VolumeRecord>> readAll();
  Co<std::vector<NodeRegistration>> readNodes();
  Co<bool> swap(VolumeRecord next);
  Co<void> pollLoop();
  Co<void> pollOnce();
  Co<void> inspect();
  Co<EtcdSurvey> surveyBody();
  Co<void> acceptBody(EtcdAcceptance acceptance);
  Co<void> put(std::string key, std::string value, int64_t revision, uint64_t clusterId);
  Co<void> adoptAsIs(replicator::Uuid past, uint64_t clusterId);
  std::optional<EtcdPastMarker> markerIn(const EtcdAnswer& answer);
  void recovered();
  void taskFailed(kj::Exception&& e) override {
    KJ_LOG(ERROR, "Watching etcd has ended.", e);
  }

  bool fresh_;        // this node knew nothing of etcd when it started
  EtcdPast past_;
  EtcdClient client_;
  std::string root_;  // ends in '/'
  ChangeSignal changes_;
  EtcdWatch watch_;
  std::optional<NodeRegistration> registration_;
  bool registered_ = false;
  int64_t polledRevision_ = 0;
  kj::TaskSet tasks_;
};

// ---- Reads and compare-and-swaps ---------------------------------------------------------------

Co<std::optional<VolumeRecord>> Etcd::readOne(std::string name) {
  auto answer = co_await client_.callAny(kRangePath, rangeBody(volumeKey(name)));
  auto records = volumesOf(*answer.body);
  past_.note(answer.tag, answer.header, records, false);
  co_await past_.kept();
  std::optional<VolumeRecord> record;
  if (!records.empty()) record = kj::mv(records[0]);
  co_return kj::mv(record);
}

Co<std::vector<VolumeRecord>> Etcd::readAll() {
  const std::string prefix = volumesPrefix();
  auto answer = co_await client_.callAny(kRangePath, rangeBody(prefix, endOfPrefix(prefix)));
  auto records = volumesOf(*answer.body);
  past_.note(answer.tag, answer.header, records, true);
  co_await past_.kept();
  co_return kj::mv(records);
}

Co<std::vector<NodeRegistration>> Etcd::readNodes() {
  const std::string prefix = root_ + "nodes/";
  auto answer = co_await client_.callAny(kRangePath, rangeBody(prefix, endOfPrefix(prefix)));
  auto nodes = nodesOf(*answer.body);
  past_.requireTrusted(answer.tag);
  past_.noteNodes(nodes);
  co_await past_.kept();
  co_return kj::mv(nodes);
}

Co<bool> Etcd::swap(VolumeRecord next) {
  if (!replicator::isValidNodeId(kj::StringPtr(next.name.c_str(), next.name.size()))) {
    fail("\"", next.name.c_str(), "\" is not a volume name; use small letters, digits and dashes.");
  }
  const std::string name = next.name;
  auto stored = co_await readOne(name);
  const int64_t revision = stored ? stored->revision : 0;
  if (revision != next.revision) co_return false;
  auto answer = co_await client_.callOnce(
      kTxnPath, swapBody(volumeKey(name), volumeToJson(next), modRevisionOf(revision)));
  if (!swapSucceeded(*answer.body)) co_return false;
  // Durable here before the caller acts on it: who restarts knows the epoch that it took.
  next.revision = revisionOf(generationOf(revision), answer.header.revision);
  std::vector<VolumeRecord> taken(1, next);
  past_.note(answer.tag, answer.header, taken, false);
  co_await past_.kept();
  co_return true;
}

// ---- Behind the watch --------------------------------------------------------------------------

void Etcd::recovered() {
  watch_.retryNow();
  changes_.raise();
}

Co<void> Etcd::pollLoop() {
  co_await kj::evalLater([]() {});  // not from within the constructor
  for (;;) {
    try {
      if (past_.doubt().empty()) {
        co_await pollOnce();
      } else {
        co_await inspect();
      }
    } catch (kj::Exception& e) {
      // Noted by the client, or tried again.
    }
    const bool well = client_.reachable() && past_.doubt().empty();
    co_await client_.options().timer.afterDelay((well ? kEtcdPollMs : kEtcdAwayPollMs) *
                                                kj::MILLISECONDS);
  }
}

Co<void> Etcd::pollOnce() {
  // Another endpoint than the watch's answers: the watch may hang without a sign of it.
  const size_t watched = watch_.endpoint();
  auto probe = client_.askAt(watched, kRangePath, rangeBody(markerKey()))
                   .then([](EtcdAnswer) { return true; }, [](kj::Exception&&) { return false; });
  const bool answers = co_await kj::mv(probe);
  if (!answers) watch_.giveUp();
  auto answer = co_await client_.callAny(kRangePath, rangeBody(markerKey()));
  auto marker = markerIn(answer);
  past_.requireTrusted(answer.tag);
  if (marker && (fresh_ || marker->covers(client_.options().node, past_.memory()))) {
    past_.followMarker(marker->past);
  }
  fresh_ = false;
  const int64_t revision = past_.memory().revision;
  if (revision != polledRevision_) changes_.raise();
  polledRevision_ = revision;
  if (registration_ && !registered_) {
    auto done = registerNode(*registration_);
    co_await kj::mv(done);
  }
  co_await past_.kept(true);
}

std::optional<EtcdPastMarker> Etcd::markerIn(const EtcdAnswer& answer) {
  auto entries = entriesOf(*answer.body);
  std::optional<EtcdPastMarker> marker;
  if (!entries.empty()) marker = markerFromJson(entries[0].value);
  return marker;
}

// ---- In doubt ----------------------------------------------------------------------------------

// Looks whether the known cluster is back, or whether this past was accepted for this node as well.
Co<void> Etcd::inspect() {
  co_await client_.askAny(kRangePath, rangeBody(markerKey()));  // notes whether any answers
  for (size_t endpoint = 0; endpoint < client_.endpointCount(); ++endpoint) {
    auto asked = client_.askAt(endpoint, kRangePath, rangeBody(markerKey()))
                     .then([](EtcdAnswer answer) -> kj::Maybe<EtcdAnswer> { return answer; },
                           [](kj::Exception&&) -> kj::Maybe<EtcdAnswer> { return nullptr; });
    auto answered = co_await kj::mv(asked);
    KJ_IF_MAYBE(answer, answered) {
      past_.sawInDoubt(answer->header);
      const bool back = past_.reconcile(answer->header);
      if (back) {
        changes_.raise();
        co_return;
      }
      auto marker = markerIn(*answer);
      if (marker && marker->covers(client_.options().node, past_.memory())) {
        co_await adoptAsIs(marker->past, answer->header.clusterId);
        co_return;
      }
    }
  }
}

Co<EtcdSurvey> Etcd::surveyBody() {
  const std::string prefix = volumesPrefix();
  auto answer = co_await client_.askAny(kRangePath, rangeBody(prefix, endOfPrefix(prefix)));
  EtcdSurvey survey;
  survey.now = {answer.header.clusterId, answer.header.revision};
  survey.volumes = volumesOf(*answer.body);
  past_.sawInDoubt(answer.header);
  co_return kj::mv(survey);
}

// Takes etcd as it is for the known one.
Co<void> Etcd::adoptAsIs(replicator::Uuid past, uint64_t clusterId) {
  auto survey = co_await surveyBody();
  if (survey.now.clusterId != clusterId) fail("etcd is another one than it was a moment ago.");
  EtcdMemory next;
  next.clusterId = clusterId;
  next.revision = survey.now.revision;
  next.listed = survey.now.revision;
  next.past = past;
  next.volumes = kj::mv(survey.volumes);
  next.nodes = past_.memory().nodes;
  auto adopted = past_.adopt(kj::mv(next));
  co_await kj::mv(adopted);
  registered_ = false;  // a backup may not know this node, or where it is
  polledRevision_ = 0;
  notify(client_.options().notices, NoticeLevel::kWarning,
         kj::str("The coordinator is accepted: etcd cluster ", clusterIdText(clusterId).c_str(),
                 " at revision ", past_.memory().revision, "."));
  changes_.raise();
  watch_.giveUp();
  // When it fails, the poll tries again.
  if (registration_) tasks_.add(registerNode(*registration_).catch_([](kj::Exception&&) {}));
}

Co<void> Etcd::put(std::string key, std::string value, int64_t revision, uint64_t clusterId) {
  auto answer = co_await client_.askAny(kTxnPath, swapBody(key, value, revision));
  if (answer.header.clusterId != clusterId) fail("etcd is another one than it was a moment ago.");
  if (!swapSucceeded(*answer.body)) {
    fail("etcd's ", key.c_str(), " was changed at the same time; accept again.");
  }
}

Co<void> Etcd::acceptBody(EtcdAcceptance acceptance) {
  const uint64_t clusterId = acceptance.survey.now.clusterId;
  for (const VolumeRecord& record : acceptance.volumes) {
    int64_t stored = 0;
    for (const auto& now : acceptance.survey.volumes) {
      if (now.name == record.name) stored = now.revision;
    }
    co_await put(volumeKey(record.name), volumeToJson(record), modRevisionOf(stored), clusterId);
  }
  auto answer = co_await client_.askAny(kRangePath, rangeBody(markerKey()));
  auto entries = entriesOf(*answer.body);
  co_await put(markerKey(), markerToJson(acceptance.marker),
               entries.empty() ? 0 : entries[0].revision, clusterId);
  co_await adoptAsIs(acceptance.marker.past, clusterId);
}

Co<kj::Own<EtcdCoordinator>> openBody(EtcdOptions options) {
  EtcdMemory memory;
  if (options.disk != nullptr) {
    auto content = co_await kernelio::readWholeFile(*options.disk, options.file.c_str(),
                                                    kEtcdMemoryBytesMax);
    KJ_IF_MAYBE(bytes, content) {
      auto problem = kj::runCatchingExceptions([&]() {
        memory = memoryFromText(std::string_view(bytes->asChars().begin(), bytes->size()));
      });
      KJ_IF_MAYBE(e, problem) {
        fail("The file ", options.file.c_str(), " in the data directory, by which this node knows "
             "whether etcd has gone back, cannot be used: ", e->getDescription(), ". Move it away "
             "only if etcd was not restored from a backup since this node ran last.");
      }
    }
  }
  co_return kj::heap<Etcd>(kj::mv(options), kj::mv(memory));
}

}  // namespace

kj::Promise<kj::Own<EtcdCoordinator>> EtcdCoordinator::open(EtcdOptions options) {
  return openBody(kj::mv(options));
}

}  // namespace packmoor::rpc
