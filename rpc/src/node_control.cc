#include "rpc/node_control.h"

#include "control_reply.h"
#include "coordinator_control.h"
#include "loss_control.h"
#include "node_status.h"
#include "repository_control.h"
#include "scrub_control.h"
#include "volume_control.h"

#include <kernelio/co.h>
#include <rpc/control.pb.h>
#include <rpc/sentence.h>

#include <kj/debug.h>

namespace packmoor::rpc {
namespace {

using control::Request;
using control::Response;
using gitlayer::GitNode;
using replicator::VolumeRecord;

constexpr uint32_t kRepoListDefault = 1000, kRepoListMax = 10'000;
constexpr int64_t kVolumeOpenTimeoutMs = 30'000;

std::string text(kj::StringPtr value) { return {value.begin(), value.size()}; }

class Control final : public NodeControl {
 public:
  explicit Control(const NodeView& view) : view_(view), losses_(view), volumes_(view, losses_) {}

  kj::Promise<void> handle(const Request& request, const ControlCaller& caller,
                           Response& response) override {
    switch (request.body_case()) {
      case Request::kStatus:
        return guarded(status(request.status().cluster(), response), false,
                       "The status cannot be given.", response);
      case Request::kNodeList:
        return guarded(nodeList(response), false, "The nodes cannot be listed.", response);
      case Request::kRepoCreate:
        return guarded(repoCreate(request.repo_create(), response), true,
                       "The repository " + request.repo_create().name() + " was not created.",
                       response);
      case Request::kRepoDelete:
        return guarded(repoDelete(request.repo_delete(), response), true,
                       "The repository " + request.repo_delete().name() + " was not deleted.",
                       response);
      case Request::kRepoPrune:
        return guarded(repoPrune(request.repo_prune(), response), true,
                       "The repository " + request.repo_prune().name() + " was not pruned.",
                       response);
      case Request::kRepoSet:
        return guarded(repoSet(request.repo_set(), response), true,
                       "The repository " + request.repo_set().name() + " was not changed.", response);
      case Request::kRepoRename:
        return guarded(repoRename(request.repo_rename(), response), true,
                       "The repository " + request.repo_rename().name() + " was not renamed.", response);
      case Request::kRepoFork:
        return guarded(repoFork(request.repo_fork(), response), true,
                       "The repository " + request.repo_fork().parent() + " was not forked.", response);
      case Request::kRepoUndelete:
        return guarded(repoUndelete(request.repo_undelete(), response), true,
                       "The repository " + request.repo_undelete().name() + " was not undeleted.",
                       response);
      case Request::kRepoList:
        return guarded(repoList(request.repo_list(), response), false,
                       "The repositories cannot be listed.", response);
      case Request::kRepoShow:
        return guarded(repoShow(request.repo_show(), response), false,
                       "The repository " + request.repo_show().name() + " cannot be shown.",
                       response);
      case Request::kVolumeList:
        return guarded(volumeList(response), false, "The volumes cannot be listed.", response);
      case Request::kVolumeShow:
        return guarded(volumeShow(request.volume_show().name(), response), false,
                       "The volume " + request.volume_show().name() + " cannot be shown.", response);
      case Request::kVolumeCreate:
        return guarded(volumeCreate(request.volume_create(), response), true,
                       "The volume " + request.volume_create().name() + " was not created.",
                       response);
      case Request::kVolumeSwitchover:
        return guarded(volumeSwitchover(request.volume_switchover(), response), true,
                       "The volume " + request.volume_switchover().name() + " was not switched to " +
                           request.volume_switchover().to() + ".",
                       response);
      case Request::kVolumeVerify:
        return guarded(volumeVerify(request.volume_verify().name(), response), true,
                       "The volume " + request.volume_verify().name() + " was not verified.",
                       response);
      case Request::kScrubStatus:
        return guarded(scrubStatus(view_, response), false,
                       "The scrubber's status cannot be given.", response);
      case Request::kScrubChange:
        return guarded(scrubChange(view_, request.scrub_change(), response), true,
                       "The scrubber was not changed.", response);
      case Request::kCoordinatorStatus:
        return guarded(coordinatorStatus(view_, response), false,
                       "The coordinator's status cannot be given.", response);
      case Request::kCoordinatorAccept:
        return guarded(coordinatorAccept(view_, request.coordinator_accept(), caller, response), true,
                       "The coordinator was not accepted.", response);
      default:
        if (VolumeControl::answers(request)) return volumes_.handle(request, response);
        if (LossControl::answers(request)) return losses_.handle(request, caller, response);
        fail(response, control::ERROR_BAD_REQUEST, "The daemon does not know this request.",
             "It is of another version than the client.", "");
        return kj::READY_NOW;
    }
  }

