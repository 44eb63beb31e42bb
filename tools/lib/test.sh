# Sourced by tools/dev: builds what the tests need and runs all of them through one ctest.
#
# release: units, integration, lint and fuzz corpora. asan: units and fuzz corpora with
# AddressSanitizer and UndefinedBehaviorSanitizer. tsan: the units that use threads.
#
# Integration tests share the machine with everything else that runs on it. Where only those failed,
# they are run once more, alone and one after another; what they said first is kept and shown, and a
# test that passes only then is named loudly. Every other failure counts at once.

test_command() {
  local presets=(release asan tsan) ctest_options=() started=$SECONDS
  while [ $# -gt 0 ]; do
    case $1 in
      --quick)
        presets=(release)
        shift
        ;;
      -R | -L | -E)
        ctest_options+=("$1" "${2:?$1 needs a value}")
        shift 2
        ;;
      *) fail "test has no option $1; see tools/dev help." 2 ;;
    esac
  done
  install_deps build test clients
  install_node_clients
  local preset
  for preset in "${presets[@]}"; do
    case $preset in
      tsan) build_preset tsan threaded_tests ;;
      *) build_preset "$preset" ;;
    esac
  done
  # One run over all builds, so that there is one summary.
  mkdir -p build/test
  rm -f build/test/Testing/Temporary/LastTestsFailed.log
  : >build/test/CTestTestfile.cmake
  for preset in "${presets[@]}"; do
    printf 'subdirs("%s/build/%s")\n' "$ROOT" "$preset" >>build/test/CTestTestfile.cmake
  done
  say "Running the tests (log: build/test/Testing/Temporary/LastTest.log)."
  local code=0
  ctest --test-dir build/test -j "$BUILD_JOBS" --output-on-failure --no-tests=error \
    "${ctest_options[@]}" | tee build/test/output.log | test_progress || code=$?
  rm -f build/test/second.log
  if [ "$code" -ne 0 ] && only_processes_failed; then
    code=0
    second_try || code=$?
  fi
  if [ "$code" -eq 0 ]; then
    local how=""
    [ ! -e build/test/second.log ] || how=", some of them at the second try only"
    say "All tests passed$how ($(((SECONDS - started) / 60)) min)."
  else
    fail "Tests failed; what they said is above and in build/test/output.log."
  fi
}

# The tests that the last run of ctest lists as failed, one a line.
failed_tests() {
  sed -n 's/^[0-9]*://p' build/test/Testing/Temporary/LastTestsFailed.log 2>/dev/null
}

only_processes_failed() {
  local failed
  failed=$(failed_tests)
  [ -n "$failed" ] && ! grep -qEv '^(integration\.|(asan/)?rpc\.Etcd)' <<<"$failed"
}

# Runs those that failed once more; the code is that of this run.
second_try() {
  local first code=0 name
  first=$(failed_tests)
  say "Only tests of real processes failed. They are run once more, each alone; the first output is above" \
    "and in build/test/output.log."
  ctest --test-dir build/test -j 1 --rerun-failed --output-on-failure --no-tests=error |
    tee build/test/second.log || code=$?
  for name in $first; do
    if ! { [ "$code" -ne 0 ] && failed_tests | grep -qxF "$name"; }; then
      say "PASSED AT THE SECOND TRY ONLY: $name. Its first failure is in build/test/output.log."
    fi
  done
  return "$code"
}

# Every fiftieth passed test, and everything that is not a passed test.
test_progress() {
  awk '/ Test +#[0-9]+: .* Passed / { if (++passed % 50 == 0) { print; fflush() } next }
       /^ *Start +[0-9]+: / { next }
       { print; fflush() }'
}
