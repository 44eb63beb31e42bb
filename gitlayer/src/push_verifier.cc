#include "push_verifier.h"

#include "collision_check.h"
#include "receive_policy.h"
#include "special_files.h"

namespace packmoor::gitlayer {

namespace {
// Larger files that git reads by itself are refused unread. Where they come with the push the bound is
// PackLimits::heldBytesMax.
constexpr uint64_t kSpecialFileBytesMax = 512ull << 20;
}  // namespace

SharedView shareView(kj::Own<RepositoryView> view) {
  auto owner = std::make_shared<kj::Own<RepositoryView>>(kj::mv(view));
  return SharedView(owner, owner->get());
}

void PushedPack::verifyTips(const std::vector<ObjectLink>& broken,
                            std::vector<ReceiveCommand>& commands, VerifyResult& result) {
  connected_ = broken.empty();
  const bool shallow = refuseShallow(connected_, commands);
  if (!connected_ && !shallow) result.mayBeOld = true;
  for (auto& command : commands) {
    if (!command.problem.empty() || command.isDelete()) continue;
    if (verifyTip(broken, command)) result.mayBeOld = true;
  }
  applyPolicy(commands, *view_);
}

// True: objects are missing.
bool PushedPack::verifyTip(const std::vector<ObjectLink>& broken, ReceiveCommand& command) {
  if (!broken.empty() && typeOf(command.update.newId) != ObjectType::kNone) {
    command.problem = kMissingObjects;
    command.detail = "the pack names " + std::string(objectTypeName(broken.front().type)) + " " +
                     broken.front().id.hex().cStr() +
                     ", which is neither in it nor in the repository";
  } else {
    const bool exact = view_->info().settings.denyNonFastForwards;
    TipProblem tip = completeUpdate(command.update, *this, view_->objects(), exact);
    command.problem = std::move(tip.reason);
    command.detail = std::move(tip.detail);
  }
  return command.problem == kMissingObjects;
}

// git's rule: what brings a commit whose parents its client does not have would make the repository
// shallow, also where they happen to be here. True: there is such a push.
bool PushedPack::refuseShallow(bool connected, std::vector<ReceiveCommand>& commands) {
  std::unordered_set<ObjectId> cut;
  for (const ObjectId& id : shallow_) {
    if (typeOf(id) == ObjectType::kCommit && !view_->objects().exists(id)) cut.insert(id);
  }
  if (cut.empty()) return false;
  for (auto& command : commands) {
    if (command.isDelete() || typeOf(command.update.newId) == ObjectType::kNone) continue;
    // Not connected, nothing of the pack can be kept, whatever reaches it.
    if (connected && !reachesAdded(command.update.newId, *this, view_->objects(), cut)) continue;
    command.problem = "shallow update not allowed";
  }
  return true;
}

std::optional<PackRefusal> PushedPack::specialFileRefusal(const ObjectLink& link) {
  ObjectType type = typeOf(link.id);
  kj::Array<const kj::byte> data;
  if (type != ObjectType::kNone) {
    data = read(link.id);
  } else {
    auto header = view_->objects().header(link.id);
    const uint64_t bytes = header.map([](ObjectHeader& h) { return h.bytes; }).orDefault(0);
    if (bytes > kSpecialFileBytesMax) {
      return indexPackRefusal("object " + std::string(link.id.hex().cStr()) +
                              ": gitmodulesLarge: .gitmodules too large to parse");
    }
    auto found = view_->objects().read(link.id);
    KJ_IF_MAYBE(object, found) {
      type = object->type;
      data = kj::mv(object->data);
    } else {
      return std::nullopt;  // connectivity says so
    }
  }
  const char* problem = checkSpecialFile(link.special, type, data);
  if (problem == nullptr) return std::nullopt;
  return indexPackRefusal("object " + std::string(link.id.hex().cStr()) + ": " + problem);
}

VerifyResult SmallPush::verify(std::vector<ReceiveCommand>& commands) {
  VerifyResult result;
  if (pack_.size() > 0) {
    unpacked_ = unpackSmallPack(pack_, view_->objects(), kSmallInflatedMax, strict());
    result.refusal = unpacked_.refusal;
    result.tooLarge = unpacked_.tooLarge;
    result.mayBeOld = unpacked_.missingBase;
    if (result.refusal || result.tooLarge) return result;
  }
  // What lies in a pack would come to lie in two. Leaving it out rests on the view as connectivity
  // does: a prune since then makes the push be verified again (rule 21).
  for (UnpackedObject& object : unpacked_.objects) {
    object.known = view_->objects().exists(object.id);
    if (!object.known || sameAsStored(view_->objects(), object.id, object.type, object.data)) continue;
    result.refusal = indexPackRefusal(collisionFound(object.id));
    return result;
  }
  auto links = kj::arrayPtr(unpacked_.links.data(), unpacked_.links.size());
  for (const ObjectLink& link : links) {
    if (strict() && link.special != 0 && !result.refusal) result.refusal = specialFileRefusal(link);
  }
  if (result.refusal) return result;
  auto broken = brokenLinks(*this, view_->objects(), links);
  verifyTips(broken, commands, result);
  if (!broken.empty()) unpacked_ = {};
  return result;
}

void SmallPush::addTo(PushTransaction& transaction) {
  transaction.objects = toNewObjects(unpacked_);
}

ObjectType SmallPush::typeOf(const ObjectId& id) {
  auto found = unpacked_.byId.find(id);
  return found == unpacked_.byId.end() ? ObjectType::kNone : unpacked_.objects[found->second].type;
}

kj::Array<const kj::byte> SmallPush::read(const ObjectId& id) {
  auto data = unpacked_.objects[unpacked_.byId.at(id)].data;
  return kj::Array<const kj::byte>(data.begin(), data.size(), kj::NullArrayDisposer::instance);
}

}  // namespace packmoor::gitlayer
