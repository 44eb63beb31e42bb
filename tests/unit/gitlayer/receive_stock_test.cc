// Goal: a push is answered as git's own server answers it: the same lines in the report, the same words for
// the person at the terminal, the same refs afterwards. Method: a table of requests, each sent as the same
// bytes to `git receive-pack` over a repository on disk and to a node with a real state machine.
#include "receive_harness.h"
#include "test_cluster.h"

#include <filesystem>
#include <set>
#include <sstream>

namespace packmoor::gitlayer::test {
namespace {

using packmoor::test::runProcess;
using packmoor::test::TempFolder;
using packmoor::test::TestGit;

struct Row {
  const char* what;
  std::vector<std::string> commands;   // "OLD NEW REF" and "shallow ID", with the letters below
  Settings settings = {};              // besides the usual ones
  const char* capabilities = "";
  const char* expected = "";           // is part of the report, so that rows cannot agree on nothing
  bool ownWords = false;               // for the person at the terminal, more or less than git says
  const char* pack = "B C t W ^A";     // revisions; "": none; "broken", "odd": see packOf()
};

// A <- B, A <- C, a branch of another root R <- W; t: a tree, v: a tag of A, X: nowhere.
const std::vector<Row> kRows = {
    {"moves forward", {"A B refs/heads/main"}, {}, "", "ok refs/heads/main"},
    {"makes", {"0 B refs/heads/new/deep"}, {}, "", "ok refs/heads/new/deep"},
    {"moves aside", {"C B refs/heads/side"}, {}, "", "ok refs/heads/side"},
    {"is denied to move aside", {"C B refs/heads/side", "A B refs/heads/main"},
     {{"receive.denyNonFastForwards", {"true"}}}, "", "ng refs/heads/side non-fast-forward"},
    {"is denied to move aside to another root", {"C W refs/heads/side"},
     {{"receive.denyNonFastForwards", {"true"}}}, "", "ng refs/heads/side non-fast-forward"},
    {"tags move all the same", {"v A refs/tags/v"}, {{"receive.denyNonFastForwards", {"true"}}}, "",
     "ok refs/tags/v"},
    {"deletes", {"C 0 refs/heads/side", "v 0 refs/tags/v"}, {}, "", "ok refs/heads/side", false, ""},
    {"is denied to delete", {"C 0 refs/heads/side", "v 0 refs/tags/v"},
     {{"receive.denyDeletes", {"true"}}}, "", "ng refs/heads/side deletion prohibited", false, ""},
    {"is denied to delete what HEAD names", {"A 0 refs/heads/main"},
     {{"receive.denyDeleteCurrent", {"refuse"}}}, "",
     "ng refs/heads/main deletion of the current branch prohibited", false, ""},
    {"likewise where nothing is set", {"A 0 refs/heads/main"}, {}, "",
     "ng refs/heads/main deletion of the current branch prohibited", true, ""},
    {"is warned", {"A 0 refs/heads/main"}, {{"receive.denyDeleteCurrent", {"warn"}}}, "",
     "ok refs/heads/main", false, ""},
    {"is not even warned", {"A 0 refs/heads/main"}, {{"receive.denyDeleteCurrent", {"ignore"}}}, "",
     "ok refs/heads/main", false, ""},
    {"another branch is current", {"A 0 refs/heads/main", "C 0 refs/heads/side"},
     {{"HEAD", {"refs/heads/side"}}, {"receive.denyDeleteCurrent", {"refuse"}}}, "",
     "ok refs/heads/main", false, ""},
    {"hidden refs", {"A B refs/hidden/h", "0 B refs/hidden/new", "A 0 refs/hidden/h",
                     "0 B refs/hidden/shown/x", "0 B refs/hiddennot/x", "A B refs/heads/main"},
     {{"transfer.hideRefs", {"refs/hidden"}}, {"receive.hideRefs", {"!refs/hidden/shown"}}}, "",
     "ng refs/hidden/new deny updating a hidden ref"},
    {"hidden branches are hidden before they are denied", {"C 0 refs/heads/side", "C B refs/heads/side"},
     {{"receive.hideRefs", {"refs/heads/side"}}, {"receive.denyDeletes", {"true"}}}, "",
     "ng refs/heads/side deny"},
    {"hidden from fetches only", {"A B refs/hidden/h"}, {{"uploadpack.hideRefs", {"refs/hidden"}}}, "",
     "ok refs/hidden/h"},
    {"funny names", {"0 B HEAD", "0 B refs/x", "0 B refs/heads/a..b", "0 B refs/heads/.x",
                     "0 B refs/heads/x.lock", "0 B refs/heads/x/", "0 B refs/heads//x",
                     "0 B refs/heads/a@{b", "0 B refs/heads/a~b", "0 B refs/heads/a.lock/b",
                     "0 B refs/heads/x.", "0 B heads/x", "0 B refs/heads/a\\b",
                     "0 B refs/heads/@", "0 B refs/notes/-x", "0 B refs/heads/-x"}, {}, "",
     "ng refs/x funny refname"},
    {"names unfit for a terminal", {"0 B refs/heads/\x01x", "0 B refs/heads/\x7f"}, {}, "",
     "funny refname", true},
    {"a name without a folder", {"A 0 refs/x"}, {}, "", "ng refs/x funny refname", false, ""},
    {"a ref below a ref", {"0 B refs/heads/main/below", "0 B refs/heads/dir", "0 B refs/heads/fine"}, {},
     "", "ng refs/heads/dir failed to update ref"},
    {"a ref below a ref of the same push", {"0 B refs/heads/p", "0 B refs/heads/p/q"}, {}, "",
     "ng refs/heads/p/q failed to update ref"},
    {"in the place of one that goes", {"A 0 refs/heads/dir/x", "0 B refs/heads/dir"}, {}, "",
     "ok refs/heads/dir"},
    {"another value than the expected", {"B C refs/heads/main"}, {}, "",
     "ng refs/heads/main failed to update ref"},
    {"it exists", {"0 B refs/heads/main"}, {}, "", "ng refs/heads/main failed to update ref"},
    {"moves what is not there", {"A B refs/heads/none"}, {}, "",
     "ng refs/heads/none failed to update ref"},
    {"deletes what is not there", {"A 0 refs/heads/none"}, {}, "", "refs/heads/none", true, ""},
    {"deletes nothing from nowhere", {"X 0 refs/heads/none", "0 0 refs/heads/none2"}, {}, "",
     "ok refs/heads/none", false, ""},
    {"no commit for a branch", {"0 t refs/heads/tree", "0 t refs/tags/tree", "0 v refs/heads/tag"}, {}, "",
     "ng refs/heads/tree failed to update ref"},
    {"an object that nobody has", {"0 X refs/heads/nowhere", "A B refs/heads/main"}, {}, "",
     "ng refs/heads/nowhere missing necessary objects", true},
    {"twice", {"0 B refs/heads/x", "0 C refs/heads/x", "B C refs/heads/x"}, {}, "",
     "ng refs/heads/x failed to update ref"},
    {"atomic", {"A B refs/heads/main", "0 C refs/heads/x"}, {}, " atomic", "ok refs/heads/x"},
    {"atomic and funny", {"A B refs/heads/main", "0 B refs/x", "0 C refs/heads/x"}, {}, " atomic",
     "ng refs/heads/main atomic push failure"},
    {"atomic and denied", {"A B refs/heads/main", "C 0 refs/heads/side"},
     {{"receive.denyDeletes", {"true"}}}, " atomic", "ng refs/heads/main atomic push failure"},
    {"atomic and late", {"A B refs/heads/main", "B A refs/heads/side"}, {}, " atomic",
     "ng refs/heads/main atomic transaction failed"},
    {"atomic and below a ref", {"A B refs/heads/main", "0 B refs/heads/side/x"}, {}, " atomic",
     "ng refs/heads/main atomic transaction failed"},
    {"atomic and twice", {"0 B refs/heads/x", "0 C refs/heads/x"}, {}, " atomic", "refs/heads/x", true},
    {"atomic, one below the other", {"0 B refs/heads/p", "0 B refs/heads/p/q"}, {}, " atomic",
     "refs/heads/p", true},
    {"atomic and no commit for a branch", {"A B refs/heads/main", "0 t refs/heads/tree"}, {}, " atomic",
     "ng refs/heads/main atomic"},
    {"no pack at all", {"A B refs/heads/main", "0 B refs/x"}, {}, "",
     "ng refs/heads/main unpacker error", true, ""},
    {"a broken pack", {"A B refs/heads/main", "0 B refs/x"}, {}, "",
     "ng refs/x unpacker error", true, "broken"},
    {"a pack that is too large", {"A B refs/heads/main"}, {{"receive.maxInputSize", {"100"}}}, "",
     "unpack index-pack abnormal exit", true},
    {"a pack that is not too large", {"A B refs/heads/main"}, {{"receive.maxInputSize", {"1m"}}}, "",
     "unpack ok"},
    {"objects that fsck refuses", {"0 O refs/heads/odd"}, {{"transfer.fsckObjects", {"true"}}}, "",
     "unpack index-pack abnormal exit", true, "odd"},
    {"objects that fsck refuses, where nobody asks", {"0 O refs/heads/odd"},
     {{"transfer.fsckObjects", {"false"}}}, "", "ok refs/heads/odd", false, "odd"},
    {"from a shallow clone", {"shallow A", "A B refs/heads/main"}, {}, "", "ok refs/heads/main"},
    {"from one whose bounds are not here", {"shallow X", "A B refs/heads/main"}, {}, "",
     "ok refs/heads/main"},
    {"would make it shallow", {"shallow W", "0 W refs/heads/w"}, {}, "",
     "ng refs/heads/w shallow update not allowed", false, "W ^R"},
    {"would make it shallow, with others", {"shallow W", "0 W refs/heads/w", "C 0 refs/heads/side"}, {},
     "", "ng refs/heads/w shallow update not allowed", false, "W ^R"},
    {"bounds in a pack that is whole", {"shallow B", "A B refs/heads/main", "0 C refs/heads/c"}, {}, "",
     "ng refs/heads/main shallow update not allowed", false, "B C ^A"},
    {"a tag of what would make it shallow", {"shallow W", "0 w refs/tags/w"}, {}, "",
     "ng refs/tags/w shallow update not allowed", false, "w ^R"},
    {"the newer report", {"A B refs/heads/main", "0 B refs/x"}, {}, " report-status-v2",
     "ok refs/heads/main"},
    {"quiet", {"A B refs/heads/main", "0 B refs/x"}, {}, " quiet", "ok refs/heads/main"},
};

// git carries out the rest of these. What a client asked to be atomic is atomic here.
const std::vector<Row> kAtomicRows = {
    {"hidden", {"A B refs/heads/main", "A B refs/hidden/h"}, {{"transfer.hideRefs", {"refs/hidden"}}},
     " atomic", "ng refs/hidden/h deny updating a hidden ref"},
    {"missing", {"A B refs/heads/main", "0 X refs/heads/x"}, {}, " atomic",
     "ng refs/heads/x missing necessary objects"},
    {"shallow", {"shallow W", "0 W refs/heads/w", "A 0 refs/heads/main"},
     {{"receive.denyDeleteCurrent", {"ignore"}}}, " atomic",
     "ng refs/heads/w shallow update not allowed", false, "W ^R"},
};

class StockReceive : public ::testing::Test {
 protected:
  ~StockReceive() noexcept override {}

