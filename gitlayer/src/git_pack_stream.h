// GitPackStream: several packs as one, made by `git pack-objects`, which finds deltas among their objects.
//
// Why: the objects of small pushes lie whole. Versions of one file make small deltas, and git's packer is
// the best there is; what is a delta already, and what stays whole, it copies as it lies. Who reads the
// stream hashes every object again (indexer.h), so nothing rests on git's word.
//
// git runs at a low priority, with one thread and bounded memory, in a folder of its own that names
// these packs and nothing else, without anybody's configuration. Pages of the packs that it reads are not
// checked against the extents' checksums; damage shows as a wrong hash. One at a time per node: the folder
// has a fixed name, and what a crash left in it goes when the next one begins.
// Loop: the node's. Dropping it ends git.
#pragma once

#include <kernelio/co.h>
#include <kernelio/env.h>
#include <replicator/types.h>

#include <kj/async-io.h>
#include <kj/io.h>

#include <sys/types.h>

#include <string>
#include <vector>

namespace packmoor::gitlayer {

class GitPackStream final : public kj::AsyncInputStream {
 public:
  struct Pack {
    replicator::ExtentId id;
    std::string pack, index;     // paths of the files
  };
  struct Process {
    pid_t id = -1;
    kj::AutoCloseFd out;         // does not block
  };
  struct Request {
    std::string folder;          // removed before and after
    std::vector<Pack> packs;
    // Looks for all deltas anew. Else git keeps those that are there, and looks for none between two
    // objects that lie whole in one pack, as those of settled packs do.
    bool allDeltas = false;
    uint64_t bytesPerSecond = 0;
  };
  // Resolves when git runs.
  static Co<kj::Own<GitPackStream>> start(kernelio::Env& env, Request request);
  // For start().
  GitPackStream(kernelio::Env& env, std::string folder, uint64_t bytesPerSecond, Process process)
      : env_(env),
        folder_(std::move(folder)),
        bytesPerSecond_(bytesPerSecond),
        process_(kj::mv(process)) {}
  ~GitPackStream() noexcept(false);

  // When git has found its deltas and begins to write, or has ended.
  Co<void> whenWriting();
  // Rejects with a sentence when git fails.
  kj::Promise<size_t> tryRead(void* buffer, size_t minBytes, size_t maxBytes) override {
    return read(kj::arrayPtr(static_cast<kj::byte*>(buffer), maxBytes), minBytes);
  }

 private:
  static Process spawn(const Request& request);
  Co<size_t> read(kj::ArrayPtr<kj::byte> into, size_t minBytes);
  Co<void> ended();

  kernelio::Env& env_;
  const std::string folder_;
  const uint64_t bytesPerSecond_;
  Process process_;
};

}  // namespace packmoor::gitlayer
