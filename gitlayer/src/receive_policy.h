// What a repository's settings and git's own rules say of each command of a push, in git's words.
//
// Why apart from the check of objects: these rules need the names, the view's settings and whether an
// update is a step forward, and no pack. The order of the rules is that of git-receive-pack, so that of
// several reasons the same one is told. Any thread.
#pragma once

#include "receive_commands.h"

namespace packmoor::gitlayer {

// Fills in problems, and the details that go with them. What the check of objects has found stays, but
// for what git would find later than these rules (kUpdateProblem).
void applyPolicy(std::vector<ReceiveCommand>& commands, RepositoryView& view);

// An atomic push with a problem is refused as a whole, also where git would carry out the rest of it (what
// is hidden or not connected does not keep git from it).
void refuseAtomic(std::vector<ReceiveCommand>& commands);

// No push may make, move or delete a ref of this name: it is none by git check-ref-format(1), or lies in no
// folder below refs/.
bool isFunnyRef(const ReceiveCommand& command);

}  // namespace packmoor::gitlayer
