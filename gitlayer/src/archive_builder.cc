#include "archive_builder.h"

#include "object_names.h"
#include "object_scan.h"

#include <kj/debug.h>
#include <zlib.h>

#include <algorithm>

namespace packmoor::gitlayer {
namespace {

constexpr uint32_t kTypeMask = 0170000, kFolderMode = 0040000, kFileMode = 0100000, kLinkMode = 0120000;
constexpr const char* kAttributesFile = ".gitattributes";
constexpr size_t kContentPieceBytes = 256u << 10;
constexpr uint64_t kConvertBytesMax = 512u << 20;  // git's core.bigFileThreshold
constexpr uint64_t kWorkPerPiece = 5'000'000;      // some nanoseconds each

// As TreeScan::Entry has it.
bool isSubmodule(uint32_t mode) {
  TreeScan::Entry entry;
  entry.mode = mode;
  return entry.isSubmodule();
}

Object readObject(ObjectSource& source, const ObjectId& id, ObjectType type) {
  auto object = source.read(id);
  Object& found = KJ_REQUIRE_NONNULL(object, "object is missing from the repository", id);
  KJ_REQUIRE(found.type == type, "object is of another type than its tree says", id);
  return kj::mv(found);
}

}  // namespace

std::optional<std::string> findArchiveStart(RepositoryView& view, const std::string& treeish, bool anyObject,
                                            int64_t nowSeconds, ArchiveStart& start) {
  const std::string base = treeish.substr(0, treeish.find(':'));
  ObjectId id;
  if (!anyObject || !ObjectId::parseHex(base, id)) {
    auto refs = refsOfShortName(view, base);
    if (refs.empty()) return "no such ref: " + base;
    id = refs[0].id;
  }
  auto named = objectNamed(view, id.hex().cStr() + treeish.substr(base.size()));
  if (!named) return "not a valid object name: " + treeish;
  ObjectType type;
  id = withoutTags(view.objects(), *named, type);
  start.seconds = nowSeconds;
  if (type == ObjectType::kCommit) {
    Object commit = readObject(view.objects(), id, type);
    CommitScan scan;
    KJ_REQUIRE(scan.begin(commit.data), "commit is damaged", id);
    start.commit = id;
    start.tree = scan.tree();
    ObjectId parent;
    while (scan.nextParent(parent)) continue;
    start.seconds = scan.committerDate();
    return std::nullopt;
  }
  if (type != ObjectType::kTree) return std::string("not a tree object: ") + id.hex().cStr();
  start.tree = id;
  return std::nullopt;
}

// ---- a large file

// Inflated piece by piece where it is stored whole.
class ArchiveBuilder::Content {
 public:
  Content(ObjectSource& source, const ObjectId& id, uint64_t bytes) : id_(id), left_(bytes) {
    KJ_IF_MAYBE(stored, source.stored(id)) {
      if (stored->form == StoredEntry::Form::kWhole) {
        stored_ = kj::mv(*stored);
        stream_.next_in = const_cast<kj::byte*>(stored_.deflated.begin());
        rest_ = stored_.deflated;
        KJ_REQUIRE(inflateInit(&stream_) == Z_OK, "zlib has no memory");
        inflates_ = true;
        buffer_ = kj::heapArray<kj::byte>(kContentPieceBytes);
        return;
      }
    }
    buffer_ = readObject(source, id, ObjectType::kBlob).data;
    KJ_REQUIRE(buffer_.size() == bytes, "object has another size than was said", id);
  }
  ~Content() noexcept(false) {
    if (inflates_) inflateEnd(&stream_);
  }
  KJ_DISALLOW_COPY(Content);

  bool ended() const { return left_ == 0; }
  // Valid until the next call.
  kj::ArrayPtr<const kj::byte> next() {
    const size_t bytes = static_cast<size_t>(std::min<uint64_t>(left_, kContentPieceBytes));
    if (!inflates_) {
      auto piece = buffer_.slice(buffer_.size() - left_, buffer_.size() - left_ + bytes);
      left_ -= bytes;
      return piece;
    }
    stream_.next_out = buffer_.begin();
    stream_.avail_out = static_cast<uInt>(bytes);
    while (stream_.avail_out > 0) {
      const size_t given = std::min<size_t>(rest_.size(), 1u << 30);
      stream_.next_in = const_cast<kj::byte*>(rest_.begin());
      stream_.avail_in = static_cast<uInt>(given);
      const int result = inflate(&stream_, Z_NO_FLUSH);
      rest_ = rest_.slice(given - stream_.avail_in, rest_.size());
      KJ_REQUIRE((result == Z_OK && given > 0) || (result == Z_STREAM_END && stream_.avail_out == 0),
                 "object is damaged", id_);
    }
    left_ -= bytes;
    return buffer_.slice(0, bytes);
  }

