# Sourced by tools/dev: messages and small helpers.

say() { printf '%s\n' "== $*"; }

# fail SENTENCE [CODE]
fail() {
  printf 'error: %s\n' "$1" >&2
  exit "${2:-1}"
}

# run_logged LOG COMMAND...: quiet while it works, the end of the log when it does not.
run_logged() {
  local log=$1
  shift
  if ! "$@" >"$log" 2>&1; then
    tail -n 30 "$log" >&2
    fail "This failed: $*. The whole log is $log."
  fi
}
