// Goal: a list of refs that comes from pages is the list that the state has, byte by byte, in every form, for
// whoever is shown whatever part of it, at every version, and the pages stay within their bound. Method: a
// state machine on the simulator's store whose refs change; the same printer over a view with pages and over
// one without; small slices, so that pages are used early.
#include "ref_book.h"
#include "ref_printer.h"
#include "state_machine_fixture.h"
#include "visible_view.h"

#include "gitlayer/pkt_line.h"

#include <random>
#include <thread>

namespace packmoor::gitlayer {
namespace {

using namespace test;

constexpr size_t kSlice = 1000;
constexpr size_t kRefs = 4000;   // of which a page takes about a quarter

std::string branch(size_t number) {
  std::string digits = std::to_string(number);
  return "refs/heads/" + std::string(6 - digits.size(), '0') + digits;
}

std::string printed(RefPrinter& printer) {
  std::string text;
  while (printer.print(text, kSlice)) {
  }
  return text;
}

std::string listed(RepositoryView& view, bool peel, std::vector<std::string> prefixes = {}) {
  ListRequest request;
  request.peel = peel;
  request.symrefs = true;
  request.prefixes = std::move(prefixes);
  request.finish();
  RefPrinter printer(view, std::move(request));
  return printed(printer);
}

std::string advertised(RepositoryView& view, GitService service) {
  RefPrinter printer(view, service, "some-capability");
  return printed(printer);
}

class RefBookTest : public StateMachineTest {
 protected:
  // Branches 000000 to kRefs - 1, all of object 1, and some tags.
  void makeRefs(uint64_t repository = 1, const std::string& name = "project") {
    submit(createProposal(++txn_, repository, name));
    std::vector<RefUpdate> updates;
    for (size_t i = 0; i < kRefs; ++i) updates.push_back(update(branch(i), 0, 1));
    for (size_t i = 0; i < 50; ++i) {
      updates.push_back(update("refs/tags/v" + std::to_string(i), 0, 2));
      updates.back().peeled = oid(3);
    }
    updates.push_back(update("refs/heads/main", 0, 1));
    change(std::move(updates), repository);
  }
  void change(std::vector<RefUpdate> updates, uint64_t repository = 1) {
    const auto result = submit(pushProposal(repository, transaction(++txn_, std::move(updates))));
    ASSERT_EQ(result.status, ApplyResult::Status::kDone);
    ASSERT_TRUE(result.refProblems.empty());
  }
  // Without pages.
  kj::Own<RepositoryView> plainView(const std::string& name = "project") {
    auto found = machine->view(name, machine->snapshot());
    return kj::mv(KJ_ASSERT_NONNULL(found));
  }
  void expectSameLists() {
    const std::vector<std::vector<std::string>> prefixes = {
        {}, {"refs/heads/"}, {"refs/tags/", "HEAD", "refs/heads/"}, {"refs/heads/001"}, {"refs/x"},
        {"refs/heads/000999", "refs/heads/00", "refs/tags/v1"}};
    for (const auto& some : prefixes) {
      for (bool peel : {false, true}) {
        EXPECT_EQ(listed(*view(), peel, some), listed(*plainView(), peel, some));
      }
    }
    for (GitService service : {GitService::kUploadPack, GitService::kReceivePack}) {
      EXPECT_EQ(advertised(*view(), service), advertised(*plainView(), service));
    }
  }

