# Sourced by tools/dev: configures and builds a preset.

BUILD_JOBS=$(nproc)

# build_preset PRESET [TARGET...]
build_preset() {
  local preset=$1 started=$SECONDS program
  shift
  mkdir -p build/bin
  if [ ! -e "build/$preset/build.ninja" ]; then
    say "Configuring build/$preset."
    run_logged "build/configure-$preset.log" cmake --preset "$preset"
  fi
  say "Building preset $preset on $BUILD_JOBS processors."
  local targets=()
  [ $# -eq 0 ] || targets=(--target "$@")
  NINJA_STATUS="[$preset %f/%t %es] " \
    cmake --build "build/$preset" -j "$BUILD_JOBS" "${targets[@]}" ||
    fail "Preset $preset does not build."
  # The sanitized builds are for tests only.
  case $preset in
    release | debug | clang)
      for program in packmoord packmoorctl packmoor-shell packmoor-bench; do
        [ ! -x "build/$preset/bin/$program" ] ||
          ln -sfn "../$preset/bin/$program" "build/bin/$program"
      done
      ;;
  esac
  say "Preset $preset is built ($((SECONDS - started)) s)."
}

build_command() {
  local preset=release targets=()
  while [ $# -gt 0 ]; do
    case $1 in
      --preset)
        preset=${2:?--preset needs a name}
        shift 2
        ;;
      --preset=*)
        preset=${1#*=}
        shift
        ;;
      -*) fail "build has no option $1; see tools/dev help." 2 ;;
      *)
        targets+=("$1")
        shift
        ;;
    esac
  done
  build_preset "$preset" "${targets[@]}"
  case $preset in
    release | debug | clang) say "The programs are in build/bin." ;;
    *) say "The programs are in build/$preset/bin." ;;
  esac
}
