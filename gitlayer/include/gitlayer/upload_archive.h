// Archives of a repository's trees for `git archive --remote` (git-upload-archive(1)).
//
// The client sends its words as packets "argument <word>" up to a flush; it is answered "ACK", a flush, and the
// archive on band 1, what is for the person at the terminal on band 2, and a failure on band 3. There are no
// versions of this protocol. The bytes are those of git's own archives (archive_format.h).
//
// What may be archived: what a visible ref names, and paths in it; any object by its name where the repository
// is set so (uploadarchive.allowUnreachable). Builds take turns with packs; a slow client holds none, and one
// piece of its archive. Limits: archive_request.h, archive_builder.h.
#pragma once

#include "gitlayer/git_front.h"
#include "gitlayer/pack_queue.h"

namespace packmoor::gitlayer {

// As makeUploadPackSession().
kj::Own<GitSession> makeUploadArchiveSession(GitNode& node, PackQueue& queue, GitRequest request,
                                             kj::Own<RepositoryView> view);

}  // namespace packmoor::gitlayer
