#include "gitlayer/record_summary.h"

#include "record_codec.h"

#include <kj/exception.h>

namespace packmoor::gitlayer {

namespace {

RecordSummary ofPush(const replicator::Record& record) {
  const RefTransactionView push = decodeRefTransaction(record.payload);
  RecordSummary summary;
  summary.what = "push";
  summary.write = true;
  summary.repository = push.repository;
  for (const RefUpdateView& update : push.updates) {
    summary.refs.push_back(
        {std::string(update.name), update.oldId, update.newId, update.peeled, update.forward});
  }
  summary.principal = std::string(push.principal);
  summary.client = std::string(push.client);
  summary.pushOptions.assign(push.pushOptions.begin(), push.pushOptions.end());
  summary.timeMs = push.timeMs;
  return summary;
}

template <typename Repository>
RecordSummary ofRepository(const char* what, const Repository& record) {
  RecordSummary summary;
  summary.what = what;
  summary.write = true;
  summary.repository = record.repository;
  summary.repositoryName = record.name;
  summary.principal = record.principal;
  summary.timeMs = record.timeMs;
  return summary;
}

RecordSummary read(const replicator::Record& record) {
  RecordSummary summary;
  if (record.kind == replicator::RecordKind::kEpochStart) {
    summary.what = "begin of an epoch";
  } else if (record.kind == kRefTransaction) {
    return ofPush(record);
  } else if (record.kind == kRepositoryCreate) {
    return ofRepository("repository created", decodeRepositoryCreate(record.payload));
  } else if (record.kind == kRepositoryDelete) {
    return ofRepository("repository deleted", decodeRepositoryDelete(record.payload));
  } else if (isNaming(record.kind)) {
    return ofRepository(record.kind == kRepositoryRename    ? "repository renamed"
                        : record.kind == kRepositoryDiscard ? "repository deleted for a while"
                                                            : "repository restored",
                        decodeRepositoryNaming(record.payload));
  } else if (record.kind == kRepositoryFork) {
    return ofRepository("repository forked", decodeRepositoryFork(record.payload));
  } else if (record.kind == kRepositorySet) {
    return ofRepository("repository set", decodeRepositorySet(record.payload));
  } else if (record.kind == kSettle) {
    summary.what = "objects settled";
    summary.repository = decodeSettle(record.payload).repository;
  } else if (record.kind == kRepack) {
    summary.what = "packs merged";
    summary.repository = decodeRepack(record.payload).repository;
  } else if (record.kind == kVerify) {
    summary.what = "verification";
  } else {
    summary.what = "a record of kind " + std::to_string(static_cast<uint16_t>(record.kind)) +
                   ", which this version does not know";
    summary.write = true;  // for all that is known
  }
  return summary;
}

}  // namespace

RecordSummary summarize(const replicator::Record& record) {
  RecordSummary summary;
  auto failure = kj::runCatchingExceptions([&]() { summary = read(record); });
  if (failure != nullptr) {
    summary = RecordSummary();
    summary.what = "a record that cannot be read";
    summary.write = true;
  }
  return summary;
}

}  // namespace packmoor::gitlayer
