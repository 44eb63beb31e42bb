// HealthLog: a log line when something stops being well, and one when it is well again.
//
// Why: status tells what is not well to who asks; the log tells it to who looks later. One place, so
// that every code of the status has its line. Loop: the node's.
#pragma once

#include <rpc/node_control.h>

#include <map>
#include <string>
#include <utility>
#include <vector>

namespace packmoor::daemon {

class HealthLog final {
 public:
  // With what is not well now, about once a second.
  void note(const std::vector<rpc::HealthLine>& lines);

 private:
  using Key = std::pair<std::string, std::string>;   // code, subject
  std::map<Key, std::string> told_;                  // the message that was logged
};

}  // namespace packmoor::daemon
