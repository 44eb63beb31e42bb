// Repacker: merges the small packs of a repository into one, and orders a record that puts it in their
// place on every member.
//
// The pack is built once, here: by git, which finds new deltas (git_pack_stream.h), or where there are no
// files or no git, from the packs as they lie (pack_merge.h). It goes to the members block by block as that
// of a large push does: every object of it is hashed again on the way, and its index is made from that. Only when it holds exactly what the packs held, and W members have it sealed, the
// record is proposed. Nothing is dropped but by that record (rule 21 is said at `Repack` in the schema).
//
// What fails or is cut off at any place leaves nothing but extents that expire, and is begun anew. One
// merge at a time per node, which bounds its memory: about 100 bytes an object, and some blocks.
// Loop: the node's; cancelling abandons the extents.
#pragma once

#include "large_push.h"
#include "pack_merge.h"
#include "record_codec.h"

#include <replicator/volume.h>

namespace packmoor::gitlayer {

class Repacker {
 public:
  Repacker(GitNode& node, replicator::ExtentStore& extents, std::string volume,
           RepositoryId repository)
      : node_(node), extents_(extents), volume_(std::move(volume)), repository_(repository) {}
  KJ_DISALLOW_COPY(Repacker);

  // Builds the pack from the newest state and has it sealed. False: there is nothing to merge.
  Co<bool> build();
  // After that, once. False: one of the packs was dropped meanwhile, or the repository.
  Co<bool> propose();

 private:
  bool choose();
  Co<kj::Own<kj::AsyncInputStream>> merge();
  Co<void> receive();

  GitNode& node_;
  replicator::ExtentStore& extents_;
  const std::string volume_;     // it may come and go meanwhile
  const RepositoryId repository_;
  RepositoryInfo info_;
  RepackRecord record_;
  std::vector<PackRow> packs_;        // that it replaces
  std::shared_ptr<PackMerge> merge_;
  kj::Own<LargeReceiver> receiver_;   // holds the extents until the record is decided
  std::shared_ptr<LargePush> pack_;
};

// Merges once. False: there was nothing to merge, or it does not count.
Co<bool> repackRepository(GitNode& node, replicator::ExtentStore& extents, std::string volume,
                          RepositoryId repository);

}  // namespace packmoor::gitlayer
