# Sourced by tools/dev: clang-format on request; the style is not enforced.

fmt_command() {
  command -v clang-format >/dev/null || fail "clang-format is not installed (package clang-format)."
  local files=("$@")
  if [ ${#files[@]} -eq 0 ]; then
    local base
    base=$(git merge-base HEAD main 2>/dev/null || git rev-parse HEAD)
    mapfile -t files < <(git diff --name-only --diff-filter=d "$base" -- '*.h' '*.cc')
  fi
  if [ ${#files[@]} -eq 0 ]; then
    say "No file changed."
    return
  fi
  clang-format -i "${files[@]}"
  say "Formatted ${#files[@]} files."
}
