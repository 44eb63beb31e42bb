#include "protocol_model.h"

#include <algorithm>
#include <cstring>

namespace packmoor::model {

namespace {

constexpr Log kReported = Log(1) << 63;

// One expansion: every enabled step of one state.
class Steps {
 public:
  Steps(const Scenario& sc, const State& s, bool wantText, const Sink& sink)
      : sc_(sc), r_(sc.rules), s_(s), wantText_(wantText), sink_(sink) {}

  void all() {
    for (int n = 0; n < sc_.nodes; ++n) {
      if (sc_.frozen >> n & 1) continue;
      takeover(n); promise(n); sync(n); crash(n); reportOwn(n); adopt(n); propose(n);
      append(n); activate(n); commit(n); rot(n); repair(n);
    }
    rollback();
  }

 private:
  const Scenario& sc_; const Rules& r_; const State& s_; bool wantText_; const Sink& sink_;

  bool member(int config, int n) const { return sc_.configs[config].members >> n & 1; }
  static bool durable(const Node& a) { return a.mem == a.dur && a.promiseMem == a.promiseDur; }
  int holder(const State& s, int e) const {
    for (int n = 0; n < sc_.nodes; ++n) if (s.node[n].role == e) return n;
    return kNoNode;
  }

  template <typename Words>
  void emit(State& t, const Words& words, const char* broken = nullptr) {
    for (int n = 0; n < sc_.nodes; ++n) {
      Node& a = t.node[n];
      if (!sc_.syncAtOnce && (sc_.lazySync || a.role != 0)) continue;
      a.dur = a.mem;
      a.promiseDur = a.promiseMem;
    }
    for (int n = 0; n < sc_.nodes; ++n) {
      acknowledge(t, n);
      if (t.node[n].role == 0) report(t, n);
    }
    if (broken == nullptr) broken = check(t);
    forgetUnused(t);
    sink_(t, broken, wantText_ ? words() : std::string());
  }

  // A higher promise ends a lower role.
  void raise(State& t, int n, int e) const {
    Node& a = t.node[n];
    if (a.promiseMem >= e) return;
    a.promiseMem = e;
    if (a.role != 0 && a.role < e && !r_.deposedCounts) a.role = a.phase = 0;
    if (a.repair == kRefilling) { a.repair = kPromised; a.repairTarget = 0; }
  }

  static std::string at(int n) { return std::string("node ") + char('A' + n); }

  // --- coordinator --------------------------------------------------------------------
  void takeover(int n) {
    if (s_.epoch >= sc_.epochs || unproven(s_, n)) return;
    for (int c = 0; c < 2 * int(sc_.configs.size()); ++c) {
      // Where no other copy is whole, an order may take a damaged one as it is.
      bool alone = sc_.configs[c / 2].members == 1 << n && c % 2 == 1;
      if (s_.node[n].repair == kWhole || (alone && s_.node[n].repair == kPromised))
        takeover(n, c / 2, c % 2 == 1);
    }
  }

  void takeover(int n, int c, bool accepts) {
    if (!member(c, n) || (accepts && s_.losses >= sc_.losses)) return;
    State t = s_;
    int e = ++t.epoch;
    t.config[e] = c; t.base[e] = t.lastActive; t.primary[e] = n; t.elog[e] = 0; t.commit[e] = 0;
    for (int m = 0; m < kNodesMax; ++m) t.report[e][m] = t.ack[e][m] = 0;
    raise(t, n, e);
    t.node[n].role = e; t.node[n].phase = kFencing;
    t.accepts[e] = accepts ? sc_.configs[c].members : 0;
    t.losses += accepts;
    emit(t, [&] { return at(n) + " takes epoch " + std::to_string(e) + " with " + configText(c) +
        (accepts ? ", to accept the loss of the others" : ""); });
  }

