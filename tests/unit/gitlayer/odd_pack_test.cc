// Goal: a pushed pack is refused if, and only if, git would refuse it strictly.
// Method: packs changed at random from a seed, given to a push of any size here and, the very same
// request, to git receive-pack with receive.fsckObjects, into an empty repository each.
//
// PACKMOOR_SEEDS=FROM-TO runs other seeds.
#include "odd_pack.h"
#include "receive_harness.h"

#include <cstdlib>
#include <filesystem>

namespace packmoor::gitlayer::test {
namespace {

using packmoor::test::runProcess;

class OddPackTest : public ReceiveTest {
 protected:
  ~OddPackTest() noexcept override {}

  struct Verdict {
    bool taken = false;
    std::string why;
  };

  Verdict ours(const OddPack& pack, const std::string& body, size_t inlineMax) {
    node_.options_.inlinePackBytesMax = inlineMax;
    node_.state("r").refs.clear();
    node_.state("r").objects.clear();
    node_.state("r").packs.clear();
    return verdict(pack, push(body));
  }

  Verdict gits(const OddPack& pack, const std::string& body) {
    packmoor::test::TempFolder folder;
    auto git = [&](std::vector<std::string> arguments, const std::string& input = "") {
      arguments.insert(arguments.begin(), "git");
      return runProcess(arguments, folder.path(), input);
    };
    EXPECT_EQ(git({"init", "-q", "--bare", "--template=", "r"}).exitCode, 0);
    auto result = git({"-c", "receive.fsckObjects=true", "-c", "receive.unpackLimit=1",
                       "receive-pack", "--stateless-rpc", "r"}, body);
    return verdict(pack, parseAnswer(result.out));
  }

  static Verdict verdict(const OddPack& pack, const Answer& answer) {
    auto ref = answer.refs.find(pack.ref);
    bool taken = ref != answer.refs.end() && ref->second == "ok";
    return {taken, answer.unpack + " " + answer.progress + answer.error};
  }
};

std::pair<uint64_t, uint64_t> seeds(uint64_t from, uint64_t to) {
  const char* given = std::getenv("PACKMOOR_SEEDS");
  if (given == nullptr) return {from, to};
  char* rest = nullptr;
  from = std::strtoull(given, &rest, 10);
  return {from, *rest == '-' ? std::strtoull(rest + 1, nullptr, 10) : from + 1};
}

TEST_F(OddPackTest, AreRefusedAsGitRefusesThem) {
  auto [from, to] = seeds(1, 151);
  size_t taken = 0, refused = 0;
  for (uint64_t seed = from; seed < to; ++seed) {
    OddPack pack = OddPackMaker(seed).make();
    std::string body = commands({std::string(kZero) + " " + pack.tip + " " + pack.ref}) + pack.bytes;
    Verdict git = gits(pack, body);
    ++(git.taken ? taken : refused);
    for (size_t inlineMax : {size_t(256) << 10, size_t(0)}) {
      Verdict own = ours(pack, body, inlineMax);
      EXPECT_EQ(own.taken, git.taken)
          << "seed " << seed << (inlineMax == 0 ? ", as extents" : ", in the record") << "\nchanged: "
          << pack.change << "\nhere: " << own.why << "\ngit: " << git.why;
    }
  }
  if (to - from < 100) return;
  // The packs are neither all good nor all bad.
  EXPECT_GT(taken, (to - from) / 20);
  EXPECT_GT(refused, (to - from) / 4);
}

}  // namespace
}  // namespace packmoor::gitlayer::test
