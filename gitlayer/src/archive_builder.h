// ArchiveBuilder: an archive of a tree, piece by piece.
//
// Why its own walk: archives hold folders before what is in them, only those in which something is selected,
// and all that in the order of the tree; and they are as long as the tree says, so nothing of them is kept.
//
// Memory: the trees that are open (kOpenTreesBytesMax), and one file: up to kWholeBytesMax, or a piece of it
// where the object is stored whole; one that is stored as a delta is resolved in memory, as in every other
// read. Bounds: kEntriesMax entries looked at, kDepthMax folders in each other, kPathBytesMax.
// One thread at a time, usually a worker. What is wrong rejects with a sentence.
#pragma once

#include "gitlayer/repository.h"

#include "archive_attributes.h"
#include "archive_format.h"
#include "archive_request.h"

#include <kernelio/env.h>

#include <memory>
#include <string>

namespace packmoor::gitlayer {

struct ArchiveStart {
  ObjectId tree;
  ObjectId commit;        // zero: a tree was named
  int64_t seconds = 0;    // of every entry
};
// What a tree-ish names: "<ref>[:<path>]", and with `anyObject` also "<40 hex digits>[:<path>]". `nowSeconds`
// is the time of what has none. A sentence, in git's wording, says what is wrong.
std::optional<std::string> findArchiveStart(RepositoryView& view, const std::string& treeish, bool anyObject,
                                            int64_t nowSeconds, ArchiveStart& start);

class ArchiveBuilder {
 public:
  static constexpr size_t kWholeBytesMax = 8u << 20, kOpenTreesBytesMax = 256u << 20;
  static constexpr size_t kDepthMax = 2048, kPathBytesMax = 0xffff;
  static constexpr uint64_t kEntriesMax = 20'000'000;

  // `source` outlives the builder.
  ArchiveBuilder(ObjectSource& source, ArchiveRequest request, const ArchiveStart& start);
  ~ArchiveBuilder() noexcept(false);
  KJ_DISALLOW_COPY(ArchiveBuilder);

  // Writes the next piece, at least `bytes` unless the archive ends before or takes long, and adds to
  // `messages` what is to be said to the person at the terminal. True: there is more.
  bool produce(PackSink& sink, std::string& messages, size_t bytes);

 private:
  class Content;          // a file that is written piece by piece
  struct Level;           // a tree that is open
  struct Found {          // an entry of the tree on top
    std::string path;     // in the repository, without a slash at its end
    ObjectId id;
    uint32_t mode = 0;
    ArchiveAttributes::Found attributes;
  };

  bool step(PackSink& out, std::string& messages);
  void begin(PackSink& out, std::string& messages);
  void enter(const ObjectId& tree, std::string path);
  void leave();
  void visit(PackSink& out, std::string& messages, uint32_t mode, std::string_view name, const ObjectId& id);
  bool selects(std::string_view path, bool isFolder);
  bool mayBeBelow(std::string_view folder) const;
  void write(PackSink& out, std::string& messages, const Found& found);
  void writeFolders(PackSink& out, std::string& messages);
  void writeFolder(PackSink& out, std::string& messages, std::string_view path, const ObjectId& id);
  void writeContent(PackSink& out, ArchiveEntry& entry, const Found& found);
  void warn(std::string& messages, const Found& found);
  void checkPaths() const;

  ObjectSource& source_;
  const ArchiveRequest request_;
  const ArchiveStart start_;
  std::unique_ptr<ArchiveFormat> format_;
  ArchiveAttributes attributes_;
  std::vector<std::unique_ptr<Level>> levels_;
  std::unique_ptr<Content> content_;     // that is being written
  std::vector<bool> matched_;            // by path of the request
  bool begun_ = false, selectsSome_ = false;
  std::string warned_;
  size_t openBytes_ = 0;
  uint64_t entries_ = 0, work_ = 0;
};

}  // namespace packmoor::gitlayer