  void SetUp() override {
    const std::string root = source_.commit("root", "another root");
    names_["R"] = root;
    names_["W"] = source_.commit("root", "grown");
    source_.run({"tag", "-a", "-m", "t", "w"});
    names_["w"] = source_.line({"rev-parse", "w"});
    source_.run({"checkout", "-q", "--orphan", "main2"});
    source_.run({"rm", "-rfq", "."});
    names_["A"] = source_.commit("a", "1");
    source_.run({"tag", "-a", "-m", "t", "v"});
    names_["v"] = source_.line({"rev-parse", "v"});
    names_["B"] = source_.commit("a", "2");
    names_["t"] = source_.line({"rev-parse", "HEAD^{tree}"});
    source_.run({"checkout", "-q", names_["A"]});
    names_["C"] = source_.commit("c", "3");
    names_["0"] = kZero;
    names_["X"] = std::string(40, 'a');
    const std::string tree = names_["e"] = source_.line({"mktree"}, "");
    names_["O"] = source_.line({"hash-object", "-t", "commit", "-w", "--literally", "--stdin"},
                               "tree " + tree + "\nauthor none\ncommitter none\n\nodd\n");
  }

  std::string named(const std::string& text) {
    std::string result;
    size_t at = 0;
    for (int word = 0; word < 2 && at != std::string::npos; ++word) {
      const size_t space = text.find(' ', at);
      const std::string name = text.substr(at, space - at);
      result += names_.count(name) > 0 ? names_[name] : name;
      at = space == std::string::npos ? space : space + 1;
      if (space != std::string::npos) result += " ";
    }
    return at == std::string::npos ? result : result + text.substr(at);
  }

