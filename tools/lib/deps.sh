# Sourced by tools/dev: installs the distribution's packages that are missing.

DEPS_BUILD="g++ cmake ninja-build ccache lld pkg-config git python3
  liburing-dev libgit2-dev libcapnp-dev capnproto libprotobuf-dev protobuf-compiler libssl-dev
  librocksdb-dev libxxhash-dev libdeflate-dev libzstd-dev zlib1g-dev libtomlplusplus-dev
  libcli11-dev libspdlog-dev libfmt-dev libsystemd-dev nlohmann-json3-dev libsodium-dev libmimalloc-dev
  libgtest-dev libgmock-dev"
DEPS_TEST="etcd-server etcd-client openssl ca-certificates openssh-server openssh-client"
DEPS_BENCH="nginx-light fcgiwrap"

missing_packages() {
  local package
  for package in "$@"; do
    dpkg-query -W -f='${Status}\n' "$package" 2>/dev/null | grep -q '^install ok installed$' ||
      printf '%s ' "$package"
  done
}

# install_deps SET...: sets are build, test, bench.
install_deps() {
  local wanted="" set
  for set in "$@"; do
    case $set in
      build) wanted+=" $DEPS_BUILD" ;;
      test) wanted+=" $DEPS_TEST" ;;
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
