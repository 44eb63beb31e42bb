// RepositoryView: one repository at one index, as fronts read it.
//
// Why: a request must see one consistent state, however many records are applied meanwhile. A
// view holds a state-store snapshot; it is cheap to take and should not be kept for longer than
// a request. Threads: as ObjectSource; iteration from one thread at a time.
#pragma once

#include "gitlayer/object_source.h"
#include "gitlayer/repository_settings.h"

#include <replicator/types.h>

#include <kj/function.h>

#include <memory>
#include <optional>
#include <string>
#include <vector>

namespace packmoor::gitlayer {

using RepositoryId = replicator::Uuid;

constexpr size_t kRefNameBytesMax = 1024;
constexpr size_t kRepositoryNameBytesMax = 255;

// Parts of [A-Za-z0-9._-] separated by '/'; no part starts with '.' or ends in ".lock" or ".git"
// ("a.git" in a request names "a"); returns a sentence that says what is wrong, or nullopt.
std::optional<std::string> repositoryNameProblem(std::string_view name);
// As git check-ref-format, and below refs/ (or HEAD where `allowHead`).
bool isValidRefName(std::string_view name, bool allowHead = false);

struct RepositoryInfo {
  RepositoryId id;
  std::string name;
  std::string description;
  std::string head = "refs/heads/main";  // target of the HEAD symref; may be unborn
  uint64_t createdAtIndex = 0;
  int64_t createdAtMs = 0;
  // True while no ref was ever deleted or moved other than forward: then every object of the
  // repository is reachable from its refs, and a clone may be given the packs as they are.
  bool appendOnly = true;
  uint64_t rewoundAt = 0;   // index of the last record that did otherwise; 0: none did
  RepositorySettings settings;
  // Deleted, and kept for a while: it has no name, `name` is what it had. 0: it is not.
  uint64_t discardedAtIndex = 0;
  int64_t discardedAtMs = 0;
  // Of a fork: what it was made of, and how that was called then. Null: it is none. The parent may be gone.
  RepositoryId forkedFrom;
  std::string forkedFromName;
};

struct RepositoryStatistics {
  uint64_t refs = 0, hotObjects = 0, hotBytes = 0, packs = 0, packBytes = 0, packedObjects = 0;
  uint64_t lastRepack = 0;      // index of the record that merged packs last; 0: none did
  int64_t lastRepackMs = 0;     // by the clock of the node that ordered it
};

struct Ref {
  std::string name;
  ObjectId id;
  ObjectId peeled;   // what an annotated tag finally points at; zero when `id` is not a tag
};

struct RefPage;   // ref_page.h

class RepositoryView {
 public:
  virtual ~RepositoryView() noexcept(false) {}
  virtual replicator::RecordIndex index() = 0;   // the state is that of this index
  virtual const RepositoryInfo& info() = 0;
  virtual std::optional<Ref> ref(std::string_view name) = 0;
  // Calls back in byte order of the names with each ref that has the prefix and sorts behind
  // `after` (empty: from the first), until it returns false. HEAD is not among them
  // (info().head). A long list is read in slices: stop, and go on after the last name.
  virtual void forEachRef(std::string_view prefix, std::string_view after,
                          kj::FunctionParam<bool(const Ref&)> each) = 0;
  void forEachRef(std::string_view prefix, kj::FunctionParam<bool(const Ref&)> each) {
    forEachRef(prefix, {}, kj::mv(each));
  }
  // The page of refs behind `after`, hidden ones too, where they are kept for the next list; nullptr: they
  // are not, and forEachRef() has them. For lists that are long.
  virtual std::shared_ptr<const RefPage> refPage(std::string_view after) { return nullptr; }
  virtual ObjectSource& objects() = 0;
  virtual RepositoryStatistics statistics() = 0;
  // Whether its refs are known to reach every object.
  virtual bool refsReachAll() { return info().appendOnly; }
  // Its refs were seen to reach every object of this state.
  virtual void noteRefsReachAll() {}
  // With the refs that this one hides from its users.
  virtual RepositoryView& whole() { return *this; }
};

}  // namespace packmoor::gitlayer
