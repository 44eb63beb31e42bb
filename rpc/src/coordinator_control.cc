#include "coordinator_control.h"

#include <rpc/control.pb.h>
#include <rpc/sentence.h>

#include <kj/debug.h>

#include <algorithm>

#include "coordinator_reseed.h"

namespace packmoor::rpc {
namespace {

using control::Response;

void refuse(Response& response, std::string message, std::string cause, std::string advice) {
  response.clear_body();
  control::Error& error = *response.mutable_error();
  error.set_code(control::ERROR_REFUSED);
  error.set_message(kj::mv(message));
  error.set_cause(kj::mv(cause));
  error.set_advice(kj::mv(advice));
}

std::string idText(uint64_t clusterId) {
  return clusterId == 0 ? std::string() : clusterIdText(clusterId);
}

control::CoordinatorVolume& volumeIn(control::CoordinatorStatusReply& reply,
                                     const std::string& name) {
  for (auto& volume : *reply.mutable_volumes()) {
    if (volume.name() == name) return volume;
  }
  auto& volume = *reply.add_volumes();
  volume.set_name(name);
  return volume;
}

void fillStatus(EtcdCoordinator& etcd, control::CoordinatorStatusReply& reply) {
  reply.set_kind("etcd");
  reply.set_endpoint(etcd.endpoint());
  reply.set_reachable(etcd.reachable());
  reply.set_problem(etcd.problem());
  reply.set_cluster_id(idText(etcd.identity().clusterId));
  reply.set_revision(etcd.identity().revision);
  reply.set_doubt(etcd.doubt());
  const EtcdIdentity seen = etcd.doubt().empty() ? etcd.identity() : etcd.seen();
  reply.set_seen_cluster_id(idText(seen.clusterId));
  reply.set_seen_revision(seen.revision);
  for (const auto& record : etcd.remembered()) {
    auto& volume = volumeIn(reply, record.name);
    volume.set_known_epoch(record.current.epoch.value);
    volume.set_known_primary(record.current.primary.node);
  }
}

void fillSurvey(const EtcdSurvey& survey, control::CoordinatorStatusReply& reply) {
  reply.set_seen_cluster_id(idText(survey.now.clusterId));
  reply.set_seen_revision(survey.now.revision);
  for (const auto& record : survey.volumes) {
    auto& volume = volumeIn(reply, record.name);
    volume.set_in_etcd(true);
    volume.set_etcd_epoch(record.current.epoch.value);
    volume.set_etcd_primary(record.current.primary.node);
  }
}

kj::Maybe<NodeKnowledge> knowledgeFrom(const std::string& bytes) {
  control::CoordinatorKnowledge message;
  if (!message.ParseFromString(bytes)) return nullptr;
  NodeKnowledge knowledge;
  knowledge.node = message.node();
  if (!replicator::Uuid::parse(message.journal().c_str(), knowledge.journal)) return nullptr;
  knowledge.doubts = message.doubts();
  parseClusterId(message.seen_cluster_id(), knowledge.seenCluster);
  knowledge.memory = memoryFromText(message.memory());
  for (const auto& promise : message.promises()) {
    replicator::VolumeId volume;
    if (!replicator::Uuid::parse(promise.volume_id().c_str(), volume)) return nullptr;
    knowledge.promises[volume] = replicator::Epoch(promise.epoch());
  }
  return kj::mv(knowledge);
}

kj::Promise<kj::Maybe<NodeKnowledge>> ask(const NodeView& view, std::string node) {
  auto asked = kj::evalNow([&]() {
    std::string name(kCoordinatorQuery.begin(), kCoordinatorQuery.size());
    return view.peers->peer(node).query(replicator::VolumeId(), kj::mv(name), nullptr);
  });
  return view.env->timer.timeoutAfter(kKnowledgeTimeoutMs * kj::MILLISECONDS, kj::mv(asked))
      .then([node](kj::Array<kj::byte> answer) {
        auto bytes = answer.asChars();
        auto knowledge = knowledgeFrom(std::string(bytes.begin(), bytes.size()));
        KJ_IF_MAYBE(found, knowledge) {
          if (found->node != node) knowledge = nullptr;
        }
        return knowledge;
      })
      .catch_([](kj::Exception&&) -> kj::Maybe<NodeKnowledge> { return nullptr; });
}

// This node, every member of a configuration that anybody asked knows, and so on. Who does not
// answer is left out; planReseed says whether that may be.
Co<std::vector<NodeKnowledge>> askAll(const NodeView& view) {
  std::vector<NodeKnowledge> known;
  auto own = knowledgeFrom(coordinatorKnowledge(view));
  KJ_IF_MAYBE(self, own) { known.push_back(kj::mv(*self)); }
  std::set<std::string> done{view.config->node.id};
  for (;;) {
    kj::Vector<kj::Promise<kj::Maybe<NodeKnowledge>>> asking;
    for (const std::string& node : membersKnown(known)) {
      const bool isNew = done.insert(node).second;
      if (isNew) asking.add(ask(view, node));
    }
    if (asking.empty()) break;
    auto all = kj::joinPromises(asking.releaseAsArray());
    auto answers = co_await kj::mv(all);
    for (auto& answer : answers) {
      KJ_IF_MAYBE(knowledge, answer) { known.push_back(kj::mv(*knowledge)); }
    }
  }
  co_return kj::mv(known);
}

std::string joined(const std::vector<std::string>& parts, const char* between) {
  std::string text;
  for (const auto& part : parts) text += (text.empty() ? "" : between) + part;
  return text;
}

void audit(const NodeView& view, const std::string& sentence) {
  notify(view.audit, NoticeLevel::kWarning, sentence.c_str());
}

}  // namespace

std::string coordinatorKnowledge(const NodeView& view) {
  KJ_REQUIRE(view.etcd != nullptr && view.journal != nullptr, "this node is still starting");
  control::CoordinatorKnowledge message;
  message.set_node(view.config->node.id);
  message.set_journal(view.journal->uuid().text().cStr());
  message.set_doubts(!view.etcd->doubt().empty());
  message.set_seen_cluster_id(idText(view.etcd->seen().clusterId));
  message.set_memory(memoryToText(view.etcd->memory()));
  if (view.replicator != nullptr) {
    for (replicator::Volume* volume : view.replicator->volumes()) {
      auto& promise = *message.add_promises();
      promise.set_volume_id(volume->id().text().cStr());
      promise.set_epoch(volume->status().promised.value);
    }
  }
  return message.SerializeAsString();
}

Co<void> coordinatorStatus(const NodeView& view, Response& response) {
  auto& reply = *response.mutable_coordinator();
  if (view.etcd == nullptr) {
    reply.set_kind("local");
    reply.set_reachable(view.coordinator != nullptr);
    co_return;
  }
  fillStatus(*view.etcd, reply);
  if (reply.doubt().empty()) co_return;
  auto asked = view.etcd->survey().then(
      [&reply](EtcdSurvey survey) { fillSurvey(survey, reply); },
      [&reply](kj::Exception&& e) { reply.set_problem(sentenceOf(e)); });
  co_await kj::mv(asked);
}

Co<void> coordinatorAccept(const NodeView& view, const control::CoordinatorAcceptRequest& request,
                           ControlCaller caller, Response& response) {
  if (view.etcd == nullptr || view.peers == nullptr || view.replicator == nullptr) {
    refuse(response, "There is no etcd to accept.",
           "This node stands alone, or is still starting.", "See `packmoorctl status`.");
    co_return;
  }
  if (view.etcd->doubt().empty()) {
    refuse(response, "There is nothing to accept.", "etcd is the one that this node knows.", "");
    co_return;
  }
  EtcdAcceptance acceptance;
  acceptance.survey = co_await view.etcd->survey();
  const std::string now = clusterIdText(acceptance.survey.now.clusterId);
  if (now != request.cluster_id()) {
    refuse(response, "The coordinator was not accepted.",
           "etcd is cluster " + now + ", and " + request.cluster_id() + " was to be accepted.",
           "Look at `packmoorctl coordinator status` again.");
    co_return;
  }
  auto known = co_await askAll(view);
  const std::set<std::string> without(request.without().begin(), request.without().end());
  auto plan = planReseed(known, acceptance.survey, without, [&view]() {
    replicator::Uuid id;
    view.env->random.fill(kj::arrayPtr(id.bytes.data(), id.bytes.size()));
    return id;
  });
  if (!plan.problems.empty()) {
    refuse(response, "The coordinator was not accepted; nothing was changed.",
           joined(plan.problems, " "), "");
    co_return;
  }
  const std::string who = "user id " + std::to_string(caller.uid);
  audit(view, "Accepting etcd cluster " + now + " at revision " +
                  std::to_string(acceptance.survey.now.revision) + " as the coordinator, ordered by " +
                  who + ", with what is known to " + joined(plan.marker.nodes, ", ") +
                  (without.empty() ? "." : ", and without " +
                       joined({without.begin(), without.end()}, ", ") + ".") +
                  " Before: " + view.etcd->doubt());
  acceptance.volumes = plan.volumes;
  acceptance.marker = plan.marker;
  auto accepted = view.etcd->accept(kj::mv(acceptance));
  co_await kj::mv(accepted);
  auto& reply = *response.mutable_coordinator();
  fillStatus(*view.etcd, reply);
  for (const auto& node : plan.marker.nodes) reply.add_nodes(node);
  for (size_t i = 0; i < plan.volumes.size(); ++i) {
    volumeIn(reply, plan.volumes[i].name).set_done(plan.done[i]);
    audit(view, "Volume " + plan.volumes[i].name + " in the coordinator: " + plan.done[i]);
  }
}

}  // namespace packmoor::rpc
