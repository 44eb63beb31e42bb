// What packmoorctl prints: tables and sentences for people, JSON for programs.
//
// JSON has the fields of rpc/schema/control*.proto under their names, always all of them, with
// integers as integers and an absent message as null. It is one document on standard output.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

namespace google::protobuf {
class Message;
}

namespace packmoor::ctl {

// Exit codes, as documented in the help text.
enum ExitCode : int {
  kDone = 0,
  kRefused = 1,
  kUsage = 2,
  kUnreachable = 3,
  kDenied = 4,
  kNoQuorum = 5,
  kUnknownOutcome = 6,
};

class Table {
 public:
  // A heading that starts with '>' makes its column right-aligned.
  explicit Table(std::vector<std::string> headings);
  void row(std::vector<std::string> cells);
  bool empty() const { return rows_.empty(); }
  std::string text() const;  // with a newline after each row

 private:
  std::vector<std::string> headings_;
  std::vector<bool> right_;
  std::vector<std::vector<std::string>> rows_;
};

std::string bytesText(uint64_t bytes);            // "64 MiB", "1.5 GiB"
std::string countText(uint64_t count);            // "1,234,567"
std::string durationText(int64_t milliseconds);   // "3m 12s"
std::string secondsText(uint64_t milliseconds);   // "0.0", "12.3"
std::string microsText(uint64_t micros);          // "512 us", "2.0 ms"
std::string timeText(int64_t milliseconds);       // "2024-01-31 12:00:00 UTC"
// One line: what could move the cursor or start a new line becomes '?'.
std::string plain(const std::string& text);

std::string jsonText(const google::protobuf::Message& message);

// error: / cause: / try: on standard error; empty parts are left out.
void printError(const std::string& message, const std::string& cause, const std::string& advice);

}  // namespace packmoor::ctl