  std::vector<HealthLine> health() override {
    control::NodeStatus status;
    fillNodeStatus(view_, status);
    std::vector<HealthLine> lines;
    for (const auto& line : status.health()) {
      lines.push_back({line.code(), line.subject(), line.severity(), line.message()});
    }
    return lines;
  }

  kj::Promise<kj::Array<kj::byte>> answerNode(std::string name,
                                              kj::Array<const kj::byte> question) override {
    if (kControlQuery == name.c_str()) return volumes_.answerForwarded(kj::mv(question));
    if (kLogQuery == name.c_str()) return losses_.answerLog(kj::mv(question));
    std::string bytes;
    if (kCoordinatorQuery == name.c_str()) {
      bytes = coordinatorKnowledge(view_);
    } else {
      KJ_REQUIRE(kStatusQuery == name.c_str(), "another node asked what this one does not know",
                 name.c_str());
      return ownStatus();
    }
    return kj::heapArray(reinterpret_cast<const kj::byte*>(bytes.data()), bytes.size());
  }

 private:
  static kj::Promise<void> guarded(Co<void> work, bool changes, std::string what,
                                   Response& response) {
    return kj::mv(work).promise().catch_(
        [changes, what = kj::mv(what), &response](kj::Exception&& e) mutable {
      failFrom(e, changes, kj::mv(what), response);
    });
  }

  // True when the part is there; otherwise says that the node is still starting.
  bool ready(const void* part, Response& response) {
    if (part != nullptr) return true;
    std::string cause;
    for (const auto& [code, note] : view_.health) cause += (cause.empty() ? "" : " ") + note.message;
    fail(response, control::ERROR_UNREACHABLE, "The node is still starting.", cause,
         "See `packmoorctl status`.");
    return false;
  }

  // --- status -----------------------------------------------------------------------------

  kj::Promise<kj::Array<kj::byte>> ownStatus() {
    auto status = std::make_shared<control::NodeStatus>();
    fillNodeStatus(view_, *status);
    return fillSpace(view_, *status).promise().then([status]() {
      const std::string bytes = status->SerializeAsString();
      return kj::heapArray(reinterpret_cast<const kj::byte*>(bytes.data()), bytes.size());
    });
  }

  Co<void> status(bool cluster, Response& response) {
    control::StatusReply& reply = *response.mutable_status();
    fillNodeStatus(view_, *reply.mutable_self());
    auto filling = fillSpace(view_, *reply.mutable_self());
    co_await kj::mv(filling);
    if (!cluster || view_.coordinator == nullptr || view_.peers == nullptr) co_return;
    kj::Vector<kj::Promise<void>> asked;
    for (const std::string& node : otherNodes()) {
      asked.add(askOther(node, *reply.add_others()));
    }
    co_await kj::joinPromises(asked.releaseAsArray());
  }

  // Members of the volumes that are open here: known without the coordinator.
  std::vector<std::string> otherNodes() {
    std::map<std::string, bool> names;
    if (view_.replicator != nullptr) {
      for (replicator::Volume* volume : view_.replicator->volumes()) {
        for (const auto& member : volume->status().members) names[member.node] = true;
      }
    }
    names.erase(view_.config->node.id);
    std::vector<std::string> result;
    for (const auto& [name, _] : names) result.push_back(name);
    return result;
  }

  kj::Promise<void> askOther(const std::string& node, control::NodeReach& reach) {
    reach.set_node(node);
    auto asked = kj::evalNow([&]() {
      return view_.peers->peer(node).query(replicator::VolumeId(), text(kStatusQuery), nullptr);
    });
    return view_.env->timer.timeoutAfter(kOtherNodeTimeoutMs * kj::MILLISECONDS, kj::mv(asked))
        .then([&reach](kj::Array<kj::byte> answer) {
          if (!reach.mutable_status()->ParseFromArray(answer.begin(),
                                                      static_cast<int>(answer.size()))) {
            reach.clear_status();
            reach.set_problem("It answered what this node does not understand.");
          }
        }, [&reach](kj::Exception&& e) {
          bool late = e.getType() == kj::Exception::Type::OVERLOADED;
          reach.set_problem(late ? "It did not answer within 500 ms." : sentenceOf(e));
        });
  }

