// Packs that are wrong in one way or another, or not wrong at all, made from a seed.
//
// A small history (blobs, trees, two commits, a tag) of which one object's content is changed before
// it is named, so that everything built upon it names it as it is; or of which the pack's structure
// is changed: an object left out, twice, as a delta that may be broken, with a wrong header.
#pragma once

#include "gitlayer/object_id.h"

#include <random>
#include <string>
#include <vector>

namespace packmoor::gitlayer::test {

struct OddPack {
  std::string bytes;
  std::string ref;        // what is to be made of it
  std::string tip;        // its value, 40 hex digits
  std::string change;     // what was done, for a person
};

class OddPackMaker {
 public:
  explicit OddPackMaker(uint64_t seed) : random_(seed) {}
  OddPack make();

 private:
  struct Entry {
    ObjectType type = ObjectType::kNone;
    std::string data;
    ObjectId id;
  };
  struct File {
    std::string mode, name;
    ObjectId id;
  };

  size_t below(size_t bound) { return random_() % bound; }
  bool oneIn(size_t n) { return below(n) == 0; }
  template <typename T>
  const T& anyOf(const std::vector<T>& list) {
    return list[below(list.size())];
  }

  ObjectId add(ObjectType type, std::string data);
  ObjectId addTree(std::vector<File> files);
  ObjectId addCommit(const ObjectId& tree, const std::vector<ObjectId>& parents);
  void changeBytes(std::string& data);
  void changeLines(std::string& data);
  void changeIdent(std::string& line);
  void changeFiles(std::vector<File>& files);
  std::string ident();
  std::string specialContent();
  void addSpecial(std::vector<File>& files);
  std::string packed();
  std::string entryBytes(const Entry& entry, size_t at, const std::vector<size_t>& offsets);
  std::string deltaOf(const std::string& base, const std::string& result);
  void note(const std::string& what) { change_ += (change_.empty() ? "" : "; ") + what; }

  std::mt19937_64 random_;
  std::vector<Entry> entries_;
  size_t changed_ = 0;        // the object whose content is changed, counted from 1; 0: none
  bool structure_ = false;    // the pack's structure is changed
  std::string change_;
};

}  // namespace packmoor::gitlayer::test
