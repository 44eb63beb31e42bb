# Sourced by tools/dev: runs the fuzzers of tests/fuzz for a while, each on its corpus.
#
# What a fuzzer learns is kept in build/fuzz-corpus/NAME; what breaks it in build/fuzz-findings/NAME,
# with its log. A finding that is mended goes into tests/fuzz/corpus/NAME, where every build replays it.

FUZZ_TIMEOUT_SECONDS=60
FUZZ_MEMORY_MIB=2560

# run_fuzzer NAME SECONDS
run_fuzzer() {
  local name=$1 seconds=$2 learned=build/fuzz-corpus/$1 found=build/fuzz-findings/$1 code=0
  mkdir -p "$learned" "$found"
  "build/fuzz/bin/$name" -max_total_time="$seconds" -timeout="$FUZZ_TIMEOUT_SECONDS" \
    -rss_limit_mb="$FUZZ_MEMORY_MIB" -print_final_stats=1 -artifact_prefix="$found/" \
    "$learned" "tests/fuzz/corpus/$name" >"$found/log" 2>&1 || code=$?
  if [ "$code" -ne 0 ]; then
    echo "FOUND by $name: see $found/log"
    return 1
  fi
  echo "$name: $(sed -n 's/^stat::number_of_executed_units: *//p' "$found/log") inputs, nothing found"
}

fuzz_command() {
  local seconds=60 jobs=1 names=() name path code=0
  while [ $# -gt 0 ]; do
    case $1 in
      --seconds | --jobs)
        [[ ${2:-} =~ ^[1-9][0-9]*$ ]] || fail "$1 needs a number." 2
        [ "$1" = --jobs ] && jobs=$2 || seconds=$2
        shift 2
        ;;
      -*) fail "fuzz has no option $1; see tools/dev help." 2 ;;
      *)
        [ -f "tests/fuzz/$1.cc" ] || [ -f "tests/fuzz/${1}_fuzz.cc" ] ||
          fail "There is no fuzzer $1; they are: $(cd tests/fuzz && ls ./*_fuzz.cc | sed 's|^./||; s/_fuzz.cc$//' | paste -sd ' ')." 2
        names+=("${1%_fuzz}_fuzz")
        shift
        ;;
    esac
  done
  if [ ${#names[@]} -eq 0 ]; then
    for path in tests/fuzz/*_fuzz.cc; do names+=("$(basename "$path" .cc)"); done
  fi
  build_preset fuzz "${names[@]}"
  say "Running ${#names[@]} fuzzers for $seconds s each, $jobs at a time."
  export -f run_fuzzer
  export FUZZ_TIMEOUT_SECONDS FUZZ_MEMORY_MIB
  printf '%s\n' "${names[@]}" |
    xargs -P "$jobs" -I{} bash -c 'run_fuzzer "$1" "$2"' run {} "$seconds" || code=$?
  [ "$code" -eq 0 ] || fail "Fuzzers found something; the inputs are in build/fuzz-findings."
  say "No fuzzer found anything."
}