  Co<void> nodeList(Response& response) {
    if (!ready(view_.coordinator, response)) co_return;
    auto nodes = co_await view_.coordinator->listNodes();
    control::NodeListReply& reply = *response.mutable_node_list();
    for (const auto& node : nodes) {
      control::NodeEntry& entry = *reply.add_nodes();
      bool self = node.node == view_.config->node.id;
      entry.set_node(node.node);
      entry.set_http(node.httpAddress);
      entry.set_rpc(node.rpcAddress);
      entry.set_version(node.version);
      entry.set_journal(text(node.journal.text()));
      entry.set_self(self);
      entry.set_connected(self || (view_.peers != nullptr &&
                                   view_.peers->peer(node.node).connected()));
    }
  }

  // --- repositories -----------------------------------------------------------------------

  void fillRepository(const gitlayer::RepositoryInfo& from, const std::string& volume,
                      control::Repository& to) {
    rpc::fillRepository(from, volume, view_.git->options().discardedKeepMs, to);
    auto parents = view_.git->volumeOf(from.forkedFrom);
    KJ_IF_MAYBE(held, parents) {
      to.set_forked_from(view_.git->repositoryName(*held, from.forkedFrom));
    }
  }
  std::string volumeName(const gitlayer::RepositoryId& id) {
    auto volume = view_.git->volumeOf(id);
    KJ_IF_MAYBE(v, volume) { return v->name(); }
    return "";
  }

  void answerChanged(const GitNode::Changed& changed, std::string what, Response& response) {
    if (changed.problem != gitlayer::RepositoryProblem::kNone) {
      std::string advice;
      if (changed.problem == gitlayer::RepositoryProblem::kNoVolume) {
        advice = "Make one with `packmoorctl volume create`, or see `packmoorctl volume list`.";
      } else if (changed.problem == gitlayer::RepositoryProblem::kNotFound) {
        advice = "See `packmoorctl repo list`.";
      } else if (changed.problem == gitlayer::RepositoryProblem::kBadSetting) {
        advice = "See `packmoorctl repo set --help` for the settings.";
      }
      return fail(response, control::ERROR_REFUSED, kj::mv(what), sentenceOf(changed.message),
                  advice);
    }
    control::RepoReply& reply = *response.mutable_repo();
    fillRepository(changed.info, volumeName(changed.info.id), *reply.mutable_repository());
    reply.set_index(changed.index.value);
  }

  Co<void> repoCreate(const control::RepoCreateRequest& request, Response& response) {
    if (!ready(view_.git, response)) co_return;
    std::string head = request.head().empty() ? "refs/heads/main" : request.head();
    std::string volume = request.volume();
    if (volume.empty()) {
      auto placing = volumes_.placeRepository();
      volume = co_await kj::mv(placing);
    }
    auto changed = co_await view_.git->createRepository(request.name(), volume, head,
                                                        request.description());
    answerChanged(changed, "The repository " + request.name() + " was not created.", response);
  }

  Co<void> repoDelete(const control::RepoDeleteRequest& request, Response& response) {
    if (!ready(view_.git, response)) co_return;
    auto deleting = view_.git->deleteRepository(request.name(), request.now());
    auto changed = co_await kj::mv(deleting);
    answerChanged(changed, "The repository " + request.name() + " was not deleted.", response);
  }

  Co<void> repoRename(const control::RepoRenameRequest& request, Response& response) {
    if (!ready(view_.git, response)) co_return;
    auto renaming = view_.git->renameRepository(request.name(), request.to());
    auto changed = co_await kj::mv(renaming);
    answerChanged(changed, "The repository " + request.name() + " was not renamed.", response);
  }

  Co<void> repoFork(const control::RepoForkRequest& request, Response& response) {
    if (!ready(view_.git, response)) co_return;
    auto forking = view_.git->forkRepository(request.parent(), request.name(),
                                             request.default_branch_only());
    auto changed = co_await kj::mv(forking);
    answerChanged(changed, "The repository " + request.parent() + " was not forked.", response);
    if (!response.has_repo()) co_return;
    fillStatistics(changed.statistics, *response.mutable_repo()->mutable_statistics());
  }

