// DataDirectory: this node's folder, locked and identified.
//
// Why: two processes on one journal, or a node started on another node's folder, would destroy
// what was acknowledged. The folder holds a lock (`lock`, held for the life of the process) and
// an identity (`identity`, text): the node, its cluster and, once made, its journal's uuid.
// A folder that holds other things and no identity is refused.
//
// Blocking calls on a few tiny files, at start only.
#pragma once

#include <kj/io.h>

#include <string>

namespace packmoor::daemon {

class DataDirectory {
 public:
  // Makes the folder when absent. Throws StartFailure (kBadData).
  DataDirectory(const std::string& path, const std::string& node, const std::string& cluster);

  // The uuid of the journal that this folder was made with; empty: none yet.
  const std::string& journal() const { return journal_; }
  // Remembers it, durably.
  void setJournal(const std::string& uuid);

 private:
  void lock();
  void readIdentity();
  void writeIdentity();
  [[noreturn]] void refuse(const std::string& sentence) const;

  std::string path_, node_, cluster_, journal_;
  kj::AutoCloseFd folder_, lock_;
};

}  // namespace packmoor::daemon
