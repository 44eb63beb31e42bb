#include "sim_coordinator.h"

#include "kernelio/co.h"

#include <kj/debug.h>

namespace packmoor::replicator {

kj::Promise<void> SimCoordinator::ask(const NodeId& node) {
  const int64_t spread = delayUsMax - delayUsMin + 1;
  auto delay = (delayUsMin + static_cast<int64_t>(random_.below(spread))) * kj::MICROSECONDS;
  return timer_.afterDelay(delay).then([this, node]() {
    if (doubting.count(node) > 0) {
      kj::throwFatalException(KJ_EXCEPTION(FAILED, "the coordinator has gone back"));
    }
    if (cutOff_.count(node) > 0) {
      kj::throwFatalException(KJ_EXCEPTION(DISCONNECTED, "the coordinator cannot be reached"));
    }
  });
}

void SimCoordinator::keepCopy() {
  if (!lost_) copy_ = Copy{volumes, revision_};
}

bool SimCoordinator::goBack() {
  if (lost_ || !copy_ || copy_->revision == revision_) return false;
  lost_ = Copy{volumes, revision_};
  volumes = copy_->volumes;
  revision_ = copy_->revision;
  // It is another cluster now, by its id, for whoever knew the one before.
  for (const auto& [node, registration] : nodes) {
    if (!unnoticed) doubting.insert(node);
  }
  changed();
  return true;
}

void SimCoordinator::accept() {
  doubting.clear();
  if (!lost_) return;
  volumes = lost_->volumes;
  revision_ = lost_->revision;
  lost_.reset();
  changed();
}

void SimCoordinator::changed() {
  auto watchers = std::move(watchers_);
  watchers_.clear();
  for (auto& watcher : watchers) watcher->fulfill();
}

class SimCoordinator::View final : public Coordinator {
 public:
  View(SimCoordinator& store, NodeId node) : store_(store), node_(std::move(node)) {}

  kj::Promise<std::optional<VolumeRecord>> readVolume(std::string name) override {
    return read(kj::mv(name)).promise();
  }
  kj::Promise<std::vector<VolumeRecord>> listVolumes() override { return list().promise(); }
  kj::Promise<bool> compareAndSwap(VolumeRecord next) override {
    return swap(kj::mv(next)).promise();
  }
  kj::Promise<void> registerNode(NodeRegistration registration) override {
    return add(kj::mv(registration)).promise();
  }
  kj::Promise<std::vector<NodeRegistration>> listNodes() override { return nodes().promise(); }
  kj::Promise<void> changed() override {
    auto paf = kj::newPromiseAndFulfiller<void>();
    store_.watchers_.push_back(kj::mv(paf.fulfiller));
    return kj::mv(paf.promise);
  }
  kj::StringPtr kind() override { return "sim"; }
  bool reachable() override { return store_.cutOff_.count(node_) == 0; }
  std::string doubt() override {
    return store_.doubting.count(node_) > 0 ? "the coordinator has gone back" : "";
  }
  std::vector<VolumeRecord> remembered() override {
    std::vector<VolumeRecord> all;
    for (const auto& [name, record] : store_.remembered[node_]) all.push_back(record);
    return all;
  }

 private:
  Co<std::optional<VolumeRecord>> read(std::string name) {
    co_await store_.ask(node_);
    std::optional<VolumeRecord> result;
    auto it = store_.volumes.find(name);
    if (it != store_.volumes.end()) result = it->second;
    co_return result;
  }
  Co<std::vector<VolumeRecord>> list() {
    co_await store_.ask(node_);
    std::vector<VolumeRecord> all;
    for (const auto& [name, record] : store_.volumes) all.push_back(record);
    store_.remembered[node_] = store_.volumes;
    co_return all;
  }
  Co<bool> swap(VolumeRecord next) {
    co_await store_.ask(node_);
    if (store_.random_.chance(store_.unknownPerMillion / 2)) lose();
    auto it = store_.volumes.find(next.name);
    const int64_t revision = it == store_.volumes.end() ? 0 : it->second.revision;
    if (revision != next.revision) co_return false;
    next.revision = ++store_.revision_;
    store_.volumes[next.name] = next;
    ++store_.swaps;
    if (store_.onStored) store_.onStored(next);
    store_.changed();
    if (store_.random_.chance(store_.unknownPerMillion / 2)) lose();
    co_return true;
  }
  [[noreturn]] void lose() {
    kj::throwFatalException(KJ_EXCEPTION(DISCONNECTED, "the coordinator's answer was lost"));
  }
  Co<void> add(NodeRegistration registration) {
    co_await store_.ask(node_);
    const NodeId id = registration.node;
    store_.nodes[id] = kj::mv(registration);
  }
  Co<std::vector<NodeRegistration>> nodes() {
    co_await store_.ask(node_);
    std::vector<NodeRegistration> all;
    for (const auto& [id, node] : store_.nodes) all.push_back(node);
    co_return all;
  }

  SimCoordinator& store_;
  const NodeId node_;
};

kj::Own<Coordinator> SimCoordinator::makeView(const NodeId& node) {
  return kj::heap<View>(*this, node);
}

}  // namespace packmoor::replicator