  std::string packOf(const std::string& revisions) {
    if (revisions.empty()) return {};
    if (revisions == "odd") {
      return source_.run({"pack-objects", "-q", "--stdout"}, names_["O"] + "\n" + names_["e"] + "\n");
    }
    std::vector<std::string> names;
    std::istringstream words(revisions == "broken" ? "B ^A" : revisions);
    for (std::string word; words >> word;) {
      names.push_back(word[0] == '^' ? "^" + names_[word.substr(1)] : names_[word]);
    }
    std::string pack = source_.pack(names);
    if (revisions == "broken") pack[pack.size() - 30] ^= 0x55;
    return pack;
  }

  const std::string& madePack(const std::string& revisions) {
    auto [pack, isNew] = packs_.try_emplace(revisions);
    if (isNew) pack->second = packOf(revisions);
    return pack->second;
  }

  std::string bodyOf(const Row& row) {
    std::vector<std::string> lines;
    for (const std::string& command : row.commands) lines.push_back(named(command));
    return receiveCommands(lines, std::string("report-status side-band-64k object-format=sha1") +
                                      row.capabilities) +
           madePack(row.pack);
  }
  std::string beginning() {
    return receiveCommands({named("0 A refs/heads/main"), named("0 C refs/heads/side"),
                            named("0 A refs/hidden/h"), named("0 v refs/tags/v"),
                            named("0 A refs/heads/dir/x")}, "report-status") +
           packOf("v C");
  }

