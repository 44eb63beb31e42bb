// In-place readers of commits, trees and tags, for walks over very many objects: no copy, no
// allocation. They check only what keeps them inside the data and what a walk needs; whether an
// object is well formed was checked when it was pushed.
#pragma once

#include "gitlayer/object_id.h"

#include <kj/array.h>

#include <cstring>
#include <string_view>

namespace packmoor::gitlayer {

// "tree <oid>\n" ("parent <oid>\n")* "author ...\n" "committer ... <date> <zone>\n" ...
class CommitScan {
 public:
  bool begin(kj::ArrayPtr<const kj::byte> data) {
    rest_ = std::string_view(reinterpret_cast<const char*>(data.begin()), data.size());
    return name("tree ", tree_);
  }
  const ObjectId& tree() const { return tree_; }
  bool nextParent(ObjectId& id) { return name("parent ", id); }
  // After the last parent. 0 when there is no readable date.
  int64_t committerDate() const;

 private:
  bool name(std::string_view key, ObjectId& id) {
    size_t bytes = key.size() + kOidHexChars + 1;
    if (rest_.size() < bytes || rest_.substr(0, key.size()) != key || rest_[bytes - 1] != '\n' ||
        !ObjectId::parseHex(rest_.substr(key.size(), kOidHexChars), id)) {
      return false;
    }
    rest_.remove_prefix(bytes);
    return true;
  }

  std::string_view rest_;
  ObjectId tree_;
};

// "object <oid>\ntype <type>\n..."
bool scanTag(kj::ArrayPtr<const kj::byte> data, ObjectId& target, ObjectType& targetType);

// ("<octal mode> <name>\0<20 bytes>")*
class TreeScan {
 public:
  struct Entry {
    uint32_t mode = 0;
    std::string_view name;
    const kj::byte* id = nullptr;  // kOidBytes
    bool isTree() const { return (mode & 0170000) == 0040000; }
    // As git has it: whatever is no tree, no file and no link.
    bool isSubmodule() const {
      uint32_t type = mode & 0170000;
      return type != 0040000 && type != 0100000 && type != 0120000;
    }
    ObjectId oid() const { return ObjectId::fromBytes(id); }
  };

  explicit TreeScan(kj::ArrayPtr<const kj::byte> data) : at_(data.begin()), end_(data.end()) {}

  // Goes to the next entry, the first at first. False: at the end, or bad().
  bool next() {
    if (at_ == end_) return false;
    uint32_t mode = 0;
    const kj::byte* p = at_;
    while (p < end_ && *p >= '0' && *p <= '7') mode = mode * 8 + (*p++ - '0');
    if (p == at_ || p == end_ || *p != ' ') return fail();
    const kj::byte* begin = ++p;
    p = static_cast<const kj::byte*>(memchr(p, 0, end_ - p));
    if (p == nullptr || p == begin || static_cast<size_t>(end_ - p) < 1 + kOidBytes) return fail();
    entry_.mode = mode;
    entry_.name = {reinterpret_cast<const char*>(begin), static_cast<size_t>(p - begin)};
    entry_.id = p + 1;
    at_ = p + 1 + kOidBytes;
    return true;
  }
  const Entry& entry() const { return entry_; }
  bool bad() const { return bad_; }

  // Order of entries in a tree: as bytes, a tree's name with a '/' behind it.
  static int compare(const Entry& a, const Entry& b);

 private:
  bool fail() {
    bad_ = true;
    at_ = end_;
    return false;
  }

  const kj::byte* at_;
  const kj::byte* end_;
  Entry entry_;
  bool bad_ = false;
};

}  // namespace packmoor::gitlayer
