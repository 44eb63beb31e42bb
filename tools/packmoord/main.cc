// packmoord: one node of a Packmoor cluster.
#include "exit_code.h"
#include "log.h"
#include "node.h"

#include <kernelio/co.h>
#include <rpc/config.h>
#include <rpc/sentence.h>

#include <kj/async-unix.h>
#include <kj/debug.h>

#include <CLI/CLI.hpp>

#include <csignal>
#include <cstdio>

#include <sys/resource.h>
#include <unistd.h>

namespace packmoor::daemon {
namespace {

constexpr const char* kConfigDefault = "/etc/packmoor/packmoord.toml";
constexpr const char* kFooter = R"(
Exit codes:
  0  stopped as asked
  1  something that the node needs failed
  2  wrong usage, configuration or certificates
  3  the data directory is another node's, in use, or damaged
  4  an address or socket cannot be listened on
  5  the journal could not be written

SIGTERM and SIGINT stop the node cleanly; a second one ends it at once.
)";

void raiseFileLimit() {
  rlimit limit{};
  if (getrlimit(RLIMIT_NOFILE, &limit) != 0 || limit.rlim_cur == limit.rlim_max) return;
  limit.rlim_cur = limit.rlim_max;
  setrlimit(RLIMIT_NOFILE, &limit);
}

kj::Promise<void> stopOnSignal(kj::UnixEventPort& port, int signum, Node& node) {
  return port.onSignal(signum)
      .then([&node, &port, signum](siginfo_t&&) {
        node.stop();
        return port.onSignal(signum);
      })
      .then([](siginfo_t&&) {
        logWarning("node", "Asked to stop a second time: ending at once.");
        _exit(kFailed);
      });
}

int fail(int code, const std::string& sentence) {
  logError("node", sentence);
  return code;
}

int serve(const rpc::NodeConfig& config) {
  startLog(config.log.level);
  KjLogScope kjLog(config.log.level);
  raiseFileLimit();
  // A broken connection and a file size limit are errors of the call, not ends of the process.
  std::signal(SIGPIPE, SIG_IGN);
  std::signal(SIGXFSZ, SIG_IGN);
  kj::UnixEventPort::captureSignal(SIGTERM);
  kj::UnixEventPort::captureSignal(SIGINT);
  logInfo("node", "packmoord " PACKMOOR_VERSION " starts as node " + config.node.id +
                      " of cluster " + config.node.cluster + " in " + config.node.data + ".");
  ExitCode step = kBadData;
  try {  // the one place where what ends the process arrives
    auto io = kj::setupAsyncIo();
    Node node(io, config, step);
    auto signals = stopOnSignal(io.unixEventPort, SIGTERM, node)
                       .exclusiveJoin(stopOnSignal(io.unixEventPort, SIGINT, node))
                       .eagerlyEvaluate(nullptr);
    node.run().wait(io.waitScope);
    return kStopped;
  } catch (const StartFailure& failure) {
    return fail(failure.code, failure.what());
  } catch (const kj::Exception& e) {
    return fail(step, rpc::sentenceOf(e));
  } catch (const std::exception& e) {
    return fail(step, e.what());
  }
}

int run(int argc, char** argv) {
  CLI::App app("Serves git repositories that are replicated to other nodes before a push is "
               "acknowledged.", "packmoord");
  std::string config = kConfigDefault, check;
  app.footer(kFooter);
  app.set_version_flag("--version", "packmoord " PACKMOOR_VERSION);
  app.add_option("--config", config, "The configuration [/etc/packmoor/packmoord.toml]");
  app.add_option("--check-config", check, "Check this configuration, say what is wrong, and exit");
  try {
    app.parse(argc, argv);
  } catch (const CLI::Success& shown) {
    return app.exit(shown);
  } catch (const CLI::ParseError& error) {
    std::fprintf(stderr, "error: %s\ntry: packmoord --help\n", error.what());
    return kBadConfiguration;
  }
  bool checking = !check.empty();
  const std::string& file = checking ? check : config;
  auto result = rpc::readConfig(file);
  if (!result.problems.empty()) {
    std::fprintf(stderr, "error: The configuration is refused.\n%s",
                 rpc::describeProblems(file, result.problems).c_str());
    return kBadConfiguration;
  }
  if (checking) {
    std::printf("%s: the configuration is good.\n", file.c_str());
    return kStopped;
  }
  return serve(result.config);
}

}  // namespace
}  // namespace packmoor::daemon

int main(int argc, char** argv) { return packmoor::daemon::run(argc, argv); }