  uint64_t txn_ = 0;
};

TEST_F(RefBookTest, ListsFromPagesAreThoseOfTheState) {
  makeRefs();
  EXPECT_EQ(plainView()->refPage(branch(10)), nullptr);
  EXPECT_NE(view()->refPage(branch(10)), nullptr);
  expectSameLists();
  expectSameLists();   // of pages that are all there
  const std::string all = listed(*view(), true);
  EXPECT_NE(all.find(oid(2).hex().cStr() + std::string(" refs/tags/v7 peeled:") + oid(3).hex().cStr() + "\n"),
            std::string::npos);
  EXPECT_NE(all.find("HEAD symref-target:refs/heads/main\n"), std::string::npos);
}

TEST_F(RefBookTest, APageHasWhatLiesBehindAName) {
  makeRefs();
  auto at = view();
  const auto page = at->refPage(branch(17));
  EXPECT_EQ(page->after, branch(17));
  std::string last;
  page->forEach([&](const RefLine& line) {
    if (last.empty()) {
      EXPECT_EQ(line.name, branch(18));
      EXPECT_EQ(line.id, oid(1).hex().cStr());
      EXPECT_EQ(line.peeled, "");
    }
    last = line.name;
    return true;
  });
  EXPECT_EQ(page->upTo, last);
  EXPECT_EQ(at->refPage(branch(100)), page);
  EXPECT_EQ(at->refPage(page->upTo)->after, page->upTo);
  EXPECT_EQ(at->refPage("refs/tags/v9")->upTo, "");
}

TEST_F(RefBookTest, WhatIsHiddenIsInNoList) {
  makeRefs();
  submit(setProposal(++txn_, 1, {{"transfer.hideRefs", {"refs/heads/000100", "refs/tags"}}}));
  expectSameLists();
  auto visible = [&]() { return visibleView(view()); };
  for (bool peel : {false, true}) {
    const std::string list = listed(*visible(), peel);
    EXPECT_EQ(list, listed(*visibleView(plainView()), peel));
    EXPECT_EQ(list.find("refs/tags/"), std::string::npos);
    EXPECT_EQ(list.find(branch(100)), std::string::npos);
    EXPECT_NE(list.find(branch(101)), std::string::npos);
  }
  EXPECT_EQ(advertised(*view(), GitService::kReceivePack).find("refs/tags/"), std::string::npos);
  // The pages stay, and show everything again.
  submit(setProposal(++txn_, 1, {{"transfer.hideRefs", {}}}));
  EXPECT_NE(listed(*visible(), true).find(branch(100)), std::string::npos);
  expectSameLists();
}

TEST_F(RefBookTest, APushMakesOnlyThePagesNewThatItChanges) {
  makeRefs();
  listed(*view(), true);
  auto before = view();
  const auto changed = before->refPage(branch(1500)), other = before->refPage(branch(3500));
  change({update(branch(1501), 1, 4)});
  auto after = view();
  EXPECT_NE(after->refPage(branch(1500)), changed);
  EXPECT_EQ(after->refPage(branch(3500)), other);
  expectSameLists();
  // Who began before goes on with what was.
  EXPECT_EQ(before->refPage(branch(1500)), changed);
}

TEST_F(RefBookTest, AViewThatIsOlderThanThePagesReadsTheState) {
  makeRefs();
  auto before = view();
  const std::string list = listed(*plainView(), true);
  change({update(branch(1501), 1, 4)});
  EXPECT_NE(listed(*view(), true), list);
  EXPECT_EQ(before->refPage(branch(5)), nullptr);
  EXPECT_EQ(listed(*before, true), list);
}

TEST_F(RefBookTest, RefsComeGoAndChangeInAnyOrder) {
  for (uint64_t seed = 1; seed <= 3; ++seed) {
    SCOPED_TRACE("seed " + std::to_string(seed));
    std::mt19937_64 random(seed);
    const std::string name = "random" + std::to_string(seed);
    makeRefs(seed + 10, name);
    std::map<std::string, uint64_t> refs;
    for (size_t i = 0; i < kRefs; ++i) refs[branch(i)] = 1;
    for (int round = 0; round < 12; ++round) {
      // Also so many at once that the reflog does not say all; and sometimes many beside each other.
      const size_t count = round == 7 ? RefBooks::kChangesMax + 1 : 1 + random() % 300;
      const size_t from = random() % 6000, span = random() % 2 == 0 ? count : 6000;
      std::map<std::string, uint64_t> to;
      for (size_t i = 0; i < count; ++i) {
        to[branch(round == 7 ? i : from + random() % span)] = random() % 3 == 0 ? 0 : 2 + random() % 50;
      }
      std::vector<RefUpdate> all;
      for (const auto& [ref, value] : to) {
        if (value == 0 && refs.count(ref) == 0) continue;
        all.push_back(update(ref, refs.count(ref) ? refs[ref] : 0, value));
        if (value % 5 == 1) all.back().peeled = oid(value + 50);
        refs[ref] = value;
        if (value == 0) refs.erase(ref);
      }
      change(std::move(all), seed + 10);
      if (random() % 4 == 0) continue;   // a version that nobody asks for
      ASSERT_EQ(listed(*view(name), true), listed(*plainView(name), true));
      ASSERT_EQ(advertised(*view(name), GitService::kUploadPack),
                advertised(*plainView(name), GitService::kUploadPack));
    }
  }
}

TEST_F(RefBookTest, PagesStayWithinTheirBound) {
  makeRefs();
  makeRefs(2, "other");
  const auto state = machine->snapshot();
  constexpr uint64_t kUpdates = kRefs + 51;
  const uint64_t enough = 8 * RefBooks::kPageBytes;
  auto books = std::make_shared<RefBooks>(enough);
  auto readAll = [&](RefBook& book) {
    size_t pages = 0;
    for (std::string after = branch(0); ; ++pages) {
      const auto page = book.page(after, *state);
      EXPECT_LE(books->bytes(), enough);
      if (page == nullptr || page->upTo.empty()) return pages;
      after = page->upTo;
    }
  };
  auto first = books->open(repositoryId(1), kUpdates, *state);
  EXPECT_GE(readAll(*first), 3u);
  EXPECT_EQ(books->open(repositoryId(1), kUpdates, *state), first);
  EXPECT_EQ(books->open(repositoryId(1), kUpdates - 1, *state), nullptr);
  // The other's take the room: the first is dropped. Held by somebody, it still takes it.
  auto other = books->open(repositoryId(2), kUpdates, *state);
  EXPECT_LT(readAll(*other), 3u);
  EXPECT_NE(books->open(repositoryId(1), kUpdates, *state), first);
  first = nullptr;
  EXPECT_GE(readAll(*other), 3u);
  EXPECT_EQ(books->open(repositoryId(2), kUpdates, *state), other);
  // Pages outlive the books, and count no longer.
  const auto page = other->page(branch(0), *state);
  other = nullptr;
  books = nullptr;
  EXPECT_EQ(page->after, branch(0));

  auto none = std::make_shared<RefBooks>(0);
  EXPECT_EQ(none->open(repositoryId(1), kUpdates, *state), nullptr);
}

TEST_F(RefBookTest, WithoutRoomListsComeFromTheState) {
  options.refCacheBytes = 3 * RefBooks::kPageBytes;   // for a page or two
  log = nullptr;
  machine = nullptr;
  packs = nullptr;
  start({});
  makeRefs();
  expectSameLists();
}

TEST_F(RefBookTest, ManyWhoListAtOnceGetTheSame) {
  makeRefs();
  const std::string expected = listed(*plainView(), true), told = advertised(*plainView(), GitService::kUploadPack);
  constexpr size_t kReaders = 8;
  std::vector<kj::Own<RepositoryView>> views;
  std::vector<std::string> lists(kReaders);
  for (size_t i = 0; i < kReaders; ++i) views.push_back(view());
  std::vector<std::thread> readers;
  for (size_t i = 0; i < kReaders; ++i) {
    readers.emplace_back([&, i]() {
      lists[i] = i % 2 == 0 ? listed(*views[i], true) : advertised(*views[i], GitService::kUploadPack);
    });
  }
  for (auto& reader : readers) reader.join();
  for (size_t i = 0; i < kReaders; ++i) EXPECT_EQ(lists[i], i % 2 == 0 ? expected : told) << i;
}

}  // namespace
}  // namespace packmoor::gitlayer
