// Payloads of the records that make, set, name and delete repositories.
#include "record_codec.h"
#include "record_messages.h"

namespace packmoor::gitlayer {

static_assert(static_cast<int>(kRepositoryCreate) == pb::REPOSITORY_CREATE);
static_assert(static_cast<int>(kRepositoryDelete) == pb::REPOSITORY_DELETE);
static_assert(static_cast<int>(kRepositorySet) == pb::REPOSITORY_SET);
static_assert(static_cast<int>(kRepositoryRename) == pb::REPOSITORY_RENAME);
static_assert(static_cast<int>(kRepositoryDiscard) == pb::REPOSITORY_DISCARD);
static_assert(static_cast<int>(kRepositoryRestore) == pb::REPOSITORY_RESTORE);
static_assert(static_cast<int>(kRepositoryFork) == pb::REPOSITORY_FORK);

RepositoryCreateRecord decodeRepositoryCreate(kj::ArrayPtr<const kj::byte> payload) {
  auto message = parse<pb::RepositoryCreate>(payload, "create repository");
  RepositoryCreateRecord record;
  record.txn = uuidField(message.txn());
  record.repository = uuidField(message.repository());
  record.name = message.name();
  record.description = message.description();
  record.head = message.head();
  record.timeMs = message.time_ms();
  record.principal = message.principal();
  KJ_REQUIRE(!record.repository.isNull(), "malformed record: no repository");
  return record;
}

kj::Array<const kj::byte> encodeRepositoryCreate(const RepositoryCreateRecord& record) {
  pb::RepositoryCreate message;
  message.set_txn(pbBytes(record.txn));
  message.set_repository(pbBytes(record.repository));
  message.set_name(record.name);
  message.set_description(record.description);
  message.set_head(record.head);
  message.set_time_ms(record.timeMs);
  message.set_principal(record.principal);
  return serialize(message);
}

RepositoryDeleteRecord decodeRepositoryDelete(kj::ArrayPtr<const kj::byte> payload) {
  auto message = parse<pb::RepositoryDelete>(payload, "delete repository");
  RepositoryDeleteRecord record;
  record.txn = uuidField(message.txn());
  record.repository = uuidField(message.repository());
  record.name = message.name();
  record.timeMs = message.time_ms();
  record.principal = message.principal();
  record.discardedAtIndex = message.discarded_at_index();
  KJ_REQUIRE(!record.repository.isNull(), "malformed record: no repository");
  return record;
}

kj::Array<const kj::byte> encodeRepositoryDelete(const RepositoryDeleteRecord& record) {
  pb::RepositoryDelete message;
  message.set_txn(pbBytes(record.txn));
  message.set_repository(pbBytes(record.repository));
  message.set_name(record.name);
  message.set_time_ms(record.timeMs);
  message.set_principal(record.principal);
  message.set_discarded_at_index(record.discardedAtIndex);
  return serialize(message);
}

RepositorySetRecord decodeRepositorySet(kj::ArrayPtr<const kj::byte> payload) {
  auto message = parse<pb::RepositorySet>(payload, "set of a repository");
  RepositorySetRecord record;
  record.txn = uuidField(message.txn());
  record.repository = uuidField(message.repository());
  record.name = message.name();
  for (const auto& change : message.changes()) {
    KJ_REQUIRE(!change.key().empty() && change.key().size() <= kSettingKeyBytesMax &&
                   static_cast<size_t>(change.values_size()) <= kSettingValuesMax,
               "malformed record: setting");
    record.changes.push_back({change.key(), {change.values().begin(), change.values().end()}});
    for (const auto& value : change.values()) {
      KJ_REQUIRE(value.size() <= kSettingValueBytesMax, "malformed record: value of a setting");
    }
  }
  record.timeMs = message.time_ms();
  record.principal = message.principal();
  KJ_REQUIRE(!record.repository.isNull() && !record.changes.empty() &&
                 record.changes.size() <= kSettingsMax,
             "malformed record: set of a repository");
  return record;
}

kj::Array<const kj::byte> encodeRepositorySet(const RepositorySetRecord& record) {
  pb::RepositorySet message;
  message.set_txn(pbBytes(record.txn));
  message.set_repository(pbBytes(record.repository));
  message.set_name(record.name);
  for (const Setting& setting : record.changes) {
    pb::SettingChange& change = *message.add_changes();
    change.set_key(setting.key);
    for (const std::string& value : setting.values) change.add_values(value);
  }
  message.set_time_ms(record.timeMs);
  message.set_principal(record.principal);
  return serialize(message);
}

RepositoryNamingRecord decodeRepositoryNaming(kj::ArrayPtr<const kj::byte> payload) {
  auto message = parse<pb::RepositoryNaming>(payload, "naming of a repository");
  RepositoryNamingRecord record;
  record.txn = uuidField(message.txn());
  record.repository = uuidField(message.repository());
  record.name = message.name();
  record.to = message.to();
  record.timeMs = message.time_ms();
  record.principal = message.principal();
  KJ_REQUIRE(!record.repository.isNull(), "malformed record: no repository");
  return record;
}

kj::Array<const kj::byte> encodeRepositoryNaming(const RepositoryNamingRecord& record) {
  pb::RepositoryNaming message;
  message.set_txn(pbBytes(record.txn));
  message.set_repository(pbBytes(record.repository));
  message.set_name(record.name);
  message.set_to(record.to);
  message.set_time_ms(record.timeMs);
  message.set_principal(record.principal);
  return serialize(message);
}

RepositoryForkRecord decodeRepositoryFork(kj::ArrayPtr<const kj::byte> payload) {
  auto message = parse<pb::RepositoryFork>(payload, "fork of a repository");
  RepositoryForkRecord record;
  record.txn = uuidField(message.txn());
  record.repository = uuidField(message.repository());
  record.name = message.name();
  record.parent = uuidField(message.parent());
  record.parentName = message.parent_name();
  record.defaultBranchOnly = message.default_branch_only();
  record.timeMs = message.time_ms();
  record.principal = message.principal();
  KJ_REQUIRE(!record.repository.isNull() && !record.parent.isNull(),
             "malformed record: no repository");
  return record;
}

kj::Array<const kj::byte> encodeRepositoryFork(const RepositoryForkRecord& record) {
  pb::RepositoryFork message;
  message.set_txn(pbBytes(record.txn));
  message.set_repository(pbBytes(record.repository));
  message.set_name(record.name);
  message.set_parent(pbBytes(record.parent));
  message.set_parent_name(record.parentName);
  message.set_default_branch_only(record.defaultBranchOnly);
  message.set_time_ms(record.timeMs);
  message.set_principal(record.principal);
  return serialize(message);
}

}  // namespace packmoor::gitlayer
