#include "pushes.h"

#include <openssl/evp.h>
#include <zlib.h>

#include <random>
#include <stdexcept>

namespace packmoor::bench {

namespace {

constexpr size_t kBlobBytes = 1024;
constexpr int kCommit = 1, kTree = 2, kBlob = 3;

std::string sha1(const std::string& bytes) {
  unsigned char digest[20];
  unsigned int size = 0;
  if (EVP_Digest(bytes.data(), bytes.size(), digest, &size, EVP_sha1(), nullptr) != 1)
    throw std::runtime_error("SHA-1 is not available");
  return std::string(reinterpret_cast<char*>(digest), 20);
}

std::string hex(const std::string& bytes) {
  static const char kDigits[] = "0123456789abcdef";
  std::string text;
  for (unsigned char c : bytes) {
    text += kDigits[c >> 4];
    text += kDigits[c & 15];
  }
  return text;
}

// Appends a pack entry (gitformat-pack(5)) and returns the object's binary name.
std::string addObject(std::string& pack, int type, const char* typeName, const std::string& data) {
  size_t left = data.size();
  unsigned char head = type << 4 | (left & 15);
  left >>= 4;
  while (left > 0) {
    pack += static_cast<char>(head | 0x80);
    head = left & 0x7f;
    left >>= 7;
  }
  pack += static_cast<char>(head);
  uLongf bytes = compressBound(data.size());
  std::string deflated(bytes, '\0');
  compress(reinterpret_cast<Bytef*>(deflated.data()), &bytes,
           reinterpret_cast<const Bytef*>(data.data()), data.size());
  pack.append(deflated, 0, bytes);
  return sha1(std::string(typeName) + " " + std::to_string(data.size()) + std::string(1, '\0') +
              data);
}

std::string pktLine(const std::string& payload) {
  char length[5];
  std::snprintf(length, sizeof length, "%04x", static_cast<unsigned>(payload.size() + 4));
  return length + payload;
}

}  // namespace

std::vector<Push> makePushChain(const std::string& branch, size_t count, uint64_t seed) {
  std::mt19937_64 random(seed);
  std::vector<Push> pushes;
  std::string parent;
  for (size_t i = 0; i < count; ++i) {
    std::string blob;
    while (blob.size() < kBlobBytes) {
      uint64_t word = random();
      blob.append(reinterpret_cast<char*>(&word), sizeof word);
    }
    std::string pack("PACK\0\0\0\2\0\0\0\3", 12);
    std::string blobId = addObject(pack, kBlob, "blob", blob);
    std::string treeId =
        addObject(pack, kTree, "tree", std::string("100644 file\0", 12) + blobId);
    std::string when = "Load <load@example.invalid> " + std::to_string(1700000000 + i) + " +0000\n";
    std::string commit = "tree " + hex(treeId) + "\n";
    if (!parent.empty()) commit += "parent " + parent + "\n";
    commit += "author " + when + "committer " + when + "\npush " + std::to_string(i) + "\n";
    std::string id = hex(addObject(pack, kCommit, "commit", commit));
    pack += sha1(pack);

    std::string old = parent.empty() ? std::string(40, '0') : parent;
    std::string command = old + " " + id + " " + branch + std::string(1, '\0') +
                          " report-status side-band-64k object-format=sha1 agent=git/2.39.5";
    pushes.push_back({id, pktLine(command) + "0000" + pack});
    parent = id;
  }
  return pushes;
}

}  // namespace packmoor::bench