  // ---- git's own server -----------------------------------------------------------------------
  Answer pushToStock(const std::string& folder, const std::string& body) {
    return parseAnswer(runProcess({"git", "receive-pack", "--stateless-rpc", folder}, folder, body).out);
  }
  // index-pack takes every pack, as it does large ones.
  void makeTemplate() {
    const std::string folder = stock_.path() + "/0";
    source_.run({"init", "-q", "--bare", "-b", "main", folder});
    for (auto [key, value] : {std::pair("transfer.unpackLimit", "1"), {"gc.auto", "0"}}) {
      source_.run({"-C", folder, "config", key, value});
    }
    beginning_ = beginning();
    EXPECT_EQ(pushToStock(folder, beginning_).unpack, "ok");
  }
  std::string makeStock(const Row& row) {
    if (count_ == 0) makeTemplate();
    const std::string folder = stock_.path() + "/" + std::to_string(++count_);
    std::filesystem::copy(stock_.path() + "/0", folder, std::filesystem::copy_options::recursive);
    std::string config = packmoor::test::readFile(folder + "/config");
    for (const Setting& setting : row.settings) {
      if (setting.key == kHeadSetting) {
        packmoor::test::writeFile(folder + "/HEAD", "ref: " + setting.values[0] + "\n");
        continue;
      }
      const size_t dot = setting.key.find('.');
      config += "[" + setting.key.substr(0, dot) + "]\n";
      for (const auto& value : setting.values) {
        config += setting.key.substr(dot + 1) + " = \"" + value + "\"\n";
      }
    }
    packmoor::test::writeFile(folder + "/config", config);
    return folder;
  }
  std::string refsOfStock(const std::string& folder) {
    return source_.run({"-C", folder, "for-each-ref", "--format=%(objectname) %(refname)"});
  }

