// One request of a pushing client, from the advertisement or the first command to the report.
#include "gitlayer/receive_pack.h"

#include "gitlayer/agent.h"
#include "gitlayer/pkt_line.h"
#include "gitlayer/txn_id.h"
#include "keep_alive.h"
#include "large_push.h"
#include "push_verifier.h"
#include "receive_policy.h"
#include "receive_report.h"
#include "ref_printer.h"
#include "ref_rules.h"

#include <kernelio/check.h>
#include <kernelio/co.h>

#include <kj/debug.h>

#include <cstring>

namespace packmoor::gitlayer {

namespace {

constexpr size_t kAdvertisementSliceBytes = 64u << 10;
constexpr size_t kRefsOnLoopMax = 200;   // the state has so few of them in memory
constexpr size_t kFirstPackBufferBytes = 8u << 10;
constexpr unsigned kVerifyAgainMax = 3;
constexpr size_t kVerifyOnLoopCommandsMax = 50;
// Of a push that is not atomic. The primary judges a record on its loop, in some 10 us an update.
constexpr size_t kUpdatesPerRecord = 500;
constexpr const char* kPackTooLarge = "pack exceeds maximum allowed size";
// Of a refused request, what is read and thrown away so that the client gets to the answer.
constexpr uint64_t kDrainBytesMax = 64u << 20;

[[noreturn]] void fail(kj::String sentence) {
  kj::throwFatalException(
      kj::Exception(kj::Exception::Type::FAILED, __FILE__, __LINE__, kj::mv(sentence)));
}

// A body while it is served.
struct Push {
  Push(kj::AsyncInputStream& in, kj::AsyncOutputStream& out, size_t commandsMax)
      : reader(in), writer(out), request(commandsMax) {}

  PktReader reader;
  PktWriter writer;
  ReceiveCommands request;
  std::optional<PackRefusal> refusal;
  std::unique_ptr<LargeReceiver> large;   // of a pack that does not go into the record
  bool sealed = false;
  size_t answered = 0;             // so many commands have their outcome
  bool brought = false;            // a record with the objects took effect
  std::string failure;             // why nothing more can be ordered; empty: it can
  replicator::RecordIndex index;   // of the record, once ordered
};

kj::Array<const kj::byte> cutTo(kj::Array<kj::byte> buffer, size_t bytes) {
  kj::ArrayPtr<const kj::byte> cut = buffer.slice(0, bytes);
  return cut.attach(kj::mv(buffer));
}

// What a worker is given; it may outlive the session.
struct VerifyJob {
  std::shared_ptr<PushedPack> pack;
  std::vector<ReceiveCommand> commands;
  VerifyResult result;

  void run() {
    result = pack->verify(commands);
    // As git has it: a value that cannot be the ref's says that there is none.
    for (auto& command : commands) {
      if (!command.problem.empty() || !command.isDelete()) continue;
      if (pack->view().objects().exists(command.update.oldId)) continue;
      command.update.oldId = {};
      command.warning = "deleting a non-existent ref";
    }
  }
};

class ReceivePackSession final : public GitSession {
 public:
  ReceivePackSession(GitNode& node, GitRequest request, kj::Own<RepositoryView> view,
                     ReceiveCounters& counters)
      : node_(node),
        request_(kj::mv(request)),
        view_(shareView(kj::mv(view))),
        repository_(view_->info().id),
        session_(newSessionId(node.env().random)),
        counters_(counters) {}

  kj::Promise<void> advertise(kj::AsyncOutputStream& out, bool httpBanner) override {
    return advertiseRefs(out, httpBanner);
  }
  kj::Promise<void> serve(kj::AsyncInputStream& in, kj::AsyncOutputStream& out) override {
    return receive(in, out);
  }

 private:
  Co<void> advertiseRefs(kj::AsyncOutputStream& out, bool httpBanner);
  std::string advertisedCapabilities();
  Co<SharedView> freshView();
  const RepositorySettings& settings() { return view_->info().settings; }
  uint64_t packBytesMax(RepositoryView& view);