  Co<void> repoUndelete(const control::RepoUndeleteRequest& request, Response& response) {
    if (!ready(view_.git, response)) co_return;
    auto restoring = view_.git->restoreRepository(request.name(), request.to());
    auto changed = co_await kj::mv(restoring);
    answerChanged(changed, "The repository " + request.name() + " was not undeleted.", response);
  }

  Co<void> repoSet(const control::RepoSetRequest& request, Response& response) {
    if (!ready(view_.git, response)) co_return;
    auto setting = view_.git->setRepository(request.name(), settingsOf(request));
    auto changed = co_await kj::mv(setting);
    answerChanged(changed, "The repository " + request.name() + " was not changed.", response);
    if (response.has_repo()) addSettings(changed.info, *response.mutable_repo());
  }

  Co<void> repoPrune(const control::RepoPruneRequest& request, Response& response) {
    if (!ready(view_.git, response)) co_return;
    constexpr uint64_t kGraceMsMax = 100ull * 365 * 24 * 3600 * 1000;
    GitNode::PruneRequest wanted;
    wanted.name = request.name();
    wanted.graceMs = static_cast<int64_t>(std::min<uint64_t>(request.grace_ms(), kGraceMsMax));
    wanted.dryRun = request.dry_run();
    auto pruning = view_.git->pruneRepository(kj::mv(wanted));
    auto pruned = co_await kj::mv(pruning);
    if (pruned.problem != gitlayer::RepositoryProblem::kNone) {
      const bool busy = pruned.problem == gitlayer::RepositoryProblem::kBusy;
      fail(response, control::ERROR_REFUSED, "The repository " + request.name() + " was not pruned.",
           sentenceOf(pruned.message),
           busy ? "Try again when it is quieter; nothing was dropped." : "See `packmoorctl repo list`.");
      co_return;
    }
    control::RepoPruneReply& reply = *response.mutable_repo_prune();
    fillRepository(pruned.info, volumeName(pruned.info.id), *reply.mutable_repository());
    reply.set_dry_run(request.dry_run());
    fillPruned(pruned, reply);
  }

  Co<void> repoList(const control::RepoListRequest& request, Response& response) {
    if (!ready(view_.git, response)) co_return;
    uint32_t limit = request.limit() == 0 ? kRepoListDefault
                                          : std::min(request.limit(), kRepoListMax);
    auto listing = request.deleted() ? view_.git->listDiscarded(kRepoListMax)
                                     : view_.git->listRepositories(request.after(), limit + 1);
    auto repositories = co_await kj::mv(listing);
    if (request.deleted()) limit = kRepoListMax;
    control::RepoListReply& reply = *response.mutable_repo_list();
    reply.set_more(repositories.size() > limit);
    if (repositories.size() > limit) repositories.resize(limit);
    for (const auto& repository : repositories) {
      fillRepository(repository, volumeName(repository.id), *reply.add_repositories());
    }
  }

  Co<void> repoShow(const control::RepoShowRequest& request, Response& response) {
    if (!ready(view_.git, response)) co_return;
    auto found = co_await view_.git->view(request.name(), true);
    KJ_IF_MAYBE(viewPointer, found) {
      gitlayer::RepositoryView& repository = **viewPointer;
      control::RepoReply& reply = *response.mutable_repo();
      fillRepository(repository.info(), volumeName(repository.info().id),
                     *reply.mutable_repository());
      reply.set_index(repository.index().value);
      fillStatistics(repository.statistics(), *reply.mutable_statistics());
      addSettings(repository.info(), reply);
    } else {
      const auto former = view_.git->formerText(request.name());
      fail(response, control::ERROR_REFUSED, "There is no repository " + request.name() + ".",
           former.has_value() ? sentenceOf(*former) : "", "See `packmoorctl repo list`.");
    }
  }

  // --- volumes ----------------------------------------------------------------------------

  // As this node has it, and else as the coordinator has it.
  void addVolume(const VolumeRecord& record, Response& response) {
    control::VolumeStatus& to = *response.mutable_volume_list()->add_volumes();
    auto open = view_.replicator->findVolume(record.name.c_str());
    KJ_IF_MAYBE(volume, open) {
      fillVolume(volume->status(), to);
      to.set_phase(text(phaseText(record.phase)));
    } else {
      fillVolumeRecord(record, to);
    }
  }