  // A member that an accepted loss left out, and that holds nothing of what came after.
  bool unproven(const State& t, int n) const {
    if (r_.lossCountsUnproven) return false;
    int length = logLength(t.node[n].mem);
    int last = length == 0 ? 0 : recordEpoch(t.node[n].mem, length);
    for (int e = 2; e <= sc_.epochs; ++e)
      if ((t.accepts[e] & kStored) && !(t.accepts[e] >> n & 1) && last < e) return true;
    return false;
  }

  // All that are kept have reported: the coordinator makes them what is fenced from now on.
  void acceptLoss(int n, int have) {
    int e = s_.node[n].role;
    int kept = sc_.configs[s_.config[e]].members;
    if ((s_.epoch != e && !r_.lossOrderStale) || (have & kept) != kept) return;
    State t = s_;
    t.accepts[e] |= kStored;
    t.lastActive = e;
    for (int m = 0; m < sc_.nodes; ++m)
      if ((kept >> m & 1) && t.node[m].repair != kWhole) {
        t.node[m].repair = kWhole;
        t.node[m].repairTarget = 0;
      }
    const char* broken = cut(t, e, newest(e, kept));
    emit(t, [&] { return std::string("the coordinator stores that epoch ") + std::to_string(e) +
        " goes on with what " + configText(s_.config[e]) + " has"; }, broken);
  }

  Log newest(int e, int set) const {
    Log log = 0;
    for (int m = 0; m < sc_.nodes; ++m)
      if ((set >> m & 1) && better(s_.report[e][m] & ~kReported, log))
        log = s_.report[e][m] & ~kReported;
    return log;
  }

  // What the order gives up is no more committed, and is not to be seen again.
  const char* cut(State& t, int e, Log target) const {
    const char* broken = nullptr;
    if (t.lost != 0 && logCommon(target, t.lost) > t.lostFrom)
      broken = "a record that was given up as lost is back";
    int common = logCommon(t.committed, target);
    for (int i = common + 1; i <= logLength(t.committed); ++i)
      if (recordEpoch(t.committed, i) > e)
        broken = "what was committed after the order was given up by it";
    if (common < logLength(t.committed)) {
      t.lost = t.committed;
      t.lostFrom = common;
      t.committed = logPrefix(t.committed, common);
    }
    t.lastLoss = e;
    return broken;
  }

  void rollback() {
    if (!r_.reuseOfRestoredCoordinator || s_.rollbacks != 0 || s_.lastActive < 2) return;
    for (int e = 2; e <= sc_.epochs; ++e) if (holder(s_, e) != kNoNode) return;
    State t = s_;
    t.rollbacks = 1; t.epoch = 1; t.lastActive = 1;
    emit(t, [&] { return std::string("the coordinator is restored from a backup of epoch 1"); });
  }

  // --- members ------------------------------------------------------------------------
  void promise(int n) {
    if (s_.node[n].repair == kLost) return;
    for (int e = s_.node[n].promiseMem + 1; e <= s_.epoch; ++e) {
      State t = s_;
      raise(t, n, e);
      emit(t, [&] { return at(n) + " promises epoch " + std::to_string(e); });
    }
  }

  void sync(int n) {
    if (durable(s_.node[n])) return;
    State t = s_;
    t.node[n].dur = t.node[n].mem; t.node[n].promiseDur = t.node[n].promiseMem;
    emit(t, [&] { return at(n) + " makes its journal durable"; });
  }

  void crash(int n) {
    State t = s_;
    Node& a = t.node[n];
    a.mem = a.dur;
    a.promiseMem = a.promiseDur = r_.forgetPromise ? 0 : a.promiseDur;
    if (a.repair == kRefilling) { a.repair = kPromised; a.repairTarget = 0; }
    if (a.role != 0 && r_.resumeRole && a.phase == kActive) t.elog[a.role] = a.mem;
    else a.role = a.phase = 0;
    if (std::memcmp(&t, &s_, sizeof t) == 0) return;
    emit(t, [&] { return at(n) + " crashes and restarts with " + logText(a.mem); });
  }