 private:
  const ObjectId id_;
  uint64_t left_;
  bool inflates_ = false;
  StoredEntry stored_;
  kj::ArrayPtr<const kj::byte> rest_;   // of what is stored
  z_stream stream_{};
  kj::Array<kj::byte> buffer_;
};

// ---- the walk

struct ArchiveBuilder::Level {
  Level(std::string path, const ObjectId& id, kj::Array<kj::byte> data)
      : path(std::move(path)), id(id), data(kj::mv(data)), scan(this->data) {}
  const std::string path;      // empty: the topmost
  const ObjectId id;
  const kj::Array<kj::byte> data;
  TreeScan scan;
  bool written = false;        // the folder is in the archive
};

ArchiveBuilder::ArchiveBuilder(ObjectSource& source, ArchiveRequest request, const ArchiveStart& start)
    : source_(source),
      request_(std::move(request)),
      start_(start),
      format_(ArchiveFormat::make(request_.format, request_.level, start.commit, start.seconds)),
      matched_(request_.paths.size(), false) {
  for (const Pathspec& path : request_.paths) selectsSome_ = selectsSome_ || !path.excludes();
}

ArchiveBuilder::~ArchiveBuilder() noexcept(false) {}

bool ArchiveBuilder::produce(PackSink& sink, std::string& messages, size_t bytes) {
  struct Counted final : PackSink {
    explicit Counted(PackSink& inner) : inner(inner) {}
    void write(kj::ArrayPtr<const kj::byte> piece) override {
      written += piece.size();
      inner.write(piece);
    }
    PackSink& inner;
    size_t written = 0;
  } out(sink);
  work_ = 0;
  while (out.written + messages.size() < bytes && work_ < kWorkPerPiece) {
    if (!step(out, messages)) return false;
  }
  return true;
}

bool ArchiveBuilder::step(PackSink& out, std::string& messages) {
  work_ += 1000;
  if (!begun_) {
    begin(out, messages);
  } else if (content_ != nullptr) {
    if (!content_->ended()) {
      format_->data(out, content_->next());
    } else {
      content_ = nullptr;
      format_->endFile(out);
    }
  } else if (levels_.empty()) {
    checkPaths();
    format_->end(out);
    return false;
  } else if (TreeScan& scan = levels_.back()->scan; scan.next()) {
    KJ_REQUIRE(++entries_ <= kEntriesMax, "the tree has more files than may be in an archive made here");
    const TreeScan::Entry entry = scan.entry();
    visit(out, messages, entry.mode, entry.name, entry.oid());
  } else {
    KJ_REQUIRE(!scan.bad(), "tree is damaged", levels_.back()->id);
    leave();
  }
  return true;
}

void ArchiveBuilder::begin(PackSink& out, std::string& messages) {
  begun_ = true;
  format_->begin(out);
  std::string_view prefix = request_.prefix;
  if (!prefix.empty() && prefix.back() == '/') {
    while (prefix.size() > 1 && prefix[prefix.size() - 2] == '/') prefix.remove_suffix(1);
    if (request_.verbose) messages.append(prefix).append(1, '\n');
    ArchiveEntry entry;
    entry.type = ArchiveEntry::Type::kFolder;
    entry.path = prefix;
    entry.id = start_.tree;
    format_->file(out, entry, nullptr);
  }
  enter(start_.tree, "");
}

void ArchiveBuilder::enter(const ObjectId& tree, std::string path) {
  KJ_REQUIRE(levels_.size() < kDepthMax, "folders are nested too deeply for an archive");
  Object object = readObject(source_, tree, ObjectType::kTree);
  openBytes_ += object.data.size();
  KJ_REQUIRE(openBytes_ <= kOpenTreesBytesMax, "the tree is too large for an archive made here", tree);
  auto level = std::make_unique<Level>(std::move(path), tree, kj::mv(object.data));
  level->written = levels_.empty();
  kj::Array<kj::byte> file;
  for (TreeScan scan(level->data); scan.next();) {
    const TreeScan::Entry& entry = scan.entry();
    if (entry.name != kAttributesFile || (entry.mode & kTypeMask) != kFileMode) continue;
    auto header = source_.header(entry.oid());
    const uint64_t bytes = KJ_REQUIRE_NONNULL(header, "object is missing from the repository", tree).bytes;
    KJ_REQUIRE(bytes <= ArchiveAttributes::kFileBytesMax, "a .gitattributes is too large for an archive",
               level->path, bytes);
    file = readObject(source_, entry.oid(), ObjectType::kBlob).data;
    break;
  }
  auto problem = attributes_.enter(
      level->path, std::string_view(reinterpret_cast<const char*>(file.begin()), file.size()));
  KJ_REQUIRE(!problem, "a .gitattributes cannot be read", level->path, *problem);
  levels_.push_back(std::move(level));
}

void ArchiveBuilder::leave() {
  openBytes_ -= levels_.back()->data.size();
  levels_.pop_back();
  attributes_.leave();
}

void ArchiveBuilder::visit(PackSink& out, std::string& messages, uint32_t mode, std::string_view name,
                           const ObjectId& id) {
  Found found;
  found.path = levels_.back()->path;
  if (!found.path.empty()) found.path += '/';
  found.path += name;
  KJ_REQUIRE(found.path.size() + request_.prefix.size() + 1 <= kPathBytesMax, "a path is too long for an archive");
  const bool isFolder = (mode & kTypeMask) == kFolderMode;
  const bool looksLikeOne = isFolder || isSubmodule(mode);
  const bool selected = selects(found.path, looksLikeOne);
  if (!selected && (!isFolder || !mayBeBelow(found.path))) return;
  found.attributes = attributes_.of(found.path, looksLikeOne, work_);
  if (isFolder) {
    if (!found.attributes.ignored()) enter(id, std::move(found.path));
    return;
  }
  found.id = id;
  found.mode = mode;
  writeFolders(out, messages);   // as git has it: also where nothing else is left of them
  if (!found.attributes.ignored()) write(out, messages, found);
}

// Also remembers which paths of the request there are.
bool ArchiveBuilder::selects(std::string_view path, bool isFolder) {
  bool selected = !selectsSome_, excluded = false;
  for (size_t i = 0; i < request_.paths.size(); ++i) {
    if (!request_.paths[i].selects(path, isFolder, work_)) continue;
    matched_[i] = true;
    (request_.paths[i].excludes() ? excluded : selected) = true;
  }
  return selected && !excluded;
}

bool ArchiveBuilder::mayBeBelow(std::string_view folder) const {
  return std::any_of(request_.paths.begin(), request_.paths.end(), [folder](const Pathspec& path) {
    return !path.excludes() && path.mayBeBelow(folder);
  });
}

void ArchiveBuilder::checkPaths() const {
  for (size_t i = 0; i < matched_.size(); ++i) {
    const Pathspec& path = request_.paths[i];
    if (matched_[i] || path.excludes() || path.text().empty()) continue;
    kj::throwFatalException(KJ_EXCEPTION(
        FAILED, kj::str("pathspec '", path.text().c_str(), "' did not match any files")));
  }
}

// ---- entries

// The folders that the next entry is in, as far as they are not written yet.
void ArchiveBuilder::writeFolders(PackSink& out, std::string& messages) {
  for (auto& level : levels_) {
    if (level->written) continue;
    level->written = true;
    writeFolder(out, messages, level->path, level->id);
  }
}

void ArchiveBuilder::writeFolder(PackSink& out, std::string& messages, std::string_view path,
                                 const ObjectId& id) {
  std::string full = request_.prefix;
  full.append(path).append(1, '/');
  if (request_.verbose) messages.append(full).append(1, '\n');
  ArchiveEntry entry;
  entry.type = ArchiveEntry::Type::kFolder;
  entry.path = full;
  entry.id = id;
  format_->file(out, entry, nullptr);
}

void ArchiveBuilder::write(PackSink& out, std::string& messages, const Found& found) {
  if (isSubmodule(found.mode)) {
    writeFolder(out, messages, found.path, found.id);
    return;
  }
  const std::string path = request_.prefix + found.path;
  if (request_.verbose) messages.append(path).append(1, '\n');
  warn(messages, found);
  ArchiveEntry entry;
  const bool isLink = (found.mode & kTypeMask) == kLinkMode;
  entry.type = isLink ? ArchiveEntry::Type::kLink : ArchiveEntry::Type::kFile;
  entry.executable = !isLink && (found.mode & 0100) != 0;
  entry.path = path;
  entry.id = found.id;
  writeContent(out, entry, found);
}

void ArchiveBuilder::writeContent(PackSink& out, ArchiveEntry& entry, const Found& found) {
  auto header = source_.header(found.id);
  entry.bytes = KJ_REQUIRE_NONNULL(header, "object is missing from the repository", found.id).bytes;
  const bool isFile = entry.type == ArchiveEntry::Type::kFile;
  KJ_REQUIRE(isFile || entry.bytes <= kPathBytesMax, "a symbolic link is too long for an archive", found.path);
  const bool converts = found.attributes.converts() && entry.bytes <= kConvertBytesMax;
  if (isFile && entry.bytes > kWholeBytesMax && !converts) {
    content_ = std::make_unique<Content>(source_, found.id, entry.bytes);
    auto first = content_->next();
    entry.text = found.attributes.isText(first);
    format_->beginFile(out, entry);
    format_->data(out, first);
    return;
  }
  Object object = readObject(source_, found.id, ObjectType::kBlob);
  if (isFile) {
    auto converted = found.attributes.converted(object.data);
    if (converted != nullptr) object.data = kj::mv(converted);
  }
  entry.bytes = object.data.size();
  entry.text = found.attributes.isText(object.data);
  work_ += entry.bytes;
  format_->file(out, entry, object.data);
}

// Once an attribute.
void ArchiveBuilder::warn(std::string& messages, const Found& found) {
  const char* missing = found.attributes.missing();
  if (missing == nullptr || warned_.find(missing) != warned_.npos) return;
  warned_ += missing;
  messages += std::string("warning: this server does not carry out the attribute ") + missing + ", which '" +
              found.path + "' has: the file is in the archive as it is in the repository\n";
}

}  // namespace packmoor::gitlayer
