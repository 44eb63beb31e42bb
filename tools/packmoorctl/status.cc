#include "commands.h"

#include <rpc/control.pb.h>

#include <cstdio>

namespace packmoor::ctl {
namespace {

using control::NodeStatus;
using control::VolumeStatus;

void printRemovals(const NodeStatus& node) {
  for (const auto& removal : node.removals()) {
    const std::string when = removal.discarding() ? "being removed"
                                                  : "removed in " + durationText(static_cast<int64_t>(
                                                                        removal.left_ms()));
    std::printf("  leaves      volume %s%s: its data here is %s\n", removal.name().c_str(),
                removal.deleted() ? ", which was deleted" : ", of which this node is no member any more",
                when.c_str());
  }
}

void printNode(const NodeStatus& node) {
  std::printf("Node %s of cluster %s: %s for %s, version %s\n", node.node().c_str(),
              node.cluster().c_str(), node.phase().c_str(),
              durationText(node.now_ms() - node.started_at_ms()).c_str(), node.version().c_str());
  std::printf("  git         http://%s\n", node.http().c_str());
  if (!node.rpc().empty()) std::printf("  peers       %s\n", node.rpc().c_str());
  std::printf("  data        %s on %s, %s free of %s\n", node.data().c_str(),
              node.io_backend().c_str(), bytesText(node.disk_available_bytes()).c_str(),
              bytesText(node.disk_total_bytes()).c_str());
  std::printf("  coordinator %s%s\n", node.coordinator().c_str(),
              node.coordinator_reachable() ? "" : ", not reachable");
  if (node.has_journal_status()) {
    const auto& journal = node.journal_status();
    std::printf("  journal     %s segments of %s (%s free), %s batches",
                countText(journal.segments()).c_str(), bytesText(journal.segment_bytes()).c_str(),
                countText(journal.segments_free()).c_str(), countText(journal.batches()).c_str());
    if (journal.batches() > 0) {
      std::printf(", half durable within %s, 99%% within %s",
                  microsText(journal.latency_p50_us()).c_str(),
                  microsText(journal.latency_p99_us()).c_str());
    }
    std::printf("\n");
  }
  if (node.has_extents()) {
    std::printf("  extents     %s sealed, %s\n", countText(node.extents().sealed()).c_str(),
                bytesText(node.extents().sealed_bytes()).c_str());
  }
  if (node.has_extents() && node.extents().blocks_bad() > 0) {
    std::printf("  bad blocks  %s found, %s repaired, %s stand\n",
                countText(node.extents().blocks_bad()).c_str(),
                countText(node.extents().blocks_repaired()).c_str(),
                countText(node.extents().blocks_standing()).c_str());
  }
  if (node.has_scrub()) {
    const auto& scrub = node.scrub();
    std::printf("  scrub       %s%s, last complete pass %s\n", scrub.phase().c_str(),
                scrub.paused() ? ", paused" : "",
                scrub.last_pass_ms() == 0 ? "never" : timeText(scrub.last_pass_ms()).c_str());
  }
  const auto& front = node.front();
  std::printf("  served      %s pushes (%s refused), %s fetches, %s archives, %s connections now\n",
              countText(front.pushes()).c_str(), countText(front.pushes_refused()).c_str(),
              countText(front.fetches()).c_str(), countText(front.archives()).c_str(),
              countText(front.connections()).c_str());
  if (front.cache_misses() > 0) {
    std::printf("  fetch cache %s packs, %s; %s fetches served from it, %s packs built\n",
                countText(front.cached_packs()).c_str(), bytesText(front.cached_bytes()).c_str(),
                countText(front.cache_hits()).c_str(), countText(front.cache_misses()).c_str());
  }
  std::printf("  memory      %s, %s repositories\n", bytesText(node.resident_bytes()).c_str(),
              countText(node.repositories()).c_str());
  const auto& maintenance = node.maintenance();
  std::printf("  maintained  %s settled, %s repacked%s\n",
              countText(maintenance.settling().done()).c_str(),
              countText(maintenance.repacking().done()).c_str(),
              maintenance.repacking().repository().empty()
                  ? ""
                  : (", now repository " + maintenance.repacking().repository()).c_str());
  printRemovals(node);
}

// As the primary sees it, wherever that is; nullptr: it was not asked or did not answer.
const VolumeStatus* atPrimary(const control::StatusReply& reply, const std::string& name) {
  auto search = [&name](const NodeStatus& node) -> const VolumeStatus* {
    for (const VolumeStatus& volume : node.volumes()) {
      if (volume.name() == name && volume.role() == "primary") return &volume;
    }
    return nullptr;
  };
  const VolumeStatus* found = search(reply.self());
  for (const auto& other : reply.others()) {
    if (found == nullptr && other.has_status()) found = search(other.status());
  }
  return found;
}

// How far those are behind that no write waits for.
void printStandbys(const control::StatusReply& reply, const std::string& name) {
  const VolumeStatus* volume = atPrimary(reply, name);
  if (volume == nullptr) return;
  for (const auto& member : volume->members()) {
    if (member.counted()) continue;
    std::printf("  %s follows%s%s: %s records, %s, %s s behind\n", member.node().c_str(),
                member.joining() ? " and is counted when level" : ", not counted",
                member.connected() ? "" : ", is away", countText(member.lag_records()).c_str(),
                bytesText(member.lag_bytes()).c_str(), secondsText(member.lag_ms()).c_str());
  }
}

void volumeRows(Table& table, const NodeStatus& node) {
  for (const VolumeStatus& volume : node.volumes()) {
    table.row({volume.name(), node.node(), volume.role(), countText(volume.epoch()),
               countText(volume.last()), countText(volume.committed()),
               countText(volume.applied()), countText(volume.checkpoint()), volume.problem()});
  }
}

void printVolumes(const control::StatusReply& reply) {
  Table table({"VOLUME", "NODE", "ROLE", ">EPOCH", ">LAST", ">COMMITTED", ">APPLIED", ">CHECKPOINT",
               "PROBLEM"});
  for (const VolumeStatus& volume : reply.self().volumes()) {
    std::string quorum = std::to_string(volume.write_quorum()) + " of " +
                         std::to_string(volume.members_size());
    std::printf("\nVolume %s: primary %s, epoch %s, a write is kept on %s members\n",
                volume.name().c_str(),
                volume.primary().empty() ? "unknown" : volume.primary().c_str(),
                countText(volume.epoch()).c_str(), quorum.c_str());
    printStandbys(reply, volume.name());
  }
  volumeRows(table, reply.self());
  for (const auto& other : reply.others()) {
    if (other.has_status()) {
      volumeRows(table, other.status());
      continue;
    }
    for (const VolumeStatus& volume : reply.self().volumes()) {
      for (const auto& member : volume.members()) {
        if (member.node() == other.node()) {
          table.row({volume.name(), other.node(), "unreachable", "-", "-", "-", "-", "-",
                     other.problem()});
        }
      }
    }
  }
  if (!table.empty()) std::printf("%s", table.text().c_str());
}

void addHealth(const NodeStatus& node, std::vector<std::string>& lines) {
  for (const auto& health : node.health()) {
    lines.push_back(health.severity() + " on " + node.node() + " (" + health.code() +
                    "): " + health.message());
  }
}

void printHealth(const control::StatusReply& reply) {
  std::vector<std::string> lines;
  addHealth(reply.self(), lines);
  for (const auto& other : reply.others()) {
    if (other.has_status()) addHealth(other.status(), lines);
  }
  if (lines.empty()) std::printf("\nHealth: good\n");
  else std::printf("\nHealth: %zu %s\n", lines.size(), lines.size() == 1 ? "note" : "notes");
  for (const std::string& line : lines) std::printf("  %s\n", plain(line).c_str());
}

}  // namespace

int status(const Session& session, bool localOnly) {
  control::Request request;
  control::Response response;
  request.mutable_status()->set_cluster(!localOnly);
  int code = session.ask(request, true, response);
  if (code != kDone) return code;
  if (session.json) {
    std::printf("%s", jsonText(response.status()).c_str());
    return kDone;
  }
  printNode(response.status().self());
  printVolumes(response.status());
  printHealth(response.status());
  return kDone;
}

int nodeList(const Session& session) {
  control::Request request;
  control::Response response;
  request.mutable_node_list();
  int code = session.ask(request, true, response);
  if (code != kDone) return code;
  if (session.json) {
    std::printf("%s", jsonText(response.node_list()).c_str());
    return kDone;
  }
  Table table({"NODE", "STATE", "GIT", "PEERS", "VERSION", "JOURNAL"});
  for (const auto& node : response.node_list().nodes()) {
    table.row({node.node(), node.self() ? "this node" : node.connected() ? "connected" : "away",
               node.http(), node.rpc(), node.version(), node.journal()});
  }
  std::printf("%s", table.text().c_str());
  return kDone;
}

}  // namespace packmoor::ctl
