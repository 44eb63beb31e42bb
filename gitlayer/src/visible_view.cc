#include "visible_view.h"

#include "gitlayer/repository_settings.h"

namespace packmoor::gitlayer {
namespace {

class VisibleView final : public RepositoryView {
 public:
  explicit VisibleView(kj::Own<RepositoryView> whole) : whole_(kj::mv(whole)), info_(whole_->info()) {
    info_.appendOnly = false;
  }

  replicator::RecordIndex index() override { return whole_->index(); }
  const RepositoryInfo& info() override { return info_; }
  std::optional<Ref> ref(std::string_view name) override {
    if (isHidden(name)) return std::nullopt;
    return whole_->ref(name);
  }
  void forEachRef(std::string_view prefix, std::string_view after,
                  kj::FunctionParam<bool(const Ref&)> each) override {
    whole_->forEachRef(prefix, after,
                       [&](const Ref& ref) { return isHidden(ref.name) || each(ref); });
  }
  std::shared_ptr<const RefPage> refPage(std::string_view after) override { return whole_->refPage(after); }
  ObjectSource& objects() override { return whole_->objects(); }
  RepositoryStatistics statistics() override { return whole_->statistics(); }
  RepositoryView& whole() override { return *whole_; }

 private:
  bool isHidden(std::string_view name) const { return isHiddenRef(info_.settings.uploadHidden, name); }

  kj::Own<RepositoryView> whole_;
  RepositoryInfo info_;
};

}  // namespace

kj::Own<RepositoryView> visibleView(kj::Own<RepositoryView> view) {
  if (view->info().settings.uploadHidden.empty()) return view;
  return kj::heap<VisibleView>(kj::mv(view));
}

}  // namespace packmoor::gitlayer
