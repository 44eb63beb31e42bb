// EtcdPast: judges each answer of etcd by what this node remembers, and keeps that memory durable.
//
// Why: DESIGN rule 18. An answer of another cluster, one of a revision below what was known when
// its question was sent, or a record that is older than it was known to be at an earlier revision,
// tells of a different past: from then on nothing that etcd says is used and nothing is written
// there, until the past is accepted (adopt) or, for another cluster, the known one answers again.
//
// Questions carry a Tag made when they are sent: linearizable answers are at or above the floor
// that was known then, whatever order they come back in; and an answer to a question from before
// an acceptance is refused without raising the doubt again.
//
// Durable: what a read or a compare-and-swap has shown of a record is on disk before the caller
// sees it (kept()). The highest revision alone is written lazily. Owned by the coordinator, on
// its loop; the disk outlives it.
#pragma once

#include <rpc/etcd_coordinator.h>
#include <rpc/etcd_memory.h>

#include <kernelio/co.h>

#include <map>
#include <string>
#include <vector>

namespace packmoor::rpc {

struct EtcdHeader {
  uint64_t clusterId = 0;
  int64_t revision = 0;
};

class EtcdPast final : private kj::TaskSet::ErrorHandler {
 public:
  struct Tag {
    uint64_t generation = 0;
    int64_t floor = 0;
  };
  enum class Verdict : uint8_t { kKnown, kForeign, kRefused };

  // `disk` may be null: then nothing outlives the process.
  EtcdPast(kernelio::Disk* disk, std::string file, EtcdMemory memory, NoticeSink notices);

  const EtcdMemory& memory() const { return memory_; }
  // Empty, or a sentence: what is wrong with etcd's past and what to do.
  const std::string& doubt() const { return doubt_; }
  // Etcd as it last answered in doubt; zero: it has not.
  const EtcdHeader& seen() const { return seen_; }
  void sawInDoubt(const EtcdHeader& header) { seen_ = header; }
  bool lasting() const { return !memory_.doubt.empty(); }   // a step back; ends by adopt only
  Tag tag() const { return {generation_, memory_.revision}; }
  // Throws the doubt, if there is any, or what says that the tag is of an earlier generation.
  void requireTrusted(const Tag& tag) const;

  // kRefused: requireTrusted says why. A foreign answer raises no doubt yet: another endpoint may
  // be right.
  Verdict judge(const Tag& tag, const EtcdHeader& header);
  // No endpoint is of the known cluster, and this one is of another.
  void foreign(const EtcdHeader& header);
  // The known cluster answers again; false: the answer does not end the doubt.
  bool reconcile(const EtcdHeader& header);

  // What an answer has shown. May raise the doubt, and then throws it. `all`: these are all volumes.
  void note(const Tag& tag, const EtcdHeader& header,
            const std::vector<replicator::VolumeRecord>& records, bool all);
  void noteNodes(std::vector<replicator::NodeRegistration> nodes);
  void followMarker(const replicator::Uuid& past);
  // Resolves when all that was noted so far is durable. With `lazily` the highest revision too.
  kj::Promise<void> kept(bool lazily = false);

  // The accepted past takes the place of the remembered one, durably. On failure the doubt stays.
  Co<void> adopt(EtcdMemory next);

 private:
  struct Waiter {
    uint64_t version;
    kj::Own<kj::PromiseFulfiller<void>> fulfiller;
  };
  void stepBack(std::string what, const EtcdHeader& header);
  void raise(std::string sentence, const EtcdHeader& header);
  Co<void> writeLoop();
  void taskFailed(kj::Exception&&) override {}

  kernelio::Disk* disk_;
  const std::string file_;
  EtcdMemory memory_;
  NoticeSink notices_;
  std::string doubt_;
  EtcdHeader seen_;
  uint64_t generation_ = 1;
  bool adopting_ = false;
  uint64_t version_ = 1, keptVersion_ = 1;
  int64_t keptRevision_ = 0;
  bool writing_ = false;
  std::vector<Waiter> waiters_;
  kj::TaskSet tasks_;
};

}  // namespace packmoor::rpc