  // ---- Packmoor -------------------------------------------------------------------------------
  Answer pushTo(const std::string& repository, const std::string& body) {
    GitRequest request;
    request.repository = repository;
    request.service = GitService::kReceivePack;
    auto session = makeReceivePackSession(cluster_.node(), kj::mv(request),
                                          cluster_.view(repository), counters_);
    StringInput in(body);
    StringOutput out;
    session->serve(in, out).wait(cluster_.scope());
    return parseAnswer(out.text);
  }
  std::string makeOurs(const Row& row) {
    const std::string name = "r" + std::to_string(count_);
    cluster_.create(name);
    EXPECT_EQ(pushTo(name, beginning_).unpack, "ok");
    if (row.settings.empty()) return name;
    auto set = cluster_.node().setRepository(name, row.settings).wait(cluster_.scope());
    EXPECT_EQ(set.problem, RepositoryProblem::kNone) << set.message;
    return name;
  }
  std::string refsOf(const std::string& repository) {
    std::string text;
    cluster_.view(repository)->forEachRef("", [&](const Ref& ref) {
      text += std::string(ref.id.hex().cStr()) + " " + ref.name + "\n";
      return true;
    });
    return text;
  }

  // What git's server says to the person at the terminal, without the helpers that it runs.
  static std::multiset<std::string> wordsOf(const Answer& answer) {
    std::multiset<std::string> words;
    std::istringstream lines(answer.progress);
    for (std::string line; std::getline(lines, line);) {
      for (const char* begin : {"error: ", "warning: ", "fatal: "}) {
        if (line.rfind(begin, 0) == 0) words.insert(line);
      }
    }
    return words;
  }

  TestGit source_;
  TempFolder stock_;
  TestCluster cluster_{simGround(), 1};
  ReceiveCounters counters_;
  std::map<std::string, std::string> names_;
  std::map<std::string, std::string> packs_;
  std::string beginning_;
  size_t count_ = 0;
};

TEST_F(StockReceive, AnswersAsGitDoes) {
  for (const Row& row : kRows) {
    SCOPED_TRACE(row.what);
    const std::string folder = makeStock(row), repository = makeOurs(row);
    const std::string body = bodyOf(row);
    const Answer stock = pushToStock(folder, body), ours = pushTo(repository, body);
    EXPECT_EQ(ours.lines, stock.lines) << "git says:\n" << stock.progress << "and here:\n"
                                       << ours.progress;
    EXPECT_NE(ours.raw.find(row.expected), std::string::npos) << ours.raw;
    if (!row.ownWords) {
      EXPECT_EQ(wordsOf(ours), wordsOf(stock));
    }
    EXPECT_EQ(refsOf(repository), refsOfStock(folder));
  }
}

TEST_F(StockReceive, AtomicIsAtomicEverywhere) {
  for (const Row& row : kAtomicRows) {
    SCOPED_TRACE(row.what);
    makeStock(row);
    const std::string repository = makeOurs(row), before = refsOf(repository);
    const Answer answer = pushTo(repository, bodyOf(row));
    EXPECT_NE(answer.raw.find(row.expected), std::string::npos) << answer.raw;
    EXPECT_NE(answer.raw.find("ng refs/heads/main atomic push failure"), std::string::npos)
        << answer.raw;
    EXPECT_EQ(refsOf(repository), before);
  }
}

}  // namespace
}  // namespace packmoor::gitlayer::test
