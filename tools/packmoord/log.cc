#include "log.h"

#include <rpc/sentence.h>

#include <kj/debug.h>

#include <spdlog/sinks/stdout_sinks.h>
#include <spdlog/spdlog.h>

#include <algorithm>
#include <cstring>

namespace packmoor::daemon {
namespace {

spdlog::level::level_enum spdLevel(LogLevel level) {
  switch (level) {
    case LogLevel::kDebug: return spdlog::level::debug;
    case LogLevel::kInfo: return spdlog::level::info;
    case LogLevel::kWarning: return spdlog::level::warn;
    case LogLevel::kError: return spdlog::level::err;
  }
  return spdlog::level::info;
}

// The file's name without its end: KJ has cut the folders off already.
std::string componentOf(const char* file) {
  std::string name = file;
  name.erase(0, name.rfind('/') + 1);
  name.erase(std::min(name.rfind('.'), name.size()));
  return name;
}

}  // namespace

void startLog(const std::string& level) {
  auto logger = spdlog::stderr_logger_mt("packmoord");
  logger->set_pattern("%Y-%m-%dT%H:%M:%S.%eZ %l %v", spdlog::pattern_time_type::utc);
  logger->set_level(spdlog::level::from_str(level));
  logger->flush_on(spdlog::level::trace);
  spdlog::set_default_logger(logger);
}

void log(LogLevel level, const char* component, const std::string& sentence) {
  std::string line = sentence;
  while (!line.empty() && line.back() == '\n') line.pop_back();
  for (char& c : line) {
    if (static_cast<unsigned char>(c) < 0x20) c = ' ';
  }
  spdlog::default_logger_raw()->log(spdLevel(level), "{}: {}", component, line);
}

KjLogScope::KjLogScope(const std::string& level) {
  if (level == "trace" || level == "debug") kj::_::Debug::setLogLevel(kj::LogSeverity::DBG);
  else if (level == "info") kj::_::Debug::setLogLevel(kj::LogSeverity::INFO);
}

void KjLogScope::logMessage(kj::LogSeverity severity, const char* file, int line, int contextDepth,
                            kj::String&& text) {
  // Cap'n Proto tells of every call that its caller will hear of anyway.
  if (severity == kj::LogSeverity::INFO && std::strstr(file, "capnp/") != nullptr) return;
  LogLevel level = LogLevel::kDebug;
  switch (severity) {
    case kj::LogSeverity::INFO: level = LogLevel::kInfo; break;
    case kj::LogSeverity::WARNING: level = LogLevel::kWarning; break;
    case kj::LogSeverity::ERROR:
    case kj::LogSeverity::FATAL: level = LogLevel::kError; break;
    default: break;
  }
  log(level, componentOf(file).c_str(), rpc::sentenceOf(std::string(text.begin(), text.size())));
}

}  // namespace packmoor::daemon
