#!/usr/bin/env bash
# Everything that must hold before a change is accepted: what is needed is installed, the program
# builds without warnings, the static rules hold, and every test passes, once as released, once with
# AddressSanitizer and UndefinedBehaviorSanitizer, and once without the libraries that can be left
# out.
#     scripts/test.sh [--no-deps] [--no-asan] [--no-slim]
# The last lines count passed, failed and skipped tests of each build: a skip is never silent.
set -euo pipefail
cd "$(dirname "$0")/.."

with_deps=1 with_asan=1 with_slim=1
for option in "$@"; do
  case $option in
    --no-deps) with_deps=0 ;;
    --no-asan) with_asan=0 ;;
    --no-slim) with_slim=0 ;;
    *) echo "usage: scripts/test.sh [--no-deps] [--no-asan] [--no-slim]" >&2; exit 2 ;;
  esac
done
jobs=$(nproc)
summary=()
status=0

# count_of NAME REPORT: an attribute of the report's test suite, each on a line of its own.
count_of() { grep -m 1 -oP "^\\s*$1=\"\\K[0-9]+" "$2"; }

# run_suite PRESET BUILD: configure, build, test; a failing test does not hide the other suite.
run_suite() {
  local preset=$1 build=$2 report=$2/ctest.xml
  cmake --preset "$preset" -G Ninja
  cmake --build "$build" -j "$jobs"
  rm -f "$report"
  ctest --test-dir "$build" --output-on-failure -j 2 --output-junit "$PWD/$report" || status=1
  local all failed skipped
  all=$(count_of tests "$report")
  failed=$(count_of failures "$report")
  skipped=$(count_of skipped "$report")
  summary+=("$preset: $((all - failed - skipped)) passed, $failed failed, $skipped skipped")
}

if ((with_deps)); then scripts/deps.sh; fi
run_suite cpu build
scripts/check.sh build || status=1
if ((with_asan)); then run_suite asan build-asan; fi
if ((with_slim)); then run_suite slim build-slim; fi

echo
printf '%s\n' "${summary[@]}"
if ((status != 0)); then echo "FAILED"; else echo "ok"; fi
exit "$status"
