// A random history in memory, and which objects reach which: what walks and packs are checked
// against. Everything follows from the seed.
#pragma once

#include "gitlayer/object_source.h"
#include "gitlayer/zlib_codec.h"

#include <map>
#include <random>
#include <set>
#include <string>
#include <vector>

namespace packmoor::gitlayer::test {

class RandomHistory final : public ObjectSource {
 public:
  struct Shape {
    int commits = 60;
    bool clocksLie = false;     // commit dates in any order
    int foldersMax = 4, filesMax = 4, depthMax = 3;
  };

  RandomHistory(uint64_t seed, Shape shape) : random_(seed), shape_(shape) {
    for (int i = 0; i < shape.commits; ++i) addCommit();
  }

  std::vector<ObjectId> commits;      // parents before children
  std::vector<ObjectId> tags;         // annotated; of commits, trees, blobs and tags

  // Some commits, and sometimes a tag, a tree or a blob.
  std::vector<ObjectId> pick(size_t most) {
    std::vector<ObjectId> result;
    for (size_t count = below(most + 1); count > 0; --count) {
      if (!tags.empty() && below(6) == 0) {
        result.push_back(tags[below(tags.size())]);
      } else {
        result.push_back(commits[below(commits.size())]);
      }
    }
    return result;
  }
  size_t below(size_t bound) { return std::uniform_int_distribution<size_t>(0, bound - 1)(random_); }

  // Everything that these reach, themselves included.
  std::set<ObjectId> reached(std::vector<ObjectId> from) const {
    std::set<ObjectId> seen;
    while (!from.empty()) {
      ObjectId id = from.back();
      from.pop_back();
      if (!seen.insert(id).second) continue;
      auto& links = objects_.at(id).links;
      from.insert(from.end(), links.begin(), links.end());
    }
    return seen;
  }
  ObjectType typeOf(const ObjectId& id) const { return objects_.at(id).type; }
  const std::vector<ObjectId>& linksOf(const ObjectId& id) const { return objects_.at(id).links; }
  const std::string& dataOf(const ObjectId& id) const { return objects_.at(id).data; }
  std::vector<ObjectId> names() const {
    std::vector<ObjectId> result;
    for (auto& [id, object] : objects_) result.push_back(id);
    return result;
  }

  uint64_t reads = 0;

  // ---- ObjectSource --------------------------------------------------------------------------
  bool exists(const ObjectId& id) override { return objects_.count(id) > 0; }
  kj::Maybe<ObjectHeader> header(const ObjectId& id) override {
    auto found = objects_.find(id);
    if (found == objects_.end()) return nullptr;
    return ObjectHeader{found->second.type, found->second.data.size()};
  }
  kj::Maybe<Object> read(const ObjectId& id) override {
    auto found = objects_.find(id);
    if (found == objects_.end()) return nullptr;
    ++reads;
    return Object{found->second.type, kj::heapArray(bytes(found->second.data))};
  }
  kj::Maybe<StoredEntry> stored(const ObjectId& id) override {
    auto found = objects_.find(id);
    if (found == objects_.end()) return nullptr;
    auto deflated = std::make_shared<kj::Array<const kj::byte>>(
        Deflater().deflate(bytes(found->second.data)));
    StoredEntry entry;
    entry.type = found->second.type;
    entry.bytes = found->second.data.size();
    entry.deflated = *deflated;
    entry.keepAlive = std::move(deflated);
    return entry;
  }
  std::vector<PackView> packs() override { return {}; }
  std::vector<ObjectId> hotObjects() override { return names(); }

 private:
  struct Made {
    ObjectType type;
    std::string data;
    std::vector<ObjectId> links;
  };
  struct Folder {
    std::map<std::string, std::string> files;
    std::map<std::string, Folder> folders;
  };

  static kj::ArrayPtr<const kj::byte> bytes(const std::string& text) {
    return kj::arrayPtr(reinterpret_cast<const kj::byte*>(text.data()), text.size());
  }
  ObjectId add(ObjectType type, std::string data, std::vector<ObjectId> links) {
    ObjectId id = hashObject(type, bytes(data));
    objects_[id] = {type, std::move(data), std::move(links)};
    return id;
  }