  // What a member tells the recovering primary once its promise is durable. Its log is
  // then fixed until that primary writes, except for the primary's own, which it may
  // report at any point of its adoption.
  bool report(State& t, int n) const {
    const Node& a = t.node[n];
    int e = a.promiseMem;
    int p = e == 0 ? kNoNode : holder(t, e);
    if (p == kNoNode || t.node[p].phase != kFencing || t.report[e][n] != 0) return false;
    if (r_.reportBeforePromiseDurable ? a.mem != a.dur : !durable(a)) return false;
    bool asIs = (t.accepts[e] & 0xf) == 1 << n && a.repair == kPromised;
    if (a.repair != kWhole && !asIs && !r_.repairReports) return false;
    if (unproven(t, n)) return false;
    bool asked = t.accepts[e] >> n & 1;
    for (int x = t.base[e]; x < e && t.accepts[e] == 0; ++x)
      asked |= needed(t, e, x) && member(t.config[x], n);
    if (asked) t.report[e][n] = kReported | a.dur;
    return asked;
  }

  void reportOwn(int n) {
    State t = s_;
    if (s_.node[n].role == 0 || !report(t, n)) return;
    emit(t, [&] { return at(n) + " reports " + logText(s_.node[n].dur) + " to itself"; });
  }

  void append(int n) {
    const Node& a = s_.node[n];
    if (a.repair == kLost) return;
    for (int e = std::max<int>(1, a.promiseMem); e <= sc_.epochs; ++e) {
      if (s_.elog[e] == 0 || s_.primary[e] == n) continue;
      Log sent = s_.elog[e];
      if (!member(s_.config[e], n)) {
        if (!(sc_.async >> n & 1)) continue;
        sent = logPrefix(sent, s_.commit[e]);
      }
      for (int upTo = 1; upTo <= logLength(sent); ++upTo) {
        State t = s_;
        raise(t, n, e);
        Node& b = t.node[n];
        bool matches = logCommon(b.mem, sent) >= upTo;
        if (!matches || r_.truncateOnDuplicate) b.mem = logPrefix(sent, upTo);
        deliver(t, n, e, upTo);
        if (r_.noPrevCheck && upTo >= 2 && logLength(a.mem) >= upTo - 1) {
          State u = s_;  // the last record alone, set behind whatever is there
          raise(u, n, e);
          u.node[n].mem = logPrefix(a.mem, upTo - 1) |
              (logPrefix(sent, upTo) & ~logPrefix(sent, upTo - 1));
          deliver(u, n, e, upTo);
        }
      }
    }
  }
  void deliver(State& t, int n, int e, int upTo) {
    if (std::memcmp(&t, &s_, sizeof t) == 0) return;
    emit(t, [&] { return at(n) + " journals records to index " + std::to_string(upTo) +
        " of epoch " + std::to_string(e) + ", now " + logText(t.node[n].mem); });
  }

  void acknowledge(State& t, int n) const {
    const Node& a = t.node[n];
    int e = a.role != 0 ? a.role : a.promiseMem;
    int p = e == 0 ? kNoNode : holder(t, e);
    if (p == kNoNode || t.node[p].phase < kStarting || a.repair != kWhole) return;
    if (!member(t.config[e], n)) return;
    int verified = verifiedLength(t, n, e);
    int upTo = std::min(verified, logCommon(a.mem, a.dur));
    if (!r_.deposedCounts && a.promiseMem != a.promiseDur) upTo = 0;
    if (r_.ackBeforeDurable) upTo = verified;
    if (r_.ackUnverified && p != n) upTo = logLength(a.dur);
    t.ack[e][n] = std::max<int>(t.ack[e][n], upTo);
  }

  int verifiedLength(const State& t, int n, int e) const {
    if (r_.noPrevCheck) {  // believes the newest record that it holds of the epoch
      for (int i = logLength(t.node[n].mem); i > 0; --i)
        if (i <= logLength(t.elog[e]) && recordAt(t.node[n].mem, i) == recordAt(t.elog[e], i)) return i;
    }
    return logCommon(t.node[n].mem, t.elog[e]);
  }

