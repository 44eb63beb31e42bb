// The daemon's log: one line per event on standard error, a time, a level, a component and a
// sentence. What the modules log through KJ comes here too, with the source file as component.
#pragma once

#include <kj/exception.h>

#include <string>

namespace packmoor::daemon {

enum class LogLevel { kDebug, kInfo, kWarning, kError };

// Call once, before threads are made. `level` as in the configuration.
void startLog(const std::string& level);
void log(LogLevel level, const char* component, const std::string& sentence);
inline void logInfo(const char* component, const std::string& sentence) {
  log(LogLevel::kInfo, component, sentence);
}
inline void logWarning(const char* component, const std::string& sentence) {
  log(LogLevel::kWarning, component, sentence);
}
inline void logError(const char* component, const std::string& sentence) {
  log(LogLevel::kError, component, sentence);
}

// Sends KJ's log messages of this thread to the log while it lives. On the stack only.
class KjLogScope final : public kj::ExceptionCallback {
 public:
  explicit KjLogScope(const std::string& level);
  void logMessage(kj::LogSeverity severity, const char* file, int line, int contextDepth,
                  kj::String&& text) override;
};

}  // namespace packmoor::daemon
