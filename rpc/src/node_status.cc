#include "node_status.h"

#include "health.h"
#include "repair_health.h"
#include "scrub_control.h"

namespace packmoor::rpc {
namespace {

std::string text(const kj::String& value) { return {value.begin(), value.size()}; }
std::string text(kj::StringPtr value) { return {value.begin(), value.size()}; }

void fillJournal(replicator::Journal& journal, control::NodeStatus& status) {
  status.set_journal(text(journal.uuid().text()));
  auto from = journal.statistics();
  control::JournalStatus& to = *status.mutable_journal_status();
  to.set_batches(from.batches);
  to.set_entries(from.entries);
  to.set_bytes(from.bytes);
  to.set_segments(from.segments);
  to.set_segments_free(from.segmentsFree);
  to.set_segment_bytes(from.segmentBytes);
  to.set_queued_entries(from.queuedEntries);
  to.set_latency_p50_us(from.latency.quantileUs(0.50));
  to.set_latency_p99_us(from.latency.quantileUs(0.99));
  to.set_last_latency_us(from.lastLatencyUs);
  for (size_t i = 0; i < kernelio::LatencyHistogram::kBucketCount; ++i) {
    if (from.latency.count(i) == 0) continue;
    to.add_latency_counts(from.latency.count(i));
    to.add_latency_bounds_us(kernelio::LatencyHistogram::boundUs(i));
  }
}

void fillExtents(replicator::ExtentStore& extents, control::NodeStatus& status) {
  auto from = extents.statistics();
  control::ExtentStatus& to = *status.mutable_extents();
  to.set_sealed(from.sealed);
  to.set_sealed_bytes(from.sealedBytes);
  to.set_quarantined(from.quarantined);
  to.set_pinned(from.pinned);
  to.set_expired(from.expired);
  to.set_blocks_verified(from.blocksVerified);
  to.set_blocks_bad(from.blocksBad);
  to.set_blocks_repaired(from.blocksRepaired);
  to.set_blocks_standing(from.blocksStanding);
  to.set_missing(from.missing);
  if (from.missing > 0) {
    addHealth(status, "EXTENTS_MISSING", "error",
              "Files of packs are damaged or gone on this node's disk: " +
                  std::to_string(from.missing) + ". They are fetched from other members as soon as one "
                  "that has them is connected; until then what needs them fails here. Check the disk.");
  }
  blockHealth(to, status);
}

void fillFront(const NodeView& view, control::NodeStatus& status) {
  control::FrontStatus& to = *status.mutable_front();
  if (view.http != nullptr) {
    auto from = view.http->statistics();
    to.set_connections(from.connections);
    to.set_connections_refused(from.connectionsRefused);
    to.set_requests(from.requests);
  }
  if (view.front != nullptr) {
    auto from = view.front->statistics();
    to.set_sessions(from.sessions);
    to.set_pushes(from.pushes);
    to.set_pushes_refused(from.pushesRefused);
    to.set_fetches(from.fetches);
    to.set_archives(from.archives);
    to.set_advertisements(from.advertisements);
    to.set_bytes_in(from.bytesIn);
    to.set_bytes_out(from.bytesOut);
    to.set_cache_hits(from.cacheHits);
    to.set_cache_misses(from.cacheMisses);
    to.set_cached_packs(from.cachedPacks);
    to.set_cached_bytes(from.cachedBytes);
  }
}

void fillRemovals(replicator::Replicator& replicator, control::NodeStatus& status) {
  for (const auto& from : replicator.removals()) {
    control::RemovalStatus& to = *status.add_removals();
    to.set_name(from.name);
    to.set_id(text(from.id.text()));
    to.set_deleted(from.deleted);
    to.set_discarding(from.discarding);
    to.set_left_ms(static_cast<uint64_t>(from.leftMs));
    to.set_problem(from.problem);
    removalHealth(to, status);
  }
}

void fillMaintenance(const gitlayer::GitNode::MaintenanceStatus& from,
                     control::MaintenanceStatus& to) {
  const auto fill = [](const gitlayer::GitNode::MaintenanceLane& lane,
                       control::MaintenanceStatus::Lane& entry) {
    entry.set_done(lane.done);
    entry.set_failures(lane.failures);
    entry.set_last_error(lane.lastError);
    if (!lane.repository.isNull()) entry.set_repository(text(lane.repository.text()));
  };
  fill(from.settling, *to.mutable_settling());
  fill(from.repacking, *to.mutable_repacking());
  fill(from.dropping, *to.mutable_dropping());
}

kj::StringPtr phaseName(NodePhase phase) {
  switch (phase) {
    case NodePhase::kStarting: return "starting"_kj;
    case NodePhase::kServing: return "serving"_kj;
    case NodePhase::kStopping: return "stopping"_kj;
  }
  KJ_UNREACHABLE;
}

}  // namespace

kj::StringPtr phaseText(replicator::VolumePhase phase) {
  return phase == replicator::VolumePhase::kActive ? "active"_kj : "recovering"_kj;
}

void fillTransfer(const replicator::TransferStatus& from, control::TransferStatus& to) {
  to.set_source(from.source);
  to.set_position(from.position.value);
  to.set_phase(from.phase);
  to.set_files(from.files);
  to.set_files_done(from.filesDone);
  to.set_file_bytes(from.fileBytes);
  to.set_file_bytes_done(from.fileBytesDone);
  to.set_extents(from.extents);
  to.set_extents_done(from.extentsDone);
  to.set_extent_bytes(from.extentBytes);
  to.set_extent_bytes_done(from.extentBytesDone);
  to.set_bytes_fetched(from.bytesFetched);
  to.set_bytes_per_second(from.bytesPerSecond);
  to.set_blocks_refetched(from.blocksRefetched);
  to.set_seconds(static_cast<uint64_t>(from.seconds));
  to.set_problem(from.problem);
}

void fillLoss(const replicator::AcceptedLoss& from, control::AcceptedLoss& to) {
  to.set_epoch(from.epoch.value);
  to.set_adopted(from.adopted.index.value);
  for (const auto& member : from.kept) to.add_kept(member.node);
  for (const auto& member : from.ignored) to.add_ignored(member.node);
  to.set_at_ms(from.atMs);
  to.set_by(from.by);
  to.set_what(from.what);
  to.set_acknowledged(from.acknowledged);
}

void fillVolume(const replicator::VolumeStatus& from, control::VolumeStatus& to) {
  for (const auto& loss : from.losses) fillLoss(loss, *to.add_losses());
  to.set_diverged(from.diverged);
  to.set_no_consent(from.noConsent);
  to.set_name(from.name);
  to.set_id(text(from.id.text()));
  to.set_role(text(replicator::roleName(from.role)));
  to.set_primary(from.primary);
  to.set_epoch(from.epoch.value);
  to.set_promised(from.promised.value);
  to.set_write_quorum(from.writeQuorum);
  to.set_base(from.base.value);
  to.set_last(from.last.value);
  to.set_durable(from.durable.value);
  to.set_committed(from.committed.value);
  to.set_applied(from.applied.value);
  to.set_checkpoint(from.checkpoint.value);
  to.set_repairing(from.repairing);
  to.set_problem(from.problem);
  to.set_open_here(true);
  to.set_proposals(from.proposals);
  to.set_rejections(from.rejections);
  to.set_read_barriers(from.readBarriers);
  to.set_confirm_rounds(from.confirmRounds);
  to.set_pair(from.traits.pair);
  to.set_weight(from.traits.weight);
  to.set_transfers_installed(from.transfer.installed);
  if (from.transfer.running) fillTransfer(from.transfer, *to.mutable_transfer());
  if (from.repairing) {
    control::RepairStatus& repair = *to.mutable_repair();
    repair.set_damage(from.repair.damage);
    repair.set_step(from.repair.step);
    repair.set_source(from.repair.source);
    repair.set_reached(from.repair.reached.value);
    repair.set_target(from.repair.target.value);
    repair.set_stuck(from.repair.stuck);
  }
  if (from.brake.on) {
    control::BrakeStatus& brake = *to.mutable_brake();
    brake.set_member(from.brake.member);
    brake.set_lag_bytes(from.brake.lagBytes);
    brake.set_bytes_per_second(from.brake.bytesPerSecond);
  }
  for (const auto& node : from.traits.drained) to.add_drained(node);
  for (const replicator::MemberStatus& member : from.members) {
    control::MemberStatus& entry = *to.add_members();
    entry.set_node(member.node);
    entry.set_connected(member.connected);
    entry.set_counted(member.counted);
    entry.set_self(member.isSelf);
    entry.set_acknowledged(member.acknowledged.value);
    entry.set_lag_records(member.lagRecords);
    entry.set_lag_bytes(member.lagBytes);
    entry.set_lag_ms(static_cast<uint64_t>(member.lagMs));
    entry.set_problem(member.problem);
    entry.set_joining(member.joining);
  }
}

void fillVolumeRecord(const replicator::VolumeRecord& from, control::VolumeStatus& to) {
  for (const auto& loss : from.losses) fillLoss(loss, *to.add_losses());
  to.set_name(from.name);
  to.set_id(text(from.id.text()));
  to.set_role("none");
  to.set_primary(from.current.primary.node);
  to.set_epoch(from.current.epoch.value);
  to.set_write_quorum(from.current.writeQuorum);
  to.set_phase(text(phaseText(from.phase)));
  to.set_pair(from.traits.pair);
  to.set_weight(from.traits.weight);
  for (const auto& node : from.traits.drained) to.add_drained(node);
  for (const auto& member : from.current.members) {
    control::MemberStatus& entry = *to.add_members();
    entry.set_node(member.node);
    entry.set_counted(true);
  }
  for (const auto& member : from.current.async) to.add_members()->set_node(member.node);
}

void fillNodeStatus(const NodeView& view, control::NodeStatus& status) {
  const NodeConfig& config = *view.config;
  status.set_node(config.node.id);
  status.set_cluster(config.node.cluster);
  status.set_version(view.version);
  status.set_started_at_ms(view.startedAtMs);
  status.set_phase(text(phaseName(view.phase)));
  status.set_http(view.httpAddress);
  status.set_rpc(view.rpcAddress);
  status.set_data(config.node.data);
  status.set_git_socket(config.gitSocket());
  if (view.env != nullptr) {
    status.set_now_ms(view.env->clock.nowMs());
    status.set_io_backend(text(view.env->disk.backend()));
    diskHealth(view.env->disk.warnings(), status);
  }
  if (view.residentBytes) status.set_resident_bytes(view.residentBytes());
  for (const auto& [code, note] : view.health) {
    addHealth(status, code, note.severity, note.message);
  }
  status.set_coordinator(config.coordinator.etcd.empty() ? "local" : "etcd");
  if (view.coordinator != nullptr) {
    status.set_coordinator_reachable(view.coordinator->reachable());
    if (!view.coordinator->reachable() && view.health.count("NO_COORDINATOR") == 0) {
      addHealth(status, "NO_COORDINATOR", "warning",
                "The coordinator does not answer. Volumes go on as they are; no takeover is "
                "possible.");
    }
    const std::string doubt = view.coordinator->doubt();
    if (!doubt.empty()) addHealth(status, "COORDINATOR_CHANGED", "error", doubt);
  }
  if (view.journal != nullptr) fillJournal(*view.journal, status);
  if (view.extents != nullptr) fillExtents(*view.extents, status);
  if (view.scrubber != nullptr) {
    control::ScrubStatus& scrub = *status.mutable_scrub();
    fillScrub(view.scrubber->status(), config.replication.scrubIntervalMs, scrub);
    scrubHealth(scrub, view.env->clock.nowMs(), status);
  }
  if (view.git != nullptr) {
    status.set_repositories(view.git->repositoryCount());
    fillMaintenance(view.git->maintenance(), *status.mutable_maintenance());
    maintenanceHealth(status.maintenance(), status);
  }
  fillFront(view, status);
  if (view.replicator != nullptr) {
    for (replicator::Volume* volume : view.replicator->volumes()) {
      control::VolumeStatus& entry = *status.add_volumes();
      fillVolume(volume->status(), entry);
      volumeHealth(entry, status);
    }
    fillRemovals(*view.replicator, status);
    roomHealth(view.replicator->room(), status);
    if (status.volumes_size() == 0 && view.phase == NodePhase::kServing) {
      addHealth(status, "NO_VOLUME", "warning", "This node is a member of no volume.");
    }
  }
}

Co<void> fillSpace(const NodeView& view, control::NodeStatus& status) {
  if (view.env == nullptr) co_return;
  auto space = co_await view.env->disk.space();
  status.set_disk_total_bytes(space.totalBytes);
  status.set_disk_available_bytes(space.availableBytes);
}

}  // namespace packmoor::rpc
