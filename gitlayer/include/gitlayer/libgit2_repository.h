// Libgit2Repository: a view as libgit2 sees a repository.
//
// Why: what git does with history (walks, merge bases, diffs, merges, blame) is in libgit2
// already. It reads through our own object and ref backends: the hot objects, packs and refs of one
// state, never a directory. What is written is collected and becomes a push like any other:
// nothing is changed until GitNode::push() has ordered it, and its compare-and-swaps hold.
//
// HEAD is a symbolic ref that cannot be changed here. There are no reflogs and no configuration.
// Lifetime: the view (and the transaction) must outlive it. One thread at a time, any thread;
// libgit2 blocks, so this is for workers. Errors of libgit2 are in git_error_last(), as ever.
#pragma once

#include "gitlayer/git_node.h"

#include <kj/memory.h>

struct git_repository;

namespace packmoor::gitlayer {

class Libgit2Repository {
 public:
  // Writing objects or refs is refused.
  static kj::Own<Libgit2Repository> open(RepositoryView& view);
  // Objects and ref updates that are written are seen by later reads of this repository.
  static kj::Own<Libgit2Repository> openForPush(RepositoryView& view);
  virtual ~Libgit2Repository() noexcept(false) {}

  virtual git_repository* get() = 0;
  // What was written: objects, and one update per changed ref with its old value in the view,
  // peeled value and whether it moves forward; verified at the view's index. The caller adds the
  // transaction id and the principal. Empty after open().
  virtual PushTransaction collected() = 0;
};

}  // namespace packmoor::gitlayer
