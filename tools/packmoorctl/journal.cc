#include "journal.h"

#include "output.h"

#include <kernelio/ring_disk.h>
#include <replicator/journal_reader.h>
#include <rpc/sentence.h>

#include <kj/async-io.h>
#include <kj/io.h>

#include <nlohmann/json.hpp>

#include <cerrno>
#include <cstdio>
#include <cstring>

#include <fcntl.h>
#include <sys/file.h>

namespace packmoor::ctl {
namespace {

using nlohmann::ordered_json;
using replicator::JournalBatchInfo;
using replicator::JournalEntryInfo;
using replicator::JournalEntryKind;
using replicator::JournalReadResult;

std::string text(const kj::String& value) { return {value.begin(), value.size()}; }
std::string text(kj::StringPtr value) { return {value.begin(), value.size()}; }

// True when no daemon has the directory open; the lock is kept in `lock`.
bool lockDirectory(const std::string& data, kj::AutoCloseFd& lock) {
  int fd = open((data + "/lock").c_str(), O_RDWR | O_CLOEXEC);
  if (fd < 0) {
    printError("There is no data directory of a node in " + data + ".", std::strerror(errno),
               "Give the directory that node.data names.");
    return false;
  }
  lock = kj::AutoCloseFd(fd);
  if (flock(fd, LOCK_EX | LOCK_NB) == 0) return true;
  printError("The journal in " + data + " is in use.", "A packmoord runs on this data directory.",
             "Stop the node first; it goes on changing the journal.");
  return false;
}

class DumpText final : public replicator::JournalReadVisitor {
 public:
  void batch(const JournalBatchInfo& batch) override {
    std::printf("batch %llu in %s at %llu: %llu bytes, %u entries, %s%s\n",
                (unsigned long long)batch.batchSequence, batch.file.cStr(),
                (unsigned long long)batch.offset, (unsigned long long)batch.bytes,
                batch.entryCount, timeText(batch.wallMs).c_str(),
                batch.snapshot ? ", snapshot" : "");
  }
  void entry(const JournalBatchInfo&, const JournalEntryInfo& entry) override {
    std::printf("  %s of volume %s: index %llu, epoch %llu", entryKindName(entry.kind).cStr(),
                text(entry.volume.text()).c_str(), (unsigned long long)entry.position.index.value,
                (unsigned long long)entry.position.epoch.value);
    if (entry.kind == JournalEntryKind::kRecord) {
      std::printf(", kind %u, %zu bytes, %zu extents, hash %s%s",
                  static_cast<unsigned>(entry.recordKind), entry.payload.size(),
                  entry.extents.size(), text(entry.position.hash.text()).c_str(),
                  entry.hashMatches ? "" : " WHICH IS WRONG");
    } else if (entry.kind == JournalEntryKind::kPromise) {
      std::printf(", promised epoch %llu", (unsigned long long)entry.promise.epoch.value);
    }
    std::printf("\n");
  }
  void damage(kj::StringPtr sentence) override { std::printf("DAMAGE: %s\n", sentence.cStr()); }
};

class DumpJson final : public replicator::JournalReadVisitor {
 public:
  ordered_json batches = ordered_json::array();

