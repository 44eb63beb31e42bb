#include "data_directory.h"

#include "exit_code.h"

#include <algorithm>
#include <cerrno>
#include <cstring>
#include <fstream>
#include <set>
#include <sstream>

#include <dirent.h>
#include <fcntl.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <unistd.h>

namespace packmoor::daemon {
namespace {

constexpr const char* kFirstLine = "packmoor data directory 1";

// What may lie in a folder that is not yet a node's.
const std::set<std::string> kHarmless = {".", "..", "lost+found", "lock", "identity.new"};

}  // namespace

DataDirectory::DataDirectory(const std::string& path, const std::string& node,
                             const std::string& cluster)
    : path_(path), node_(node), cluster_(cluster) {
  if (mkdir(path.c_str(), 0700) != 0 && errno != EEXIST) {
    refuse("The data directory " + path + " cannot be made: " + std::strerror(errno) + ".");
  }
  int fd = open(path.c_str(), O_RDONLY | O_DIRECTORY | O_CLOEXEC);
  if (fd < 0) {
    refuse("The data directory " + path + " cannot be opened: " + std::strerror(errno) + ".");
  }
  folder_ = kj::AutoCloseFd(fd);
  lock();
  readIdentity();
}

void DataDirectory::refuse(const std::string& sentence) const {
  throw StartFailure(kBadData, sentence);
}

void DataDirectory::lock() {
  int fd = openat(folder_, "lock", O_RDWR | O_CREAT | O_CLOEXEC, 0600);
  if (fd < 0) {
    refuse("The data directory " + path_ + " cannot be locked: " + std::strerror(errno) + ".");
  }
  lock_ = kj::AutoCloseFd(fd);
  if (flock(lock_, LOCK_EX | LOCK_NB) == 0) return;
  if (errno == EWOULDBLOCK) {
    refuse("The data directory " + path_ + " is in use by another packmoord. Stop that one first.");
  }
  refuse("The data directory " + path_ + " cannot be locked: " + std::strerror(errno) + ".");
}

void DataDirectory::readIdentity() {
  std::ifstream file(path_ + "/identity");
  if (!file) {
    if (errno != ENOENT) {
      refuse("The identity of the data directory " + path_ + " cannot be read: " +
             std::strerror(errno) + ".");
    }
    DIR* listing = opendir(path_.c_str());
    if (listing == nullptr) {
      refuse("The data directory " + path_ + " cannot be listed: " + std::strerror(errno) + ".");
    }
    std::string stranger;
    while (const dirent* entry = readdir(listing)) {
      if (kHarmless.count(entry->d_name) == 0) stranger = entry->d_name;
    }
    closedir(listing);
    if (!stranger.empty()) {
      refuse("The data directory " + path_ + " holds \"" + stranger + "\" and is not Packmoor's. "
             "Give an empty directory (node.data).");
    }
    writeIdentity();
    return;
  }
  std::string first, word, value, node, cluster;
  std::getline(file, first);
  if (first != kFirstLine) {
    refuse("The file " + path_ + "/identity is damaged or of a newer version: its first line is "
           "not \"" + std::string(kFirstLine) + "\".");
  }
  while (file >> word >> value) {
    if (word == "node") node = value;
    else if (word == "cluster") cluster = value;
    else if (word == "journal") journal_ = value;
  }
  if (cluster != cluster_) {
    refuse("The data directory " + path_ + " belongs to cluster " + cluster + ", and this node is "
           "of cluster " + cluster_ + ". Correct node.data or node.cluster.");
  }
  if (node != node_) {
    refuse("The data directory " + path_ + " belongs to node " + node + ", and this is node " +
           node_ + ". Correct node.data or node.id.");
  }
}

void DataDirectory::writeIdentity() {
  std::ostringstream text;
  text << kFirstLine << "\nnode " << node_ << "\ncluster " << cluster_ << "\n";
  if (!journal_.empty()) text << "journal " << journal_ << "\n";
  std::string bytes = text.str();
  int fd = openat(folder_, "identity.new", O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0644);
  kj::AutoCloseFd file(fd);
  bool written = fd >= 0 &&
                 write(fd, bytes.data(), bytes.size()) == static_cast<ssize_t>(bytes.size()) &&
                 fsync(fd) == 0 && renameat(folder_, "identity.new", folder_, "identity") == 0 &&
                 fsync(folder_) == 0;
  if (!written) {
    refuse("The identity of the data directory " + path_ + " cannot be written: " +
           std::strerror(errno) + ".");
  }
}

void DataDirectory::setJournal(const std::string& uuid) {
  if (journal_ == uuid) return;
  journal_ = uuid;
  writeIdentity();
}

}  // namespace packmoor::daemon
