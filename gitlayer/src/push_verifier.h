// Verifying a push: the work between its last byte and its proposal, apart from any stream.
//
// A PushedPack owns everything that it touches, so that it may work on a worker thread and be
// forgotten there. verify() may be called again with a newer view: what the first view did not
// have may have been applied since.
#pragma once

#include "gitlayer/connectivity.h"
#include "gitlayer/small_pack.h"
#include "receive_commands.h"

#include <memory>

namespace packmoor::gitlayer {

using SharedView = std::shared_ptr<RepositoryView>;
SharedView shareView(kj::Own<RepositoryView> view);

struct VerifyResult {
  std::optional<PackRefusal> refusal;
  bool tooLarge = false;                // inflates beyond kSmallInflatedMax
  bool mayBeOld = false;                // something is missing that a newer state may have
};

// What a push brings.
class PushedPack : public NewObjects {
 public:
  explicit PushedPack(SharedView view) : view_(std::move(view)) {}

  // Blocks. `commands` as they were parsed; their problems, peeled and forward are filled in.
  virtual VerifyResult verify(std::vector<ReceiveCommand>& commands) = 0;
  // Bytes that verify() has to look through.
  virtual size_t bytesToVerify() const = 0;
  // After verify(): adds what the repository gets, nothing when it is not connected. May be asked
  // for again.
  virtual void addTo(PushTransaction& transaction) = 0;
  // The pack's bytes, to be received as a large push instead. None where it is one already.
  virtual kj::Array<const kj::byte> releasePack() { return nullptr; }
  bool connected() const { return connected_; }

  void setView(SharedView view) { view_ = std::move(view); }
  // Commits whose parents the client does not have (ReceiveCommands::shallow).
  void setShallow(std::vector<ObjectId> commits) { shallow_ = std::move(commits); }
  RepositoryView& view() { return *view_; }

 protected:
  // Checks the tips, and each command by the settings. `broken`: what the pack's objects name and nobody
  // has, or has as something else; with any of it nothing of the pack may be kept.
  void verifyTips(const std::vector<ObjectLink>& broken, std::vector<ReceiveCommand>& commands,
                  VerifyResult& result);

  // Objects that git fsck refuses are refused.
  bool strict() { return view_->info().settings.fsckObjects; }
  // What is wrong with a file that git reads by itself; call for links with `special`, when strict().
  std::optional<PackRefusal> specialFileRefusal(const ObjectLink& link);

  SharedView view_;

 private:
  bool verifyTip(const std::vector<ObjectLink>& broken, ReceiveCommand& command);
  bool refuseShallow(bool connected, std::vector<ReceiveCommand>& commands);

  std::vector<ObjectId> shallow_;
  bool connected_ = true;
};

class SmallPush final : public PushedPack {
 public:
  // `pack` is empty when the push brings none.
  SmallPush(kj::Array<const kj::byte> pack, SharedView view)
      : PushedPack(std::move(view)), pack_(kj::mv(pack)) {}

  VerifyResult verify(std::vector<ReceiveCommand>& commands) override;
  size_t bytesToVerify() const override { return pack_.size(); }
  void addTo(PushTransaction& transaction) override;

  kj::Array<const kj::byte> releasePack() override { return kj::mv(pack_); }

  ObjectType typeOf(const ObjectId& id) override;
  kj::Array<const kj::byte> read(const ObjectId& id) override;

 private:
  kj::Array<const kj::byte> pack_;
  UnpackedPack unpacked_;
};

constexpr size_t kSmallInflatedMax = 32u << 20;
// Pushes up to here are verified on the loop: waking a worker would cost more.
constexpr size_t kVerifyOnLoopBytesMax = 16u << 10;

}  // namespace packmoor::gitlayer
