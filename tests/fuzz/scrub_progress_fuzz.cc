// module: replicator
// Feeds bytes to the decoder of what the scrubber remembers, as they are and with the hash that they
// would have. What is accepted must encode to what decodes to the same.
//
// Corpus: the message without its hash, empty and with a finding. Made by running this program on any
// file with the environment variable PACKMOOR_FUZZ_CORPUS set to a folder to fill.
#include "scrub_progress.h"

#include "kernelio/check.h"

#include <cstdlib>
#include <cstring>
#include <fstream>
#include <string>
#include <vector>

using namespace packmoor::replicator;  // NOLINT: one program, one file

namespace {

void save(const std::string& path, const ScrubProgress& progress) {
  auto bytes = encodeScrubProgress(progress);
  std::ofstream(path, std::ios::binary)
      .write(reinterpret_cast<const char*>(bytes.begin()),
             static_cast<std::streamsize>(bytes.size() - sizeof(Hash128)));
}

bool makeCorpus(const char* folderName) {
  if (folderName == nullptr) return false;
  const std::string folder = folderName;
  ScrubProgress progress;
  save(folder + "/empty", progress);
  progress.status.phase = ScrubPhase::kJournal;
  progress.segment = 9;
  progress.volume = "main";
  ScrubFinding finding;
  finding.kind = ScrubPhase::kState;
  finding.volume = "main";
  finding.what = "Something is damaged.";
  finding.foundMs = 1;
  progress.status.findings.push_back(finding);
  save(folder + "/finding", progress);
  return true;
}

void check(kj::ArrayPtr<const kj::byte> bytes) {
  auto decoded = decodeScrubProgress(bytes);
  KJ_IF_MAYBE(progress, decoded) {
    auto encoded = encodeScrubProgress(*progress);
    auto again = decodeScrubProgress(encoded);
    KJ_IF_MAYBE(same, again) {
      auto twice = encodeScrubProgress(*same);
      PACKMOOR_CHECK(twice.size() == encoded.size() &&
                         std::memcmp(twice.begin(), encoded.begin(), encoded.size()) == 0,
                     "a progress that does not come back the same");
    } else {
      PACKMOOR_CHECK(false, "a progress that does not come back");
    }
  }
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  static const bool made = makeCorpus(std::getenv("PACKMOOR_FUZZ_CORPUS"));
  (void)made;
  check(kj::arrayPtr(data, size));
  std::vector<kj::byte> whole(data, data + size);
  const Hash128 hash = hashBytes(kj::arrayPtr(data, size));
  whole.resize(size + sizeof hash);
  std::memcpy(whole.data() + size, &hash, sizeof hash);
  check(kj::arrayPtr(whole.data(), whole.size()));
  return 0;
}
