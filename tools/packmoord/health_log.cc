#include "health_log.h"

#include "log.h"

namespace packmoor::daemon {

void HealthLog::note(const std::vector<rpc::HealthLine>& lines) {
  std::map<Key, std::string> now;
  for (const auto& line : lines) {
    const Key key(line.code, line.subject);
    now[key] = line.message;
    if (told_.count(key) > 0) continue;
    log(line.severity == "error" ? LogLevel::kError : LogLevel::kWarning, "health",
        line.code + ": " + line.message);
  }
  for (const auto& [key, message] : told_) {
    if (now.count(key) == 0) logInfo("health", key.first + " is over. It was: " + message);
  }
  told_ = std::move(now);
}

}  // namespace packmoor::daemon
