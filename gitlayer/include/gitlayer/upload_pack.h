// The sending side: what a client is answered that clones or fetches.
//
// Protocols 0, 1 and 2 (gitprotocol-pack(5), gitprotocol-v2(5)). Protocol 2: ls-refs with peel,
// symrefs, unborn and prefixes, object-info, and fetch with ref-in-want, wait-for-done and
// sideband-all. Protocols 0 and 1: multi_ack, multi_ack_detailed, no-done and side-band. All: shallow
// histories (depth, since, not, relative) and filters.
//
// What a client may want: values of refs, and objects that refs reach, unless the policy says
// otherwise. The latter because over HTTP the refs were shown by an earlier request, maybe by
// another node, and may have moved on, and because partial clones ask for what they were promised.
// A want that is not found is looked for once more in a fresh view.
//
// A request ends when its client goes away (whenWriteDisconnected of the stream), whatever is done for
// it at that time. The sections of fetch are in the order of gitprotocol-v2(5), which is the one that
// clients read; git's own server has wanted-refs and shallow-info the other way round.
//
// Bounds: kWantsMax, kHavesMax, kShallowsMax (upload_request.h); memory per request as in
// object_walk.h and pack_sender.h; builds at once by the queue.
#pragma once

#include "gitlayer/git_front.h"
#include "gitlayer/pack_cache.h"
#include "gitlayer/pack_queue.h"
#include "gitlayer/upload_policy.h"

namespace packmoor::gitlayer {

// A session of service upload-pack that begins with `view`. `node` outlives it. Sessions share
// `queue`, and packs where there is a cache, which outlives them. The session outlives the promises that
// its functions return.
kj::Own<GitSession> makeUploadPackSession(GitNode& node, PackQueue& queue, GitRequest request,
                                          kj::Own<RepositoryView> view,
                                          UploadPolicy policy = {}, PackCache* cache = nullptr);
// With a queue of its own.
kj::Own<GitSession> makeUploadPackSession(GitNode& node, GitRequest request,
                                          kj::Own<RepositoryView> view,
                                          UploadPolicy policy = {});

}  // namespace packmoor::gitlayer
