// PackMerge: several packs of a repository as one, every object once, entries copied as they are stored.
//
// It is what a clone of these packs would get (pack_builder.h): the bodies one after the other, or entry
// by entry where an object lies in two of them. It owns the packs' handles and no snapshot of the state,
// so that it may take long.
//
// MergeStream makes it piece by piece on the workers, each piece a job of its own and no faster than a
// rate, so that others come first. Loop: the node's; one read at a time.
#pragma once

#include "state_objects.h"

#include <kernelio/co.h>
#include <kernelio/env.h>

#include <kj/async-io.h>

namespace packmoor::gitlayer {

class CloneScan;
class IndexTable;
class PackBuilder;

class PackMerge {
 public:
  PackMerge(const RepositoryId& repository, std::vector<std::shared_ptr<PackFile>> packs);
  ~PackMerge() noexcept;
  KJ_DISALLOW_COPY(PackMerge);

  StateObjects& objects() { return objects_; }
  // Looks at some more names; true: the pieces may be asked for.
  bool plan();
  struct Piece {
    std::vector<kj::byte> bytes;
    bool more = true;
  };
  Piece next();
  // Whether the index names what the packs hold, all of it and nothing else.
  bool isSame(const IndexTable& merged);

 private:
  const std::vector<std::shared_ptr<PackFile>> packs_;
  StateObjects objects_;
  std::unique_ptr<CloneScan> scan_;
  std::unique_ptr<PackBuilder> builder_;
};

class MergeStream final : public kj::AsyncInputStream {
 public:
  // bytesPerSecond 0: no bound.
  MergeStream(kernelio::Env& env, std::shared_ptr<PackMerge> merge, uint64_t bytesPerSecond)
      : env_(env), merge_(std::move(merge)), bytesPerSecond_(bytesPerSecond) {}

  kj::Promise<size_t> tryRead(void* buffer, size_t minBytes, size_t maxBytes) override {
    return read(kj::arrayPtr(static_cast<kj::byte*>(buffer), maxBytes), minBytes);
  }

 private:
  Co<size_t> read(kj::ArrayPtr<kj::byte> into, size_t minBytes);
  Co<void> fill();

  kernelio::Env& env_;
  std::shared_ptr<PackMerge> merge_;
  const uint64_t bytesPerSecond_;
  bool planned_ = false;
  PackMerge::Piece piece_;
  size_t taken_ = 0;       // of the piece
};

}  // namespace packmoor::gitlayer
