// The sentences about rot, disks, members, accepted losses and the coordinator's past.
#include "scenario_play.h"

#include "replicator/outcome.h"
#include "sim_rot.h"

#include <kj/debug.h>

#include <algorithm>

namespace packmoor::replicator {

bool Scenario::damage(const Words& words) {
  const std::string& verb = words[0];
  SimCoordinator& coordinator = cluster_->coordinator();
  if (verb == "mark") {              // mark the journal of c
    const size_t n = node(words.at(3));
    marks_[n] = newestBatch(cluster_->node(n).storage());
  } else if (verb == "rot") {        // rot the journal of c from the mark
    rotFromMark(node(words.at(3)));
  } else if (verb == "replace") {    // replace the disk of c
    const size_t n = node(words.at(3));
    cluster_->node(n).stop();
    cluster_->node(n).replaceDisk();
    checker_->replaced(cluster_->node(n));
  } else if (verb == "disk") {       // disk of c takes 100 ms; disk of c is fast
    const int64_t takesMs = words.at(3) == "takes" ? std::stoll(words.at(4)) : 0;
    cluster_->node(node(words.at(2))).slowDisk(takesMs * kj::MILLISECONDS);
  } else if (verb == "add" || verb == "remove" || verb == "promote" || verb == "set") {
    change(words);
  } else if (verb == "accept" && words.at(1) == "loss") {   // accept the loss of all but c
    const Words kept(words.begin() + 5, words.end());
    require(acceptLoss(nodes(kept, 0)), "accepting the loss");
  } else if (verb == "discard") {    // discard a
    SimNode& diverged = cluster_->node(node(words.at(1)));
    require(cluster_->loop().wait(outcomeOf(diverged.front(diverged.volume().discardDiverged()))),
            "discarding it");
    checker_->discarded(diverged);
  } else if (verb == "copy") {       // copy the coordinator
    coordinator.keepCopy();
  } else if (verb == "restore") {    // restore the coordinator
    if (!coordinator.goBack()) failScenario("nothing has changed since the copy of the coordinator");
  } else if (verb == "accept") {     // accept the coordinator
    coordinator.accept();
  } else {
    return false;
  }
  return true;
}

// All that was written since the mark, the promises, too. The node's process dies first.
void Scenario::rotFromMark(size_t n) {
  SimNode& node = cluster_->node(n);
  auto mark = marks_.find(n);
  if (mark == marks_.end()) failScenario("the journal of " + node.id() + " has not been marked");
  const uint64_t from = mark->second;
  if (node.up()) {
    until([&]() { return markedBatch(node.storage()) > from; },
          "something was written since the mark, and the journal's marker knows of it");
    node.stop();
  }
  if (markedBatch(node.storage()) <= from || rotBatchesAfter(node.storage(), from) == 0) {
    failScenario("nothing was written since the mark");
  }
  marks_.erase(mark);
  cluster_->damageExpected = true;
  checker_->rotted(node);
}

// "add b", "add async b", "remove b", "promote b", "set quorum 2"
void Scenario::change(const Words& words) {
  using Kind = ConfigurationChange::Kind;
  const std::string& verb = words[0];
  ConfigurationChange change;
  if (verb == "set") {
    change.kind = Kind::kSetQuorum;
    change.writeQuorum = static_cast<uint32_t>(std::stoul(words.at(2)));
  } else {
    const bool async = words.at(1) == "async";
    change.node = cluster_->node(node(words.at(async ? 2 : 1))).id();
    change.kind = verb == "remove" ? Kind::kRemove
                  : verb == "promote" ? Kind::kPromote
                  : async ? Kind::kAddAsync : Kind::kAddMember;
  }
  SimNode& primary = cluster_->awaitPrimary();
  require(cluster_->loop().wait(outcomeOf(primary.volume().changeConfiguration(change))),
          "the change");
}

// At the first of those that are kept; nullptr: it was accepted.
kj::Maybe<kj::Exception> Scenario::acceptLoss(const std::vector<size_t>& kept) {
  SimNode& at = cluster_->node(kept.at(0));
  auto accepted = at.front(at.volume().acceptLoss(cluster_->lossOrder(kept)));
  return cluster_->loop().wait(outcomeOf(kj::mv(accepted)));
}

}  // namespace packmoor::replicator