  // Without the coordinator: what is open here.
  void addOpenVolumes(kj::StringPtr only, Response& response) {
    control::VolumeListReply& reply = *response.mutable_volume_list();
    for (replicator::Volume* volume : view_.replicator->volumes()) {
      if (only == nullptr || only == volume->name().c_str()) {
        fillVolume(volume->status(), *reply.add_volumes());
      }
    }
  }

  bool coordinatorAnswers() {
    return view_.coordinator->reachable() && view_.coordinator->doubt().empty();
  }

  Co<void> volumeList(Response& response) {
    if (!ready(view_.replicator, response)) co_return;
    response.mutable_volume_list();
    if (!coordinatorAnswers()) {
      addOpenVolumes(nullptr, response);
      co_return;
    }
    auto records = co_await view_.coordinator->listVolumes();
    for (const VolumeRecord& record : records) {
      if (!record.traits.deleted) addVolume(record, response);
    }
  }

  Co<void> volumeShow(std::string name, Response& response) {
    if (!ready(view_.replicator, response)) co_return;
    response.mutable_volume_list();
    if (coordinatorAnswers()) {
      auto record = co_await view_.coordinator->readVolume(name);
      if (record && !record->traits.deleted) addVolume(*record, response);
    } else {
      addOpenVolumes(name.c_str(), response);
    }
    if (response.volume_list().volumes_size() == 0) {
      fail(response, control::ERROR_REFUSED, "There is no volume " + name + ".", "",
           "See `packmoorctl volume list`.");
    }
  }

  Co<void> volumeCreate(const control::VolumeCreateRequest& request, Response& response) {
    if (!ready(view_.replicator, response)) co_return;
    std::vector<std::string> members(request.members().begin(), request.members().end());
    bool here = std::find(members.begin(), members.end(), view_.config->node.id) != members.end();
    std::string name = request.name();
    replicator::VolumeTraits traits;
    traits.pair = request.pair();
    if (request.weight() > 0) traits.weight = request.weight();
    auto record = co_await view_.replicator->createVolume(name, kj::mv(members),
                                                          request.write_quorum(), traits);
    if (here) co_await view_.replicator->whenOpen(name, kVolumeOpenTimeoutMs);
    response.mutable_volume_list();
    addVolume(record, response);
  }

  Co<void> volumeSwitchover(const control::VolumeSwitchoverRequest& request, Response& response) {
    if (!ready(view_.replicator, response)) co_return;
    auto open = view_.replicator->findVolume(request.name().c_str());
    KJ_IF_MAYBE(volume, open) {
      co_await volume->switchOver(request.to());
    } else {
      auto moving = volumes_.moveLeadOf(request.name(), request.to());
      co_await kj::mv(moving);
    }
    auto shown = volumeShow(request.name(), response);
    co_await kj::mv(shown);
  }

  Co<void> volumeVerify(std::string name, Response& response) {
    if (!ready(view_.git, response)) co_return;
    auto open = view_.replicator->findVolume(name.c_str());
    if (open == nullptr) {
      fail(response, control::ERROR_REFUSED, "The volume " + name + " is not open on this node.", "",
           "See `packmoorctl volume list`, and ask a member of the volume.");
      co_return;
    }
    auto digests = co_await view_.git->verifyVolume(name);
    control::VolumeVerifyReply& reply = *response.mutable_volume_verify();
    bool equal = !digests.empty();
    for (const GitNode::Digest& from : digests) {
      control::VolumeDigest& to = *reply.add_members();
      to.set_node(from.node);
      to.set_index(from.index.value);
      to.set_refs(from.refs);
      to.set_repositories(from.repositories);
      to.set_objects(from.objects);
      to.set_ref_count(from.refCount);
      to.set_repository_count(from.repositoryCount);
      to.set_object_count(from.objectCount);
      to.set_problem(from.problem);
      const GitNode::Digest& first = digests.front();
      equal = equal && from.problem.empty() && from.index == first.index &&
              from.refs == first.refs && from.repositories == first.repositories &&
              from.objects == first.objects;
    }
    reply.set_equal(equal);
  }

  const NodeView& view_;
  LossControl losses_;
  VolumeControl volumes_;
};

}  // namespace

kj::Own<NodeControl> NodeControl::create(const NodeView& view) {
  return kj::heap<Control>(view);
}

}  // namespace packmoor::rpc