  // --- primary ------------------------------------------------------------------------
  // Must the recovery of epoch e fence the configuration of epoch x?
  bool needed(const State& t, int e, int x) const {
    return r_.chain ? x >= t.base[e] && x < e : x == t.base[e];
  }

  bool fenced(int e, int set) const {
    if (r_.noFence) return true;
    if (s_.accepts[e] != 0) return (set & s_.accepts[e] & 0xf) == (s_.accepts[e] & 0xf);
    for (int x = s_.base[e]; x < e; ++x) {
      if (!needed(s_, e, x)) continue;
      const Config& c = sc_.configs[s_.config[x]];
      int need = __builtin_popcount(c.members) - c.quorum + (r_.fenceNMinusW ? 0 : 1);
      // An accepted loss that was never active: all whose logs decided it.
      bool served = (s_.accepts[x] & kStored) == 0 || (s_.accepts[x] & kServed) != 0;
      if (!served && !r_.lossFencesQuorum) need = __builtin_popcount(c.members);
      if (__builtin_popcount(set & c.members) < need) return false;
    }
    return true;
  }

  bool better(Log a, Log b) const {
    int la = logLength(a), lb = logLength(b);
    int ea = la == 0 ? 0 : recordEpoch(a, la), eb = lb == 0 ? 0 : recordEpoch(b, lb);
    if (r_.adoptByIndex) return la > lb;
    return ea != eb ? ea > eb : la > lb;
  }

  void adopt(int n) {
    const Node& a = s_.node[n];
    int e = a.role;
    if (a.phase != kFencing) return;
    int have = 0;
    for (int m = 0; m < sc_.nodes; ++m) if (s_.report[e][m] != 0) have |= 1 << m;
    if (s_.accepts[e] != 0 && (s_.accepts[e] & kStored) == 0 && !r_.lossStartsUnstored)
      return acceptLoss(n, have);
    if (s_.accepts[e] != 0 && r_.lossAdoptsOwn) return adoptTowards(n, a.mem);
    Log seen[1 << kNodesMax];
    int seenCount = 0;
    for (int set = have;; set = (set - 1) & have) {  // any quorum among the reports
      if (fenced(e, set)) {
        Log target = r_.noFence ? a.mem : 0;
        for (int m = 0; m < sc_.nodes; ++m)
          if ((set >> m & 1) && better(s_.report[e][m] & ~kReported, target))
            target = s_.report[e][m] & ~kReported;
        if (std::find(seen, seen + seenCount, target) == seen + seenCount) {
          seen[seenCount++] = target;
          adoptTowards(n, target);
        }
      }
      if (set == 0) break;
    }
  }

  void adoptTowards(int n, Log target) {
    State t = s_;
    Node& a = t.node[n];
    int e = a.role;
    if (a.mem == target || r_.startBeforeAdopted) {
      a.mem = t.elog[e] = logAppend(a.mem, e, 0);
      a.phase = kStarting;
      if (r_.acksOfAnyEpoch)
        for (int x = 1; x < e; ++x)
          if (t.primary[x] == n)
            for (int m = 0; m < sc_.nodes; ++m) t.ack[e][m] = std::max(t.ack[e][m], t.ack[x][m]);
      emit(t, [&] { return at(n) + " appends EpochStart, now " + logText(a.mem); });
      if (a.mem != logAppend(target, e, 0)) { t = s_; } else return;
    }
    int common = logCommon(a.mem, target);
    a.mem = logLength(a.mem) > common ? logPrefix(a.mem, common) : logPrefix(target, common + 1);
    emit(t, [&] { return at(n) + " adopts, now " + logText(a.mem); });
  }

  void propose(int n) {
    if (s_.node[n].phase != kActive || s_.proposals >= sc_.values) return;
    State t = s_;
    Node& a = t.node[n];
    a.mem = t.elog[a.role] = logAppend(t.elog[a.role], a.role, ++t.proposals);
    emit(t, [&] { return at(n) + " proposes, now " + logText(a.mem); });
  }

