// Serves one stock git repository on standard input and output through Packmoor's upload-pack, or
// upload-archive,
// for tests that run real git clients: `git -c protocol.ext.allow=always fetch
// "ext::upload_pack_stdio [options] FOLDER"`.
//
// Options: --append-only: the repository says that every object in it is reachable, so clones may
// get whole packs; --any: any object may be wanted or archived; --archive: upload-archive; --time: says how long it took, without opening the
// repository. The protocol's version is read from GIT_PROTOCOL as git's own server does.
#include "../unit/gitlayer/bare_repository.h"
#include "../unit/gitlayer/fake_git_node.h"

#include "gitlayer/upload_archive.h"
#include "gitlayer/upload_pack.h"

#include <kernelio/sim_env.h>
#include <kernelio/thread_pool.h>
#include <kj/async-io.h>
#include <kj/async-unix.h>
#include <kj/debug.h>

#include <chrono>
#include <cstdlib>
#include <cstring>

int main(int argc, char** argv) {
  using namespace packmoor;
  using namespace packmoor::gitlayer;
  bool appendOnly = false, timed = false, archive = false;
  UploadPolicy policy;
  int next = 1;
  for (; next < argc && argv[next][0] == '-'; ++next) {
    if (strcmp(argv[next], "--append-only") == 0) appendOnly = true;
    if (strcmp(argv[next], "--time") == 0) timed = true;
    if (strcmp(argv[next], "--archive") == 0) archive = true;
    if (strcmp(argv[next], "--any") == 0) policy.wants = UploadPolicy::Wants::kAny;
  }
  if (next + 1 != argc) {
    fprintf(stderr, "usage: upload_pack_stdio [--append-only] [--any] [--archive] [--time] FOLDER\n");
    return 2;
  }
  gitlayer::test::BareRepository repository(argv[next]);
  repository.info.appendOnly = appendOnly;
  repository.info.settings.archiveUnreachable = policy.wants == UploadPolicy::Wants::kAny;

  auto io = kj::setupAsyncIo();
  auto in = io.lowLevelProvider->wrapInputFd(0);
  auto out = io.lowLevelProvider->wrapOutputFd(1);
  auto pool = kernelio::makeThreadPool(io.unixEventPort, 2);
  kernelio::SimStorage storage(1);
  kernelio::SimDisk disk(storage, io.provider->getTimer());
  kernelio::SimClock clock(io.provider->getTimer());
  kernelio::SeededRandom random(1);
  kernelio::SimFaultPoints faults(io.provider->getTimer());
  kernelio::Env env{disk, io.provider->getTimer(), clock, random, *pool, faults};
  gitlayer::test::FakeGitNode node(env);

  GitRequest request;
  request.repository = "bare";
  const char* protocol = getenv("GIT_PROTOCOL");
  if (protocol != nullptr && strstr(protocol, "version=2") != nullptr) request.protocolVersion = 2;
  if (protocol != nullptr && strstr(protocol, "version=1") != nullptr) request.protocolVersion = 1;
  auto queue = kj::refcounted<PackQueue>(node.options().packBuildsMax);
  auto session = archive ? makeUploadArchiveSession(node, *queue, kj::mv(request), repository.view())
                         : makeUploadPackSession(node, *queue, kj::mv(request), repository.view(), policy);
  auto begin = std::chrono::steady_clock::now();
  auto served = session->advertise(*out, false).then([&]() { return session->serve(*in, *out); });
  KJ_IF_MAYBE(failure, kj::runCatchingExceptions([&]() { served.wait(io.waitScope); })) {
    if (failure->getType() != kj::Exception::Type::DISCONNECTED) {
      kj::throwFatalException(kj::mv(*failure));
    }
    return 1;
  }
  if (timed) {
    std::chrono::duration<double> spent = std::chrono::steady_clock::now() - begin;
    fprintf(stderr, "served in %.3f s, %llu entries inflated\n", spent.count(),
            static_cast<unsigned long long>(repository.reads));
  }
  return 0;
}