  Co<void> receive(kj::AsyncInputStream& in, kj::AsyncOutputStream& out);
  Co<bool> readCommands(Push& push);
  Co<void> drain(Push& push);
  Co<void> processAlive(Push& push);
  kj::Promise<void> keepAlive(Push& push);
  Co<void> process(Push& push);
  Co<std::shared_ptr<PushedPack>> readPack(Push& push);
  Co<std::shared_ptr<PushedPack>> readLarge(Push& push, kj::Array<const kj::byte> begun);
  Co<std::shared_ptr<VerifyJob>> verifyOnce(Push& push, std::shared_ptr<PushedPack> pack);
  Co<std::vector<ReceiveCommand>> verify(Push& push, std::shared_ptr<PushedPack>& pack);
  Co<void> order(Push& push, std::shared_ptr<PushedPack> pack);
  Co<bool> orderAll(Push& push, std::shared_ptr<PushedPack> pack, std::vector<ReceiveCommand*> left);
  Co<PushOutcome> orderOnce(Push& push, PushedPack& pack, const std::vector<ReceiveCommand*>& left);
  void takeOutcome(Push& push, const std::vector<ReceiveCommand*>& left,
                   const PushOutcome& outcome);
  std::string durableNotice(const Push& push);

  GitNode& node_;
  GitRequest request_;
  SharedView view_;
  RepositoryId repository_;
  const std::string session_;
  ReceiveCounters& counters_;
};

Co<SharedView> ReceivePackSession::freshView() {
  auto finding = node_.view(request_.repository, true);
  auto view = co_await kj::mv(finding);
  KJ_IF_MAYBE(found, view) {
    if ((*found)->info().id == repository_) co_return shareView(kj::mv(*found));
    fail(kj::str("another repository has the name meanwhile: push again"));
  }
  const std::string text = node_.formerText(request_.repository).value_or("the repository was deleted meanwhile");
  fail(kj::str(text.c_str()));
}

Co<void> ReceivePackSession::advertiseRefs(kj::AsyncOutputStream& out, bool httpBanner) {
  if (!request_.advertise) view_ = co_await freshView();  // else it was opened so
  PktWriter writer(out);
  if (httpBanner) {
    writer.line("# service=git-receive-pack");
    writer.flush();
  }
  if (request_.protocolVersion == 1) writer.line("version 1");
  auto printer = std::make_shared<RefPrinter>(*view_, GitService::kReceivePack, advertisedCapabilities());
  if (view_->statistics().refs <= kRefsOnLoopMax) {
    std::string refs;
    while (printer->print(refs, kAdvertisementSliceBytes)) {
    }
    writer.raw(kj::StringPtr(refs.c_str(), refs.size()).asBytes());
  } else {
    auto sending = sendRefs(node_.env(), std::move(printer), view_, writer);
    co_await kj::mv(sending);
  }
  writer.flush();
  co_await writer.send();
}

// In git's order.
std::string ReceivePackSession::advertisedCapabilities() {
  std::string result =
      "report-status report-status-v2 delete-refs side-band-64k quiet atomic ofs-delta ";
  if (settings().advertisePushOptions) result += "push-options ";
  result += "session-id=" + session_;
  return result.append(" object-format=sha1 agent=").append(kAgent);
}

// What the repository takes of one push, and this node.
uint64_t ReceivePackSession::packBytesMax(RepositoryView& view) {
  const uint64_t set = view.info().settings.maxInputBytes, own = node_.options().packBytesMax;
  return set == 0 ? own : kj::min(set, own);
}

// False: the request is refused.
Co<bool> ReceivePackSession::readCommands(Push& push) {
  for (;;) {
    Pkt pkt = co_await push.reader.read();
    if (pkt.kind == PktKind::kFlush) break;
    if (pkt.kind == PktKind::kEnd && push.request.empty()) co_return true;
    if (pkt.kind != PktKind::kData) fail(kj::str("the list of commands does not end in a flush"));
    if (!push.request.add(pkt.line())) co_return false;
  }
  if (!push.request.capabilities().pushOptions || push.request.empty()) co_return true;
  for (;;) {
    Pkt pkt = co_await push.reader.read();
    if (pkt.kind == PktKind::kFlush) break;
    if (pkt.kind != PktKind::kData) fail(kj::str("the push options do not end in a flush"));
    if (!push.request.addPushOption(pkt.line())) co_return false;
  }
  // They were not asked for; as git does, they are passed over.
  if (!settings().advertisePushOptions) push.request.pushOptions().clear();
  co_return true;
}

Co<void> ReceivePackSession::drain(Push& push) {
  // A stateful client sends a pack or nothing, and then waits.
  if (request_.stateful && !push.request.wantsPack()) co_return;
  auto buffer = kj::heapArray<kj::byte>(32u << 10);
  for (uint64_t drained = 0; drained < kDrainBytesMax;) {
    size_t got = co_await push.reader.readRaw(buffer);
    if (got == 0) co_return;
    drained += got;
  }
}

Co<void> ReceivePackSession::receive(kj::AsyncInputStream& in, kj::AsyncOutputStream& out) {
  size_t commandsMax = node_.options().commandsMax;
  if (settings().commandsMax > 0) commandsMax = kj::min(commandsMax, settings().commandsMax);
  Push push(in, out, commandsMax);
  if (request_.stateful) push.reader.endRawWithPack();
  bool good = false;
  std::string unreadable;  // why the request is no list of commands
  try {
    good = co_await readCommands(push);
  } catch (kj::Exception& exception) {
    if (exception.getType() != kj::Exception::Type::FAILED) throw;
    unreadable = exception.getDescription().cStr();
  }
  if (!good) {
    ++counters_.pushesRefused;
    co_await drain(push);
    writeRefusal(push.writer, push.request.capabilities(),
                 unreadable.empty() ? push.request.refusal() : unreadable);
    co_await push.writer.send();
    co_return;
  }
  if (push.request.empty()) co_return;  // how git's HTTP client asks whether it may post at all
  logSession("push", push.request.capabilities().session, session_, request_);
  kj::Maybe<kj::Exception> failed;
  try {
    co_await processAlive(push);
  } catch (kj::Exception& exception) {
    // Either the client is gone, or this node failed and the client is told.
    if (exception.getType() == kj::Exception::Type::DISCONNECTED) throw;
    failed = kj::mv(exception);
  }
  KJ_IF_MAYBE(exception, failed) {
    KJ_LOG(WARNING, "A push could not be taken.", request_.requestId, request_.repository,
           push.request.capabilities().session, exception->getDescription());
    push.refusal = PackRefusal{exception->getDescription().cStr(), {}};
  }
  ++(push.index.value > 0 ? counters_.pushes : counters_.pushesRefused);
  if (push.refusal) co_await drain(push);
  std::string notice = durableNotice(push);
  writeReport(push.writer, Report{push.request, push.refusal, notice});
  co_await push.writer.send();
}

// With side-band the client hears something while its push is indexed, sealed and ordered.
Co<void> ReceivePackSession::processAlive(Push& push) {
  auto processing = process(push);
  if (!push.request.capabilities().sideBand) {
    co_await kj::mv(processing);
    co_return;
  }
  auto waiting = waitAlive(node_.env().timer, settings().receiveKeepAlive * kj::SECONDS, kj::mv(processing),
                           [this, &push]() { return keepAlive(push); });
  co_await kj::mv(waiting);
}

// While the pack comes in, it is for the client to go on.
kj::Promise<void> ReceivePackSession::keepAlive(Push& push) {
  if (!push.reader.ended()) return kj::READY_NOW;
  push.writer.raw(kj::StringPtr(kKeepalivePacket.data(), kKeepalivePacket.size()).asBytes());
  return push.writer.send();
}

Co<void> ReceivePackSession::process(Push& push) {
  std::shared_ptr<PushedPack> pack;
  if (push.request.wantsPack()) {
    pack = co_await readPack(push);
  } else {
    pack = std::make_shared<SmallPush>(nullptr, view_);
  }
  if (push.refusal) co_return;
  pack->setShallow(push.request.shallow());
  auto ordering = order(push, kj::mv(pack));
  co_await kj::mv(ordering);
}

// Up to inlinePackBytesMax in memory, else through extents.
Co<std::shared_ptr<PushedPack>> ReceivePackSession::readPack(Push& push) {
  size_t bytesMax = node_.options().inlinePackBytesMax;
  auto buffer = kj::heapArray<kj::byte>(kj::min(kFirstPackBufferBytes, bytesMax + 1));
  size_t filled = 0;
  for (;;) {
    auto reading = push.reader.readRaw(buffer.slice(filled, buffer.size()));
    size_t got = co_await kj::mv(reading);
    if (got == 0) break;
    filled += got;
    if (filled > bytesMax) {
      auto receiving = readLarge(push, cutTo(kj::mv(buffer), filled));
      auto large = co_await kj::mv(receiving);
      co_return large;
    }
    if (filled == buffer.size()) {
      auto larger = kj::heapArray<kj::byte>(kj::min(buffer.size() * 4, bytesMax + 1));
      memcpy(larger.begin(), buffer.begin(), filled);
      buffer = kj::mv(larger);
    }
  }
  if (filled == 0) push.refusal = PackRefusal{"eof before pack header was fully read", {}};
  co_return std::make_shared<SmallPush>(cutTo(kj::mv(buffer), filled), view_);
}

Co<std::shared_ptr<PushedPack>> ReceivePackSession::readLarge(Push& push,
                                                              kj::Array<const kj::byte> begun) {
  auto freshView = [this]() { return kj::Promise<SharedView>(this->freshView()); };
  push.large =
      std::make_unique<LargeReceiver>(node_, repository_, packBytesMax(*view_), freshView);
  auto receiving = push.large->receive(push.reader, kj::mv(begun), view_);
  auto large = co_await kj::mv(receiving);
  if (large->indexer.refused()) push.refusal = indexPackRefusal(large->indexer.problem());
  co_return large;
}

Co<std::shared_ptr<VerifyJob>> ReceivePackSession::verifyOnce(Push& push,
                                                              std::shared_ptr<PushedPack> pack) {
  auto job = std::make_shared<VerifyJob>();
  job->pack = std::move(pack);
  job->commands = push.request.commands();
  // Whether a branch moves forward may take a long walk, where it must be known.
  if (job->pack->bytesToVerify() <= kVerifyOnLoopBytesMax &&
      job->commands.size() <= kVerifyOnLoopCommandsMax &&
      !job->pack->view().info().settings.denyNonFastForwards) {
    job->run();
  } else {
    auto verifying = node_.env().workers.run(
        [job]() { job->run(); });
    co_await kj::mv(verifying);
  }
  co_return job;
}

// What is missing in the view may be there by now: then once more with a fresh one.
Co<std::vector<ReceiveCommand>> ReceivePackSession::verify(Push& push,
                                                           std::shared_ptr<PushedPack>& pack) {
  if (pack->bytesToVerify() > packBytesMax(pack->view())) {
    push.refusal = indexPackRefusal(kPackTooLarge);
    co_return push.request.commands();
  }
  auto verifying = verifyOnce(push, pack);
  auto job = co_await kj::mv(verifying);
  if (job->result.mayBeOld) {
    SharedView fresh = co_await freshView();
    pack->setView(std::move(fresh));
    auto anew = verifyOnce(push, pack);
    job = co_await kj::mv(anew);
  }
  if (job->result.tooLarge) {
    auto receiving = readLarge(push, job->pack->releasePack());
    pack = co_await kj::mv(receiving);
    pack->setShallow(push.request.shallow());
    if (push.refusal) co_return push.request.commands();
    auto anew = verifyOnce(push, pack);
    job = co_await kj::mv(anew);
  }
  push.refusal = std::move(job->result.refusal);
  co_return std::move(job->commands);
}

// The commands that are left to order.
std::vector<ReceiveCommand*> leftToOrder(std::vector<ReceiveCommand>& commands, size_t answered) {
  std::vector<ReceiveCommand*> left;
  for (size_t i = answered; i < commands.size(); ++i) {
    if (commands[i].problem.empty()) left.push_back(&commands[i]);
  }
  return left;
}

// What is answered stays so; why the pack is refused now is a problem of the rest.
void keepAnswered(Push& push, const std::vector<ReceiveCommand>& before) {
  if (push.answered == 0) return;
  auto& commands = push.request.commands();
  std::copy(before.begin(), before.begin() + push.answered, commands.begin());
  if (!push.refusal) return;
  for (size_t i = push.answered; i < commands.size(); ++i) commands[i].problem = push.refusal->reason;
  push.refusal.reset();
}

Co<void> ReceivePackSession::order(Push& push, std::shared_ptr<PushedPack> pack) {
  const std::vector<ReceiveCommand> parsed = push.request.commands();
  for (unsigned attempt = 0;; ++attempt) {
    const auto before = std::move(push.request.commands());
    push.request.commands() = parsed;
    auto verifying = verify(push, pack);
    auto verified = co_await kj::mv(verifying);
    push.request.commands() = std::move(verified);
    keepAnswered(push, before);
    if (push.refusal) co_return;
    if (push.request.capabilities().atomic) refuseAtomic(push.request.commands());
    auto left = leftToOrder(push.request.commands(), push.answered);
    if (left.empty()) co_return;
    if (push.large != nullptr && !push.sealed && pack->connected()) {
      co_await push.large->seal();
      push.sealed = true;
    }
    auto ordering = orderAll(push, pack, left);
    auto ordered = co_await kj::mv(ordering);
    if (ordered) co_return;
    // Objects were pruned (rule 21) or settings changed after the view that was verified against.
    if (attempt == kVerifyAgainMax) {
      for (auto* command : leftToOrder(push.request.commands(), push.answered)) {
        command->problem = "the repository was pruned or set otherwise meanwhile, try again";
      }
      co_return;
    }
    SharedView fresh = co_await freshView();
    pack->setView(std::move(fresh));
  }
}

// In one record, or, where each ref stands for itself, in several: nothing else runs on the primary's loop
// while it judges one. Objects go with each until one of them takes effect. False: verify again.
Co<bool> ReceivePackSession::orderAll(Push& push, std::shared_ptr<PushedPack> pack,
                                      std::vector<ReceiveCommand*> left) {
  const size_t each = push.request.capabilities().atomic ? left.size() : kUpdatesPerRecord;
  push.brought = false;
  for (size_t at = 0; at < left.size(); at += each) {
    const std::vector<ReceiveCommand*> some(left.begin() + at, left.begin() + std::min(at + each, left.size()));
    auto ordering = orderOnce(push, *pack, some);
    auto outcome = co_await kj::mv(ordering);
    if (outcome.verifyAgain) co_return false;
    takeOutcome(push, some, outcome);
    push.answered = some.back() - push.request.commands().data() + 1;
  }
  co_return true;
}

// An outcome in any case: what could not be ordered is a problem of each ref.
Co<PushOutcome> ReceivePackSession::orderOnce(Push& push, PushedPack& pack,
                                              const std::vector<ReceiveCommand*>& left) {
  PushOutcome outcome;
  outcome.refs.resize(left.size());
  if (!push.failure.empty()) {
    for (auto& ref : outcome.refs) ref.problem = push.failure;
    co_return outcome;
  }
  PushTransaction transaction;
  transaction.verifiedAt = pack.view().index();
  transaction.txn = makeTxnId(node_.env().random, transaction.verifiedAt);
  transaction.updates.reserve(left.size());
  for (const auto* command : left) transaction.updates.push_back(command->update);
  if (!push.brought) pack.addTo(transaction);
  transaction.atomic = push.request.capabilities().atomic;
  transaction.principal = request_.principal;
  transaction.client = request_.client;
  transaction.pushOptions = push.request.pushOptions();
  try {
    auto ordering = node_.push(repository_, kj::mv(transaction));
    outcome = co_await kj::mv(ordering);
  } catch (kj::Exception& exception) {
    push.failure = exception.getDescription().cStr();
    for (auto& ref : outcome.refs) ref.problem = push.failure;
  }
  co_return outcome;
}

void ReceivePackSession::takeOutcome(Push& push, const std::vector<ReceiveCommand*>& left,
                                     const PushOutcome& outcome) {
  PACKMOOR_CHECK(outcome.refs.size() == left.size(), "a push's outcome", outcome.refs.size(),
                 left.size());
  for (size_t i = 0; i < left.size(); ++i) {
    left[i]->problem = outcome.refs[i].problem;
    left[i]->detail = outcome.refs[i].detail;
    if (!left[i]->problem.empty()) left[i]->warning.clear();
    if (!left[i]->problem.empty()) continue;
    push.index = outcome.index;
    push.brought = true;
  }
}

std::string ReceivePackSession::durableNotice(const Push& push) {
  if (push.index.value == 0 || push.request.capabilities().quiet) return {};
  KJ_IF_MAYBE(volume, node_.volumeOf(repository_)) {
    auto status = volume->status();
    size_t counted = 0;
    for (const auto& member : status.members) counted += member.counted;
    // What a later read may ask for: Packmoor-Read: at-least=VOLUME:INDEX.
    return kj::str("Packmoor: durable on ", status.writeQuorum, " of ", counted, " members at ",
                   volume->name().c_str(), ":", push.index).cStr();
  }
  return kj::str("Packmoor: durable at index ", push.index).cStr();
}

}  // namespace

kj::Own<GitSession> makeReceivePackSession(GitNode& node, GitRequest request,
                                           kj::Own<RepositoryView> view,
                                           ReceiveCounters& counters) {
  return kj::heap<ReceivePackSession>(node, kj::mv(request), kj::mv(view), counters);
}

}  // namespace packmoor::gitlayer
