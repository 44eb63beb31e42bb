#include "peer_handshake.h"

#include <capnp/message.h>
#include <capnp/serialize-async.h>
#include <kj/compat/tls.h>
#include <kj/debug.h>

#include <kernelio/co.h>

#include "peer_translate.h"

namespace packmoor::rpc {
namespace {

constexpr uint64_t kGreetingWordsMax = 1024;

capnp::ReaderOptions greetingLimits() {
  capnp::ReaderOptions options;
  options.traversalLimitInWords = kGreetingWordsMax;
  return options;
}

kj::Exception refusal(kj::String sentence) {
  return kj::Exception(kj::Exception::Type::FAILED, __FILE__, __LINE__, kj::mv(sentence));
}

// Empty, or why the node that sent `hello` is not taken.
std::string judge(wire::Hello::Reader hello, const PeerIntroduction& self,
                  const replicator::NodeId& certified) {
  auto say = [](auto&&... parts) { return std::string(kj::str(parts...).cStr()); };
  const std::string node = asString(hello.getNode());
  if (node != certified) {
    return say("It says that it is node ", node.c_str(), ", but its certificate is of ",
               certified.c_str(), ".");
  }
  if (asString(hello.getCluster()) != self.cluster) {
    return say("Node ", node.c_str(), " belongs to cluster ", hello.getCluster(), ", node ",
               self.node.c_str(), " to cluster ", self.cluster.c_str(), ".");
  }
  if (asString(hello.getTarget()) != self.node) {
    return say("Node ", node.c_str(), " wants to reach node ", hello.getTarget(),
               ", but this is node ", self.node.c_str(), "; check the addresses.");
  }
  if (node == self.node) return say("Two nodes call themselves ", node.c_str(), ".");
  if (hello.getProtocolMax() < kPeerProtocolMin || hello.getProtocolMin() > kPeerProtocol) {
    return say("Node ", node.c_str(), " (version ", hello.getSoftware(), ") speaks protocol ",
               hello.getProtocolMin(), " to ", hello.getProtocolMax(), ", node ",
               self.node.c_str(), " (version ", self.software.c_str(), ") ", kPeerProtocolMin,
               " to ", kPeerProtocol, "; upgrade the older one.");
  }
  return {};
}

Co<GreetedStream> introduceBody(kj::Own<kj::AsyncIoStream> stream, PeerIntroduction self,
                                replicator::NodeId target, PeerRole role) {
  capnp::MallocMessageBuilder message;
  auto hello = message.initRoot<wire::Hello>();
  hello.setProtocolMin(kPeerProtocolMin);
  hello.setProtocolMax(kPeerProtocol);
  hello.setCluster(asStringPtr(self.cluster));
  hello.setNode(asStringPtr(self.node));
  hello.setTarget(asStringPtr(target));
  hello.setSoftware(asStringPtr(self.software));
  hello.setRole(role == PeerRole::kBulk ? wire::Role::BULK : wire::Role::CONTROL);
  co_await capnp::writeMessage(*stream, message);

  auto answer = co_await capnp::readMessage(*stream, greetingLimits());
  auto reply = answer->getRoot<wire::Welcome>();
  if (reply.getRefusal().size() > 0) {
    kj::throwFatalException(refusal(
        kj::str("node ", target.c_str(), " refuses this node: ", reply.getRefusal())));
  }
  if (asString(reply.getNode()) != target || asString(reply.getCluster()) != self.cluster ||
      reply.getProtocol() < kPeerProtocolMin || reply.getProtocol() > kPeerProtocol) {
    kj::throwFatalException(refusal(
        kj::str("node ", target.c_str(), " answered as node ", reply.getNode(), " of cluster ",
                reply.getCluster(), " with protocol ", reply.getProtocol())));
  }
  GreetedStream greeted{kj::mv(stream), {target, self.cluster, asString(reply.getSoftware())},
                        role};
  co_return kj::mv(greeted);
}

Co<GreetedStream> welcomeBody(kj::Own<kj::AsyncIoStream> stream, PeerIntroduction self,
                              replicator::NodeId certified) {
  auto question = co_await capnp::readMessage(*stream, greetingLimits());
  auto hello = question->getRoot<wire::Hello>();
  std::string reason = judge(hello, self, certified);
  const auto role = hello.getRole();
  if (reason.empty() && role != wire::Role::CONTROL && role != wire::Role::BULK) {
    reason = "The connection is for a purpose that this version does not know.";
  }

  capnp::MallocMessageBuilder message;
  auto reply = message.initRoot<wire::Welcome>();
  reply.setProtocol(std::min(hello.getProtocolMax(), kPeerProtocol));
  reply.setCluster(asStringPtr(self.cluster));
  reply.setNode(asStringPtr(self.node));
  reply.setSoftware(asStringPtr(self.software));
  reply.setRefusal(asStringPtr(reason));
  co_await capnp::writeMessage(*stream, message);
  if (!reason.empty()) kj::throwFatalException(refusal(kj::heapString(reason.c_str())));

  GreetedStream greeted{
      kj::mv(stream),
      {certified, self.cluster, asString(hello.getSoftware())},
      role == wire::Role::BULK ? PeerRole::kBulk : PeerRole::kControl};
  co_return kj::mv(greeted);
}

}  // namespace

kj::StringPtr roleText(PeerRole role) {
  return role == PeerRole::kControl ? "control"_kj : "bulk"_kj;
}

kj::Promise<GreetedStream> introduce(kj::Own<kj::AsyncIoStream> stream, PeerIntroduction self,
                                     replicator::NodeId target, PeerRole role) {
  return introduceBody(kj::mv(stream), kj::mv(self), kj::mv(target), role);
}

kj::Promise<GreetedStream> welcome(kj::Own<kj::AsyncIoStream> stream, PeerIntroduction self,
                                   replicator::NodeId certified) {
  return welcomeBody(kj::mv(stream), kj::mv(self), kj::mv(certified));
}

replicator::NodeId certifiedNode(kj::PeerIdentity& identity) {
  auto& tls = kj::downcast<kj::TlsPeerIdentity>(identity);
  KJ_REQUIRE(tls.hasCertificate(), "it presented no certificate");
  auto name = tls.getCommonName();
  // KJ 0.9.2 declares matchesHostname() and does not define it, so the DNS name stays unread here;
  // the authority signs both names, and each node checks that its own agree.
  if (!replicator::isValidNodeId(name)) {
    kj::throwFatalException(
        refusal(kj::str("its certificate, of \"", name, "\", does not name a node")));
  }
  return std::string(name.cStr(), name.size());
}

}  // namespace packmoor::rpc