  ObjectId write(const Folder& folder) {
    std::map<std::string, std::pair<const char*, ObjectId>> sorted;
    for (auto& [name, below] : folder.folders) {
      if (below.files.empty() && below.folders.empty()) continue;
      sorted[name + "/"] = {"40000 ", write(below)};
    }
    for (auto& [name, text] : folder.files) {
      sorted[name] = {"100644 ", add(ObjectType::kBlob, text, {})};
    }
    std::string data;
    std::vector<ObjectId> links;
    for (auto& [name, entry] : sorted) {
      data += entry.first;
      data += name.back() == '/' ? name.substr(0, name.size() - 1) : name;
      data += '\0';
      data.append(reinterpret_cast<const char*>(entry.second.bytes.data()), kOidBytes);
      links.push_back(entry.second);
    }
    if (data.empty() || below(9) == 0) {
      data = "160000 module" + std::string(1, '\0') + std::string(kOidBytes, 'm') + data;
    }
    return add(ObjectType::kTree, std::move(data), std::move(links));
  }

  void change(Folder& folder, int depth) {
    std::string file = "f" + std::to_string(below(shape_.filesMax));
    std::string name = "d" + std::to_string(below(shape_.foldersMax));
    size_t what = below(10);
    if (what < 4 && depth < shape_.depthMax) {
      change(folder.folders[name], depth + 1);
    } else if (what < 8) {
      folder.files[file] = "text " + std::to_string(below(40));
    } else if (what == 8) {
      folder.files.erase(file);
      folder.folders.erase(name);
    } else if (!folder.folders.empty()) {
      // A folder moves, or a copy of it appears.
      Folder copy = folder.folders.begin()->second;
      if (below(2) == 0) folder.folders.erase(folder.folders.begin());
      folder.folders[name] = copy;
    }
  }

  void addCommit() {
    std::vector<size_t> parents;
    if (!commits.empty() && below(20) != 0) {
      size_t count = below(8) == 0 ? 1 + below(4) : below(5) == 0 ? 2 : 1;
      for (size_t i = 0; i < count; ++i) {
        size_t near = std::min<size_t>(commits.size(), 6);
        parents.push_back(commits.size() - 1 - below(near));
      }
    }
    Folder content;
    if (!parents.empty()) content = contents_[parents[0]];
    if (below(12) == 0 && !contents_.empty()) content = contents_[below(contents_.size())];
    for (size_t count = below(4); count > 0; --count) change(content, 0);
    ObjectId tree = write(content);
    std::vector<ObjectId> links{tree};
    std::string text = "tree " + std::string(tree.hex().cStr()) + "\n";
    for (size_t parent : parents) {
      text += "parent " + std::string(commits[parent].hex().cStr()) + "\n";
      links.push_back(commits[parent]);
    }
    uint64_t date = 1'700'000'000 + (shape_.clocksLie ? below(1000) : commits.size());
    std::string who = "T <t@example.com> " + std::to_string(date) + " +0000\n";
    text += "author " + who + "committer " + who + "\n" + std::to_string(commits.size()) + "\n";
    commits.push_back(add(ObjectType::kCommit, text, links));
    contents_.push_back(std::move(content));
    if (below(8) == 0) addTag();
  }

  void addTag() {
    ObjectId target = commits[below(commits.size())];
    if (below(5) == 0) target = objects_.at(target).links[0];
    if (below(5) == 0 && !tags.empty()) target = tags[below(tags.size())];
    std::string text = "object " + std::string(target.hex().cStr()) + "\ntype " +
                       std::string(objectTypeName(typeOf(target))) + "\ntag t" +
                       std::to_string(tags.size()) +
                       "\ntagger T <t@example.com> 1700000000 +0000\n\nt\n";
    tags.push_back(add(ObjectType::kTag, text, {target}));
  }

  std::mt19937_64 random_;
  Shape shape_;
  std::map<ObjectId, Made> objects_;
  std::vector<Folder> contents_;  // of commits
};

}  // namespace packmoor::gitlayer::test