  bool counted(int e, int index) const {
    const Config& c = sc_.configs[s_.config[e]];
    int copies = 0;
    for (int m = 0; m < sc_.nodes; ++m)
      if ((c.members >> m & 1) && s_.ack[e][m] >= index) ++copies;
    return copies >= c.quorum;
  }

  int startIndex(int e) const {
    for (int i = 1; i <= logLength(s_.elog[e]); ++i)
      if (recordEpoch(s_.elog[e], i) == e) return i;
    return 0;
  }

  void activate(int n) {
    int e = s_.node[n].role;
    if (s_.node[n].phase != kStarting || s_.epoch != e) return;
    if (!counted(e, startIndex(e) - (r_.startQuorumShort ? 1 : 0))) return;
    State t = s_;
    for (int x = t.lastActive + 1; x < e; ++x) if (t.config[x] == 1) t.goal = 1;
    t.lastActive = e;
    t.node[n].phase = kActive;
    const char* broken = nullptr;
    if (t.accepts[e] != 0) {
      if (r_.lossStartsUnstored) broken = cut(t, e, t.elog[e]);
      t.accepts[e] |= kStored | kServed;
    }
    if (broken == nullptr) broken = acknowledgeClients(t, e, startIndex(e));
    emit(t, [&] { return at(n) + " activates epoch " + std::to_string(e); }, broken);
  }

  void commit(int n) {
    int e = s_.node[n].role;
    bool may = s_.node[n].phase == kActive ||
        (s_.node[n].phase == kStarting && (r_.serveBeforeActive || r_.countOlderEpochs));
    if (!may) return;
    for (int i = s_.commit[e] + 1; i <= logLength(s_.elog[e]); ++i) {
      if (recordEpoch(s_.elog[e], i) != e && !r_.countOlderEpochs) continue;
      if (recordEpoch(s_.elog[e], i) == e && s_.node[n].phase == kStarting && !r_.serveBeforeActive) continue;
      if (!counted(e, i)) continue;
      State t = s_;
      const char* broken = acknowledgeClients(t, e, i);
      emit(t, [&] { return at(n) + " commits index " + std::to_string(i) + " of " +
          logText(s_.elog[e]) + " in epoch " + std::to_string(e); }, broken);
    }
  }

  const char* acknowledgeClients(State& t, int e, int index) const {
    Log now = logPrefix(t.elog[e], index);
    t.commit[e] = std::max<int>(t.commit[e], index);
    if (e < t.lastLoss) return nullptr;  // it has none but members that were left out
    int common = logCommon(now, t.committed);
    if (common < std::min(index, logLength(t.committed)))
      return "a committed record was lost or replaced";
    if (index > logLength(t.committed)) t.committed = now;
    return nullptr;
  }

  // --- rot and repair -----------------------------------------------------------------
  void rot(int n) {
    if (s_.rots >= sc_.rots || s_.node[n].repair != kWhole) return;
    for (int keep = 0; keep < logLength(s_.node[n].dur) || keep == 0; ++keep) {
      State t = s_;
      Node& a = t.node[n];
      ++t.rots;
      a.mem = a.dur = logPrefix(a.dur, keep);
      a.promiseMem = a.promiseDur = a.role = a.phase = 0;
      a.repair = kLost;
      emit(t, [&] { return at(n) + " rots to " + logText(a.mem) + ", its promise forgotten"; });
    }
  }

