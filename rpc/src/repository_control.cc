#include "repository_control.h"

#include <algorithm>

namespace packmoor::rpc {

namespace {

using gitlayer::Setting;

void add(const Setting& setting, bool set, const char* help, control::RepoReply& reply) {
  control::RepositorySetting& to = *reply.add_settings();
  to.set_key(setting.key);
  for (const std::string& value : setting.values) to.add_values(value);
  to.set_set(set);
  to.set_help(help);
}

}  // namespace

void fillRepository(const gitlayer::RepositoryInfo& from, const std::string& volume, int64_t keepMs,
                    control::Repository& to) {
  to.set_name(from.name);
  to.set_id(from.id.text().cStr());
  to.set_description(from.description);
  to.set_head(from.head);
  to.set_created_at_index(from.createdAtIndex);
  to.set_created_at_ms(from.createdAtMs);
  to.set_append_only(from.appendOnly);
  to.set_volume(volume);
  if (!from.forkedFrom.isNull()) {
    to.set_forked_from(from.forkedFromName);
    to.set_forked_from_id(from.forkedFrom.text().cStr());
  }
  if (from.discardedAtIndex == 0) return;
  to.set_deleted_at_ms(from.discardedAtMs);
  to.set_drop_at_ms(from.discardedAtMs + keepMs);
}

void fillStatistics(const gitlayer::RepositoryStatistics& from, control::RepositoryStatistics& to) {
  to.set_refs(from.refs);
  to.set_hot_objects(from.hotObjects);
  to.set_hot_bytes(from.hotBytes);
  to.set_packs(from.packs);
  to.set_pack_bytes(from.packBytes);
  to.set_packed_objects(from.packedObjects);
  to.set_last_repack(from.lastRepack);
  to.set_last_repack_ms(from.lastRepackMs);
}

void fillPruned(const gitlayer::GitNode::Pruned& from, control::RepoPruneReply& to) {
  to.set_index(from.index.value);
  to.set_hot_objects(from.objects);
  to.set_hot_bytes(from.objectBytes);
  to.set_packs(from.packs);
  to.set_pack_bytes(from.packBytes);
  to.set_packed_objects(from.packedObjects);
  to.set_kept_objects(from.kept);
  to.set_attempts(from.attempts);
}

gitlayer::Settings settingsOf(const control::RepoSetRequest& request) {
  gitlayer::Settings changes;
  for (const auto& change : request.changes()) {
    changes.push_back({change.key(), {change.values().begin(), change.values().end()}});
  }
  return changes;
}

void addSettings(const gitlayer::RepositoryInfo& repository, control::RepoReply& reply) {
  gitlayer::Settings left = repository.settings.stored;
  for (const gitlayer::KnownSetting& known : gitlayer::knownSettings()) {
    const std::string key = known.key;
    if (key == gitlayer::kHeadSetting || key == gitlayer::kDescriptionSetting) {
      const std::string& value =
          key == gitlayer::kHeadSetting ? repository.head : repository.description;
      add({key, {value}}, value != known.fallback, known.help, reply);
      continue;
    }
    auto at = std::find_if(left.begin(), left.end(), [&](const Setting& s) { return s.key == key; });
    const bool set = at != left.end();
    add(set ? *at : Setting{key, {known.fallback}}, set, known.help, reply);
    if (set) left.erase(at);
  }
  for (const Setting& setting : left) {
    add(setting, true, "not known to this version; kept for those that know it", reply);
  }
}

}  // namespace packmoor::rpc
