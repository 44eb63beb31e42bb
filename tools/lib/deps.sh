# Sourced by tools/dev: installs the distribution's packages that are missing.

DEPS_BUILD="g++ cmake ninja-build ccache lld pkg-config git python3
  liburing-dev libgit2-dev libcapnp-dev capnproto libprotobuf-dev protobuf-compiler libssl-dev
  librocksdb-dev libxxhash-dev libdeflate-dev libzstd-dev zlib1g-dev libtomlplusplus-dev
  libcli11-dev libspdlog-dev libfmt-dev libsystemd-dev nlohmann-json3-dev libsodium-dev libmimalloc-dev
  libgtest-dev libgmock-dev"
DEPS_TEST="etcd-server etcd-client openssl ca-certificates openssh-server openssh-client"
# Clients that are not git (tests/clients); npm comes with some builds of nodejs.
DEPS_CLIENTS="python3-dulwich python3-pygit2 libjgit-java openjdk-17-jdk-headless libslf4j-java"
command -v npm >/dev/null || DEPS_CLIENTS+=" nodejs npm"
DEPS_BENCH="nginx-light fcgiwrap"

missing_packages() {
  local package
  for package in "$@"; do
    dpkg-query -W -f='${Status}\n' "$package" 2>/dev/null | grep -q '^install ok installed$' ||
      printf '%s ' "$package"
  done
}

# install_deps SET...: sets are build, test, clients, bench.
install_deps() {
  local wanted="" set
  for set in "$@"; do
    case $set in
      build) wanted+=" $DEPS_BUILD" ;;
      test) wanted+=" $DEPS_TEST" ;;
      clients) wanted+=" $DEPS_CLIENTS" ;;
      bench) wanted+=" $DEPS_BENCH" ;;
    esac
  done
  if ! command -v apt-get >/dev/null; then
    say "This is not a Debian system; going on with what is installed. Needed:" $wanted
    return 0
  fi
  local missing
  # shellcheck disable=SC2086
  missing=$(missing_packages $wanted)
  if [ -z "$missing" ]; then
    say "All needed packages are installed."
    return 0
  fi
  local as_root=""
  if [ "$(id -u)" -ne 0 ]; then
    command -v sudo >/dev/null ||
      fail "These packages are missing, and neither root nor sudo is at hand: $missing"
    as_root="sudo"
  fi
  mkdir -p build
  say "Installing $(wc -w <<<"$missing") packages: $missing"
  run_logged build/deps.log $as_root env DEBIAN_FRONTEND=noninteractive apt-get -q update
  # shellcheck disable=SC2086
  run_logged build/deps.log $as_root env DEBIAN_FRONTEND=noninteractive \
    apt-get -q -y --no-install-recommends install $missing
  say "The packages are installed."
}

# What npm has for the tests, into build/clients; without a network the test that needs it is skipped.
install_node_clients() {
  mkdir -p build/clients
  cmp -s tests/clients/package-lock.json build/clients/installed.json && return 0
  cp tests/clients/package.json tests/clients/package-lock.json build/clients/
  if (cd build/clients && npm ci --ignore-scripts --no-audit --no-fund >npm.log 2>&1); then
    cp tests/clients/package-lock.json build/clients/installed.json
  else
    say "npm could not install what tests/clients names (build/clients/npm.log); one test is skipped."
  fi
}