  void repair(int n) {
    State t = s_;
    Node& a = t.node[n];
    if (a.repair == kLost) {
      a.repair = kPromised;
      a.promiseMem = a.promiseDur = r_.repairForgetsPromise ? 1 : s_.epoch;
      emit(t, [&] { return at(n) + " in repair promises epoch " + std::to_string(a.promiseDur); });
    } else if (a.repair == kPromised) {
      int p = holder(s_, a.promiseMem);
      if (p == kNoNode || p == n || s_.node[p].phase != kActive) return;
      if (!member(s_.config[a.promiseMem], n)) return;
      a.repair = kRefilling;
      a.repairTarget = r_.repairToCommitted ? s_.commit[a.promiseMem] : logLength(s_.elog[a.promiseMem]);
      emit(t, [&] { return at(n) + " is told to refill to " + std::to_string(a.repairTarget); });
    } else if (a.repair == kRefilling && durable(a) &&
               logCommon(a.mem, s_.elog[a.promiseMem]) >= a.repairTarget) {
      a.repair = kWhole; a.repairTarget = 0;
      emit(t, [&] { return at(n) + " is whole again"; });
    }
  }

  // --- properties ---------------------------------------------------------------------
  const char* check(const State& t) const {
    for (int n = 0; n < sc_.nodes; ++n) {
      const Node& a = t.node[n];
      if (a.promiseMem != 0 && a.promiseMem >= t.lastLoss && t.commit[a.promiseMem] != 0) {
        int e = a.promiseMem;
        int known = r_.applyUnverified ? logLength(a.mem) : verifiedLength(t, n, e);
        int applied = std::min<int>(known, t.commit[e]);
        if (logPrefix(a.mem, applied) != logPrefix(t.committed, applied))
          return "a member applies a record that is not the committed one";
      }
      if (a.phase == kActive && a.role >= t.lastLoss && t.commit[a.role] < logLength(t.committed) && confirmable(t, a.role))
        return "a stale read is confirmed";
    }
    return nullptr;
  }

  bool confirmable(const State& t, int e) const {
    const Config& c = sc_.configs[t.config[e]];
    int follow = 0;
    for (int m = 0; m < sc_.nodes; ++m)
      if (c.members >> m & 1)
        follow += r_.confirmOldAcks || (t.node[m].promiseMem <= e && t.node[m].repair == kWhole);
    return r_.noConfirm || follow >= c.quorum - (r_.confirmFewer ? 1 : 0);
  }

  // Clears what no step can read any more, so that equal futures are equal states.
  void forgetUnused(State& t) const {
    for (int e = 1; e <= sc_.epochs; ++e) {
      int p = holder(t, e);
      if (p == kNoNode && (t.accepts[e] & kStored) == 0) t.accepts[e] = 0;
      if (p == kNoNode || t.node[p].phase != kFencing)
        for (int m = 0; m < kNodesMax; ++m) t.report[e][m] = 0;
      if ((p == kNoNode || t.node[p].phase < kStarting) && !r_.acksOfAnyEpoch)
        for (int m = 0; m < kNodesMax; ++m) t.ack[e][m] = 0;
      if (p != kNoNode || r_.forgetPromise || e >= t.epoch) continue;
      bool heard = false;  // a member may still receive what this epoch's primary sent
      for (int n = 0; n < sc_.nodes; ++n)
        heard |= t.node[n].repair == kLost || std::min(t.node[n].promiseMem, t.node[n].promiseDur) <= e;
      if (heard) continue;
      t.elog[e] = t.commit[e] = t.base[e] = 0;
      if (!r_.acksOfAnyEpoch) t.primary[e] = 0;
      bool fencedLater = e >= t.lastActive;
      for (int n = 0; n < sc_.nodes; ++n) {
        const Node& a = t.node[n];
        fencedLater |= a.phase == kFencing && t.base[a.role] <= e && e < a.role;
      }
      if (!fencedLater) t.config[e] = 0;
    }
  }

  std::string configText(int c) const {
    std::string text = "{";
    for (int n = 0; n < sc_.nodes; ++n) if (member(c, n)) text += char('A' + n);
    return text + "} W=" + std::to_string(sc_.configs[c].quorum);
  }
};

}  // namespace

void forEachSuccessor(const Scenario& sc, const State& s, bool wantText, const Sink& sink) {
  Steps(sc, s, wantText, sink).all();
}

}  // namespace packmoor::model
