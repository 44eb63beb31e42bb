// Logs and states: what is read and written of them, and their words.
#include "protocol_model.h"

#include <algorithm>
#include <cstring>

namespace packmoor::model {

namespace {
constexpr int kBits = 6;
}  // namespace

int logLength(Log log) { return log == 0 ? 0 : (63 - __builtin_clzll(log)) / kBits + 1; }
Log logPrefix(Log log, int length) { return log & ((Log(1) << (kBits * length)) - 1); }
Log logAppend(Log log, int epoch, int value) {
  return log | Log(epoch << 3 | value) << (kBits * logLength(log));
}
int logCommon(Log a, Log b) {
  int shorter = std::min(logLength(a), logLength(b));
  return a == b ? shorter : std::min(shorter, __builtin_ctzll(a ^ b) / kBits);
}
int recordAt(Log log, int index) { return log >> (kBits * (index - 1)) & 63; }
int recordEpoch(Log log, int index) { return recordAt(log, index) >> 3; }

std::string logText(Log log) {
  std::string text = "[";
  for (int i = 1; i <= logLength(log); ++i) {
    int value = log >> (kBits * (i - 1)) & 7;
    text += (i > 1 ? " " : "") + std::to_string(recordEpoch(log, i)) +
            (value == 0 ? ":start" : std::string(":") + char('a' + value - 1));
  }
  return text + "]";
}

State initialState(const Scenario& sc) {
  State s;
  std::memset(&s, 0, sizeof s);
  Log first = logAppend(0, 1, 0);
  for (int n = 0; n < sc.nodes; ++n) {
    if (!(sc.configs[0].members >> n & 1)) continue;
    s.node[n].mem = s.node[n].dur = first;
    s.node[n].promiseMem = s.node[n].promiseDur = 1;
  }
  s.node[0].role = 1;
  s.node[0].phase = kActive;
  s.elog[1] = s.committed = first;
  s.commit[1] = s.epoch = s.lastActive = 1;
  return s;
}

std::string stateText(const Scenario& sc, const State& s) {
  std::string text = "coordinator: epoch " + std::to_string(s.epoch) + ", last active " +
      std::to_string(s.lastActive) + "; acknowledged " + logText(s.committed);
  for (int n = 0; n < sc.nodes; ++n)
    text += std::string("; ") + char('A' + n) + " promise " + std::to_string(s.node[n].promiseMem) +
        " " + logText(s.node[n].mem) +
        (s.node[n].role ? " primary of " + std::to_string(s.node[n].role) : std::string());
  return text;
}

}  // namespace packmoor::model
