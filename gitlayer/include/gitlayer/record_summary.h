// RecordSummary: what a record of a volume's log did, for people: which repository and refs, and who.
//
// Why: when writes are lost, an operator must be told whose and which. A record says so by itself; only
// the name of its repository may have to be looked up in the state (GitNode::repositoryName).
#pragma once

#include "gitlayer/git_node.h"

namespace packmoor::gitlayer {

struct RecordSummary {
  std::string what;              // "push", "repository created", ...; for people
  bool write = false;            // something that a client or an operator was answered
  RepositoryId repository;       // null: of none
  std::string repositoryName;    // where the record has it
  std::vector<RefUpdate> refs;
  std::string principal;         // who, as the front knew it; empty: anonymous
  std::string client;            // the address that a push came from; may be empty
  std::vector<std::string> pushOptions;
  int64_t timeMs = 0;            // the front's clock; 0: not told
};

// Of a kind or a content that is not known here: only says so.
RecordSummary summarize(const replicator::Record& record);

}  // namespace packmoor::gitlayer
