#!/bin/sh
# Builds the checker in a temporary folder and runs it: the default runs without
# arguments, else what checker.cc says ("all", "list", or names of runs).
set -eu
here=$(cd "$(dirname "$0")" && pwd)
out=$(mktemp -d)
trap 'rm -rf "$out"' EXIT
"${CXX:-g++}" -std=c++17 -O2 -o "$out/checker" "$here"/checker.cc \
    "$here"/runs.cc "$here"/protocol_model.cc "$here"/model_state.cc -pthread
"$out/checker" "$@"
