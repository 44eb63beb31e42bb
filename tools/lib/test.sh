# Sourced by tools/dev: builds what the tests need and runs all of them through one ctest.
#
# release: units, integration, lint and fuzz corpora. asan: units and fuzz corpora with
# AddressSanitizer and UndefinedBehaviorSanitizer. tsan: the units that use threads.

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
  install_deps build test
  local preset
  for preset in "${presets[@]}"; do
    case $preset in
      tsan) build_preset tsan threaded_tests ;;
      *) build_preset "$preset" ;;
    esac
  done
  # One run over all builds, so that there is one summary.
  mkdir -p build/test
  : >build/test/CTestTestfile.cmake
  for preset in "${presets[@]}"; do
    printf 'subdirs("%s/build/%s")\n' "$ROOT" "$preset" >>build/test/CTestTestfile.cmake
  done
  say "Running the tests (log: build/test/Testing/Temporary/LastTest.log)."
  local code=0
  ctest --test-dir build/test -j "$BUILD_JOBS" --output-on-failure --no-tests=error \
    "${ctest_options[@]}" | tee build/test/output.log | test_progress || code=$?
  if [ "$code" -eq 0 ]; then
    say "All tests passed ($(((SECONDS - started) / 60)) min)."
  else
    fail "Tests failed; what they said is above and in build/test/output.log."
  fi
}

# Every fiftieth passed test, and everything that is not a passed test.
test_progress() {
  awk '/ Test +#[0-9]+: .* Passed / { if (++passed % 50 == 0) { print; fflush() } next }
       /^ *Start +[0-9]+: / { next }
       { print; fflush() }'
}
