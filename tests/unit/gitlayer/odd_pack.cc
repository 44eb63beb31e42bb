#include "odd_pack.h"

#include "gitlayer/pack_format.h"
#include "gitlayer/zlib_codec.h"
#include "sha1_stream.h"

#include <algorithm>

namespace packmoor::gitlayer::test {
namespace {

constexpr size_t kObjects = 10;

kj::ArrayPtr<const kj::byte> bytesOf(const std::string& text) {
  return kj::arrayPtr(reinterpret_cast<const kj::byte*>(text.data()), text.size());
}

std::string text(kj::ArrayPtr<const kj::byte> bytes) {
  return std::string(reinterpret_cast<const char*>(bytes.begin()), bytes.size());
}

std::string hex(const ObjectId& id) { return id.hex().cStr(); }

std::string raw(const ObjectId& id) {
  return std::string(reinterpret_cast<const char*>(id.bytes.data()), kOidBytes);
}

std::string lines(const std::vector<std::string>& parts) {
  std::string joined;
  for (const auto& part : parts) joined += part + "\n";
  if (!joined.empty()) joined.pop_back();
  return joined;
}

}  // namespace

ObjectId OddPackMaker::add(ObjectType type, std::string data) {
  if (entries_.size() + 1 == changed_ && type != ObjectType::kBlob) {
    if (type == ObjectType::kTree || oneIn(4)) changeBytes(data);
    else changeLines(data);
  }
  Entry entry{type, std::move(data), {}};
  entry.id = hashObject(type, bytesOf(entry.data));
  entries_.push_back(std::move(entry));
  return entries_.back().id;
}

std::string OddPackMaker::ident() { return "A U Thor <author@example.org> 1700000000 +0100"; }

ObjectId OddPackMaker::addTree(std::vector<File> files) {
  bool byFiles = entries_.size() + 1 == changed_ && !oneIn(5);
  size_t kept = changed_;
  if (byFiles) {
    changeFiles(files);
    changed_ = 0;  // not by bytes too
  }
  std::string data;
  for (const File& file : files) {
    data += file.mode + " " + file.name + std::string(1, '\0') + raw(file.id);
  }
  ObjectId id = add(ObjectType::kTree, std::move(data));
  changed_ = kept;
  return id;
}

ObjectId OddPackMaker::addCommit(const ObjectId& tree, const std::vector<ObjectId>& parents) {
  std::string data = "tree " + hex(tree) + "\n";
  for (const ObjectId& parent : parents) data += "parent " + hex(parent) + "\n";
  data += "author " + ident() + "\ncommitter " + ident() + "\n\nA change\n\nwith more to say\n";
  return add(ObjectType::kCommit, data);
}

void OddPackMaker::changeBytes(std::string& data) {
  static const std::string kBytes("<> \n\0+-0917aZ/.~\xff", 17);
  for (size_t n = 1 + below(2); n > 0 && !data.empty(); --n) {
    size_t at = below(data.size());
    switch (below(5)) {
      case 0: data[at] = static_cast<char>(data[at] ^ (1 << below(8))); break;
      case 1: data[at] = kBytes[below(kBytes.size())]; break;
      case 2: data.erase(at, 1 + below(3)); break;
      case 3: data.insert(at, 1, kBytes[below(kBytes.size())]); break;
      case 4: data.resize(at); break;
    }
    note("byte " + std::to_string(at));
  }
}

void OddPackMaker::changeIdent(std::string& line) {
  static const std::vector<std::string> kNames = {"A U Thor ", "", "A", " ", "A > ", "A\\ ", "A  "};
  static const std::vector<std::string> kMails = {"<a@b>", "<>", "<a@b", "a@b>", "<a<b>", "<a>b>", ""};
  static const std::vector<std::string> kDates = {
      " 1700000000", " 0", " 01", "", " ", " -1", " x", " 99999999999999999999", "  7",
      " 9223372036854775807", " 9223372036854775808", " 18446744073709551615", " +5", " 2147483648"};
  static const std::vector<std::string> kZones = {" +0100", " -0000", "", " +01", " +01000", " 0100",
                                                  " +0a00", " +9999", " +0100 ", "  +0100"};
  std::string name = kNames[0], mail = kMails[0], date = kDates[0], zone = kZones[0];
  switch (below(4)) {
    case 0: name = anyOf(kNames); break;
    case 1: mail = anyOf(kMails); break;
    case 2: date = anyOf(kDates); break;
    case 3: zone = anyOf(kZones); break;
  }
  line = line.substr(0, line.find(' ') + 1) + name + mail + date + zone;
  note(line);
}

void OddPackMaker::changeLines(std::string& data) {
  std::vector<std::string> parts;
  for (size_t at = 0; at <= data.size();) {
    size_t end = std::min(data.find('\n', at), data.size());
    parts.push_back(data.substr(at, end - at));
    at = end + 1;
  }
  size_t line = below(std::min<size_t>(parts.size(), 6));
  size_t what = below(8);
  note("line " + std::to_string(line) + " by way " + std::to_string(what));
  switch (what) {
    case 0: parts.erase(parts.begin() + line); break;
    case 1: parts.insert(parts.begin() + line, parts[line]); break;
    case 2: std::swap(parts[line], parts[below(parts.size())]); break;
    case 3: parts.insert(parts.begin() + line, anyOf<std::string>({"encoding x", "", "x", "gpgsig y"}));
      break;
    case 4: parts.back() += std::string("\0more", 5); break;
    default: {
      std::vector<size_t> people;
      for (size_t i = 0; i < parts.size(); ++i) {
        if (parts[i].find("<author@") != std::string::npos) people.push_back(i);
      }
      if (!people.empty()) changeIdent(parts[anyOf(people)]);
    }
  }
  data = lines(parts);
}

void OddPackMaker::changeFiles(std::vector<File>& files) {
  static const std::vector<std::string> kModes = {"100644", "100755", "120000", "40000", "160000",
                                                  "100664", "0100644", "040000", "20000", "0",
                                                  "100777", "170000", "", "8", "60000"};
  static const std::vector<std::string> kNames = {
      ".", "..", "...", ".git", ".GIT", ".git ", ".git.", ".git. .", "git~1", "GIT~1.", "git~2",
      ".g\xe2\x80\x8cit", "\xef\xbb\xbf.git", ".gi\xe2\x80\x8b" "t", "a/b", "", "a\\.git", "x\\git~1",
      ".git:x", ".git\\x", ".gitx", "a.b", "dir", "dir.x", "\xff"};
  File& file = files[below(files.size())];
  size_t what = below(8);
  note("file " + file.name + " by way " + std::to_string(what));
  switch (what) {
    case 0: file.mode = anyOf(kModes); note(file.mode); break;
    case 1:
    case 2: {
      file.name = anyOf(kNames);
      note(file.name);
      if (oneIn(4)) break;  // and maybe out of order
      auto key = [](const File& f) { return f.mode == "40000" ? f.name + "/" : f.name; };
      std::sort(files.begin(), files.end(),
                [&](const File& a, const File& b) { return key(a) < key(b); });
      break;
    }
    case 3: file.id = ObjectId(); break;
    case 4: file.id = anyOf(files).id; break;
    case 5: std::swap(file, files[below(files.size())]); break;
    case 6: files.push_back(anyOf(files)); break;
    case 7: {  // a file and a folder of one name, with something between
      ObjectId blob = files.front().id, tree = files.back().id;
      files = {{"100644", "dir", blob}, {"40000", "dir", tree}};
      if (oneIn(2)) files.insert(files.begin() + 1, {"100644", "dir.a", blob});
      if (oneIn(2)) files.insert(files.begin() + 1, {"100644", "dir-", blob});
      break;
    }
  }
}

// A .gitmodules of one submodule, or lines for a .gitattributes.
std::string OddPackMaker::specialContent() {
  static const std::vector<std::string> kHeads = {
      "[submodule \"lib\"]", "[submodule \"../x\"]", "[submodule \"a/../b\"]", "[submodule \"..\"]",
      "[submodule \"a\\\\..\"]", "[submodule \"\"]", "[submodule \"..a\"]", "[submodule \"l\\\"b\"]",
      "[submodule.lib]", "[submodule...]", "[submodule]", "[Submodule \"..\"] ; more",
      "[submodule \"..\"]url = x", "[other \"..\"]", "[submodule  \"lib\" ]", "oops\n[submodule \"..\"]"};
  static const std::vector<std::string> kUrls = {
      "https://example.org/x", "-u./x", "../x", "../:x", "../../..//x", "./../:x", "git://h/%0ax",
      "https://h/%0ax", "https:///x", "http::https://h/x", "http::x", "https://user@/x",
      "https://u:p@h/x", "https://u:p@/x", "ftp://?x", "ftps://#x", "ssh://-x", "\"-x\"", "file:///x",
      "..\\\\:x", "\"https://h/a\\nb\"", "../a\\nb", "..", ".", "../", "httpx://", "-\\\nx", "# -x",
      "https://h/x;-x", "\\x", "https://h@/x@y", "HTTPS://"};
  static const std::vector<std::string> kPaths = {"lib", "-x", "\"-x\"", " - x", "", "\"\" -x"};
  static const std::vector<std::string> kUpdates = {"checkout", "!rm -rf", "\"!rm\"", "", "none", "x!"};
  std::string url = kUrls[0], path = kPaths[0], update = kUpdates[0], head = kHeads[0];
  switch (below(6)) {
    case 0: head = anyOf(kHeads); break;
    case 1: path = anyOf(kPaths); break;
    case 2: update = anyOf(kUpdates); break;
    case 3: return std::string(anyOf<size_t>({2046, 2047, 2048, 3000}), 'a') + "\n*.c text\n";
    default: url = anyOf(kUrls); break;
  }
  std::string end = oneIn(5) ? "\r\n" : "\n";
  std::string content = head + end + "\tPath = " + path + end + "\turl = " + url + end +
                        (oneIn(4) ? "\tshallow" + end : "") + "\tupdate=" + update +
                        (oneIn(4) ? "" : end);
  note(head + " " + url + " " + path + " " + update);
  if (oneIn(4)) changeBytes(content);
  return content;
}

void OddPackMaker::addSpecial(std::vector<File>& files) {
  static const std::vector<std::string> kNames = {
      ".gitmodules", ".gitmodules", ".GitModules", ".gitmodules ", "gitmod~1", "gi7eba~1", "GITMOD~9",
      ".gitmo\xe2\x80\x8c" "dules", "x\\.gitmodules", ".gitattributes", ".gitattributes", "gitatt~1",
      ".gitmodules.x", "x.gitmodules"};
  File file{oneIn(8) ? "40000" : oneIn(8) ? "120000" : "100644", anyOf(kNames), {}};
  file.id = file.mode == "40000" ? files.back().id : add(ObjectType::kBlob, specialContent());
  note(file.mode + " " + file.name);
  files.push_back(file);
  auto key = [](const File& f) { return f.mode == "40000" ? f.name + "/" : f.name; };
  std::sort(files.begin(), files.end(),
            [&](const File& a, const File& b) { return key(a) < key(b); });
}

std::string OddPackMaker::deltaOf(const std::string& base, const std::string& result) {
  auto size = [](size_t value) {
    std::string bytes;
    for (; value >= 0x80; value >>= 7) bytes.push_back(static_cast<char>(value | 0x80));
    bytes.push_back(static_cast<char>(value));
    return bytes;
  };
  size_t same = 0;
  while (same < std::min(base.size(), result.size()) && base[same] == result[same]) ++same;
  std::string delta = size(base.size()) + size(result.size());
  if (same > 0) {
    delta += '\xb0';  // from offset 0, two bytes of length
    delta += static_cast<char>(same & 0xff);
    delta += static_cast<char>(same >> 8);
  }
  for (size_t at = same; at < result.size(); at += 100) {
    std::string piece = result.substr(at, 100);
    delta += static_cast<char>(piece.size()) + piece;
  }
  if (oneIn(2)) changeBytes(delta);
  return delta;
}

// One entry; as a delta of an earlier one now and then.
std::string OddPackMaker::entryBytes(const Entry& entry, size_t at,
                                     const std::vector<size_t>& offsets) {
  PackEntryHeader header;
  std::string data = entry.data;
  header.type = entryTypeOf(entry.type);
  if (!offsets.empty() && oneIn(3)) {
    size_t base = below(offsets.size());
    bool sameType = entries_[base].type == entry.type;
    if (sameType || oneIn(20)) {
      header.type = oneIn(2) ? PackEntryType::kOfsDelta : PackEntryType::kRefDelta;
      header.baseDistance = at - offsets[base];
      header.base = entries_[base].id;
      if (structure_ && oneIn(8)) header.base.bytes[0] ^= 1;
      data = deltaOf(entries_[base].data, entry.data);
      note("a delta of " + std::to_string(base));
    }
  }
  header.bytes = data.size();
  if (structure_ && oneIn(20)) {
    header.bytes += below(3) - 1;
    note("a size");
  }
  kj::byte space[kEntryHeaderBytesMax];
  std::string bytes = text(kj::arrayPtr(space, encodeEntryHeader(space, header)));
  Deflater deflater;
  std::string stream = text(deflater.deflate(bytesOf(data)));
  if (structure_ && oneIn(25)) changeBytes(stream);
  if (structure_ && oneIn(40)) changeBytes(bytes);
  return bytes + stream;
}

std::string OddPackMaker::packed() {
  if (structure_ && oneIn(3)) {
    size_t gone = below(entries_.size());
    note("without object " + std::to_string(gone));
    entries_.erase(entries_.begin() + gone);
  } else if (structure_ && oneIn(6)) {
    entries_.push_back(anyOf(entries_));
    note("an object twice");
  }
  kj::byte head[kPackHeaderBytes];
  size_t count = entries_.size();
  if (structure_ && oneIn(12)) count += below(3) - 1;
  encodePackHeader(head, static_cast<uint32_t>(count));
  if (structure_ && oneIn(15)) {
    head[7] = static_cast<kj::byte>(below(5));
    note("version " + std::to_string(head[7]));
  }
  std::string bytes = text(kj::arrayPtr(head, sizeof head));
  std::vector<size_t> offsets;
  for (const Entry& entry : entries_) {
    size_t at = bytes.size();
    bytes += entryBytes(entry, at, offsets);
    offsets.push_back(at);
  }
  Sha1Stream sha1;
  sha1.update(bytesOf(bytes));
  std::string trailer = raw(sha1.finish());
  if (structure_ && oneIn(30)) changeBytes(trailer);
  return bytes + trailer;
}

OddPack OddPackMaker::make() {
  if (oneIn(4)) structure_ = true;
  else changed_ = below(kObjects + 1);
  ObjectId one = add(ObjectType::kBlob, std::string(300, 'o') + "ne\n");
  ObjectId two = add(ObjectType::kBlob, std::string(300, 'o') + "ther\n");
  ObjectId inner = addTree({{"100644", "a", one}, {"100755", "b", two}});
  ObjectId module = one;
  module.bytes[3] ^= 0x10;
  std::vector<File> root = {{"100644", "a", one}, {"120000", "l", two}, {"40000", "z", inner}};
  if (oneIn(3)) {
    changed_ = 0;
    addSpecial(root);
  }
  ObjectId first = addTree(root);
  ObjectId begun = addCommit(first, {});
  ObjectId second = addTree({{"100644", "a", two},
                             {"100644", "c", one},
                             {"160000", "m", module},
                             {"40000", "z", inner}});
  ObjectId third = addTree({{"100644", "dir.c", two}, {"40000", "z", first}});
  ObjectId side = addCommit(third, {});
  ObjectId head = addCommit(second, {begun, side});
  ObjectId tag = add(ObjectType::kTag, "object " + hex(head) + "\ntype commit\ntag v1\ntagger " +
                                           ident() + "\n\nA name\n");
  OddPack result;
  result.ref = "refs/tags/x";
  result.tip = hex(tag);
  if (oneIn(2)) {
    result.ref = "refs/heads/x";
    result.tip = hex(head);
  }
  result.bytes = packed();
  result.change = change_;
  return result;
}

}  // namespace packmoor::gitlayer::test