  void batch(const JournalBatchInfo& batch) override {
    batches.push_back({{"batch", batch.batchSequence},
                       {"segment", batch.segmentSequence},
                       {"file", text(batch.file)},
                       {"offset", batch.offset},
                       {"bytes", batch.bytes},
                       {"wall_ms", batch.wallMs},
                       {"snapshot", batch.snapshot},
                       {"hash", text(batch.hash.text())},
                       {"previous_hash", text(batch.previousHash.text())},
                       {"entries", ordered_json::array()}});
  }
  void entry(const JournalBatchInfo&, const JournalEntryInfo& entry) override {
    ordered_json extents = ordered_json::array();
    for (const auto& extent : entry.extents) extents.push_back(text(extent.text()));
    batches.back()["entries"].push_back(
        {{"kind", text(entryKindName(entry.kind))},
         {"volume", text(entry.volume.text())},
         {"index", entry.position.index.value},
         {"epoch", entry.position.epoch.value},
         {"hash", text(entry.position.hash.text())},
         {"record_kind", static_cast<unsigned>(entry.recordKind)},
         {"payload_bytes", entry.payload.size()},
         {"extents", extents},
         {"promised_epoch", entry.promise.epoch.value},
         {"hash_matches", entry.hashMatches}});
  }
};

ordered_json summaryJson(const JournalReadResult& result) {
  ordered_json damage = ordered_json::array(), volumes = ordered_json::array();
  for (const kj::String& sentence : result.recovery.damage) damage.push_back(text(sentence));
  for (const auto& [id, volume] : result.recovery.volumes) {
    volumes.push_back({{"id", text(id.text())},
                       {"base", volume.base.index.value},
                       {"last", volume.last.index.value},
                       {"last_epoch", volume.last.epoch.value},
                       {"promised_epoch", volume.promise.epoch.value},
                       {"suspect", volume.suspect}});
  }
  return {{"journal", text(result.recovery.journal.text())},
          {"sound", result.sound()},
          {"closed", result.closed},
          {"segments", result.segments},
          {"segments_unused", result.segmentsUnused},
          {"batches", result.recovery.batches},
          {"entries", result.entries},
          {"records", result.records},
          {"payload_bytes", result.payloadBytes},
          {"torn_bytes", result.recovery.tornBytes},
          {"volumes", volumes},
          {"damage", damage}};
}

void printSummary(const JournalReadResult& result) {
  std::printf("Journal %s: %s segments (%s unused), %s batches, %s records, %s of payload, %s.\n",
              text(result.recovery.journal.text()).c_str(), countText(result.segments).c_str(),
              countText(result.segmentsUnused).c_str(),
              countText(result.recovery.batches).c_str(), countText(result.records).c_str(),
              bytesText(result.payloadBytes).c_str(),
              result.closed ? "closed cleanly" : "not closed cleanly");
  Table table({"VOLUME", ">FROM", ">TO", ">EPOCH", ">PROMISED", "STATE"});
  for (const auto& [id, volume] : result.recovery.volumes) {
    table.row({text(id.text()), countText(volume.base.index.value + 1),
               countText(volume.last.index.value), countText(volume.last.epoch.value),
               countText(volume.promise.epoch.value), volume.suspect ? "suspect" : "sound"});
  }
  if (!table.empty()) std::printf("%s", table.text().c_str());
  if (result.recovery.tornBytes > 0) {
    std::printf("A torn tail of %s was never acknowledged; the next start cuts it.\n",
                bytesText(result.recovery.tornBytes).c_str());
  }
}

int report(const JournalReadResult& result) {
  if (result.sound()) return kDone;
  for (const kj::String& sentence : result.recovery.damage) {
    std::fprintf(stderr, "damage: %s\n", plain(text(sentence)).c_str());
  }
  printError("The journal is damaged.", "What is wrong is listed above.",
             "Keep the directory; start the node so that it is repaired from the others.");
  return kRefused;
}

template <typename Visitor, typename Done>
int readInto(const std::string& data, Visitor& visitor, Done done) {
  kj::AutoCloseFd lock;
  if (!lockDirectory(data, lock)) return kRefused;
  try {  // a command's edge: what goes wrong becomes an error of the command
    auto io = kj::setupAsyncIo();
    auto disk = kernelio::makeThreadDisk(io.unixEventPort, data.c_str());
    auto result = replicator::readJournal(*disk, replicator::JournalOptions().folder, visitor)
                      .wait(io.waitScope);
    done(result);
    return report(result);
  } catch (const kj::Exception& e) {
    printError("The journal in " + data + " cannot be read.", rpc::sentenceOf(e), "");
    return kRefused;
  }
}

}  // namespace

int journalDump(const std::string& data, bool json) {
  if (!json) {
    DumpText dump;
    return readInto(data, dump, printSummary);
  }
  DumpJson dump;
  return readInto(data, dump, [&dump](const JournalReadResult& result) {
    ordered_json document = summaryJson(result);
    document["batch_list"] = std::move(dump.batches);
    std::printf("%s\n", document.dump(2, ' ', false, ordered_json::error_handler_t::replace).c_str());
  });
}

int journalVerify(const std::string& data, bool json) {
  replicator::JournalReadVisitor quiet;
  return readInto(data, quiet, [json](const JournalReadResult& result) {
    if (json) {
      std::printf("%s\n", summaryJson(result).dump(2, ' ', false,
                                                   ordered_json::error_handler_t::replace).c_str());
    } else {
      printSummary(result);
      if (result.sound()) std::printf("The journal is sound.\n");
    }
  });
}

}  // namespace packmoor::ctl
