#include "digest_keeper.h"

#include <gitlayer/git_queries.pb.h>

#include <kj/debug.h>

namespace packmoor::gitlayer {

void DigestKeeper::keep(uint64_t index, std::shared_ptr<const StateReader> state) {
  Kept& kept = kept_[index];
  kept.state = std::move(state);
  kept.since = env_.timer.now();
  while (kept_.size() > kKeptMax) kept_.erase(kept_.begin());
}

bool DigestKeeper::isReading() {
  bool reading = false;
  for (auto& [index, kept] : kept_) {
    if (!kept.running && env_.timer.now() - kept.since > kKeptFor) kept.state = nullptr;
    if (kept.state != nullptr) reading = true;
  }
  return reading;
}

void DigestKeeper::start(uint64_t index, Kept& kept) {
  kept.running = true;
  kj::Promise<StateDigest> digest = computeDigest(env_, packs_, kept.state);
  kept.work = digest
                  .then(
                      [&kept](StateDigest found) { kept.digest = std::move(found); },
                      [&kept](kj::Exception&& exception) {
                        kept.digest.problem = exception.getDescription().cStr();
                      })
                  .then([&kept]() {
                    kept.done = true;
                    kept.running = false;
                    kept.state = nullptr;
                  })
                  .eagerlyEvaluate(nullptr);
}

kj::Array<kj::byte> DigestKeeper::answer(kj::ArrayPtr<const kj::byte> bytes, uint64_t applied) {
  pb::DigestQuestion question;
  KJ_REQUIRE(question.ParseFromArray(bytes.begin(), static_cast<int>(bytes.size())),
             "The question for a digest cannot be read.");
  pb::DigestAnswer answer;
  auto found = kept_.find(question.index());
  if (question.index() > applied) {
    answer.set_state(pb::DigestAnswer::UNKNOWN);
  } else if (found == kept_.end() || (!found->second.done && found->second.state == nullptr)) {
    answer.set_state(pb::DigestAnswer::FORGOTTEN);
  } else if (!found->second.done) {
    if (!found->second.running) start(question.index(), found->second);
    answer.set_state(pb::DigestAnswer::RUNNING);
  } else {
    const StateDigest& digest = found->second.digest;
    answer.set_state(pb::DigestAnswer::DONE);
    answer.set_refs(digest.refs);
    answer.set_repositories(digest.repositories);
    answer.set_objects(digest.objects);
    answer.set_ref_count(digest.refCount);
    answer.set_repository_count(digest.repositoryCount);
    answer.set_object_count(digest.objectCount);
    answer.set_problem(digest.problem);
  }
  auto result = kj::heapArray<kj::byte>(answer.ByteSizeLong());
  answer.SerializeToArray(result.begin(), static_cast<int>(result.size()));
  return result;
}

}  // namespace packmoor::gitlayer
