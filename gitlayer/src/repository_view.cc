#include "repository_view_impl.h"

#include "reach_notes.h"
#include "ref_book.h"
#include "state_objects.h"

namespace packmoor::gitlayer {

namespace {

class StateRepositoryView final : public RepositoryView {
 public:
  StateRepositoryView(std::shared_ptr<const StateReader> state, RepositoryRow row,
                      std::vector<std::shared_ptr<PackFile>> packs, std::shared_ptr<RefBooks> books,
                      std::shared_ptr<ReachNotes> notes)
      : state_(std::move(state)),
        books_(std::move(books)),
        notes_(std::move(notes)),
        row_(std::move(row)),
        objects_(state_, row_.info.id, row_.statistics.hotObjects > 0, std::move(packs)) {
    std::string position;
    if (state_->get(kPositionKey, position)) index_ = decodePosition(position).index;
  }

  replicator::RecordIndex index() override { return index_; }
  const RepositoryInfo& info() override { return row_.info; }

  std::optional<Ref> ref(std::string_view name) override {
    std::string row;
    if (!state_->get(refKey(row_.info.id, name), row)) return std::nullopt;
    return decodeRef(name, row);
  }

  void forEachRef(std::string_view prefix, std::string_view after,
                  kj::FunctionParam<bool(const Ref&)> each) override {
    const size_t skip = refPrefix(row_.info.id).size();
    // The least name behind `after`.
    const std::string from =
        after.empty() ? std::string() : refKey(row_.info.id, after) + std::string(1, '\0');
    state_->scan(refKey(row_.info.id, prefix), from,
                 [&](std::string_view key, std::string_view value) {
                   return each(decodeRef(key.substr(skip), value));
                 });
  }

  std::shared_ptr<const RefPage> refPage(std::string_view after) override {
    if (books_ != nullptr) {
      book_ = books_->open(row_.info.id, row_.reflogNext, *state_);
      books_ = nullptr;
    }
    return book_ == nullptr ? nullptr : book_->page(after, *state_);
  }

  ObjectSource& objects() override { return objects_; }
  RepositoryStatistics statistics() override { return row_.statistics; }
  bool refsReachAll() override {
    return row_.info.appendOnly ||
           (notes_ != nullptr && notes_->holds(row_.info.id, row_.info.rewoundAt, index_));
  }
  void noteRefsReachAll() override {
    if (notes_ != nullptr) notes_->note(row_.info.id, index_);
  }

 private:
  std::shared_ptr<const StateReader> state_;
  std::shared_ptr<RefBooks> books_;   // until the book is opened; null: there are none
  std::shared_ptr<RefBook> book_;
  std::shared_ptr<ReachNotes> notes_;   // null: there are none
  RepositoryRow row_;
  StateObjects objects_;
  replicator::RecordIndex index_;
};

}  // namespace

kj::Own<RepositoryView> makeRepositoryView(std::shared_ptr<const StateReader> state,
                                           RepositoryRow row,
                                           std::vector<std::shared_ptr<PackFile>> packs,
                                           std::shared_ptr<RefBooks> books,
                                           std::shared_ptr<ReachNotes> notes) {
  return kj::heap<StateRepositoryView>(std::move(state), std::move(row), std::move(packs),
                                       std::move(books), std::move(notes));
}

}  // namespace packmoor::gitlayer
