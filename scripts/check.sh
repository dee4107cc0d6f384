#!/usr/bin/env bash
# Static rules: scripts/tidy.py, and the sources of a configured build through a second compiler.
#     scripts/check.sh [BUILD]        BUILD is "build" unless given
# What is not installed (python3, clang) is said and left out.
set -euo pipefail
cd "$(dirname "$0")/.."
build=${1:-build}

if ! command -v python3 > /dev/null; then
  echo "check.sh: no python3; the rules of scripts/tidy.py are not checked"
  exit 0
fi
python3 scripts/tidy.py

# clang has its own <omp.h>, in a package of its own.
if ! echo '#include <omp.h>' | clang -fopenmp -fsyntax-only -x c - 2> /dev/null; then
  echo "check.sh: no clang with OpenMP; the sources are checked by one compiler only"
elif [[ ! -f $build/compile_commands.json ]]; then
  echo "check.sh: $build is not configured; clang is not run"
else
  python3 scripts/tidy.py --clang "$build/compile_commands.json"
fi
