#!/usr/bin/env bash
# Builds umbriel with warnings as errors and runs its tests; then, where Clang is there, a few thousand inputs for each fuzzer.
#
#   jobs/test.sh [--slow]
#     --slow  also the tests labelled slow (minutes each)
#
# Environment: BUILD (default build/ci), JOBS (default: all cores).
set -euo pipefail
cd "$(dirname "$0")/.."
. jobs/environment.sh

labels=(--label-exclude slow)
fuzz_seconds=0
for argument in "$@"; do
  case "$argument" in
    --slow) labels=() fuzz_seconds=600 ;;
    -h | --help) sed -n '2,7s/^# \{0,1\}//p' "$0"; exit 0 ;;
    *) echo "error: unknown option $argument (see $0 --help)" >&2; exit 2 ;;
  esac
done
build=${BUILD:-build/ci}

jobs/dependencies.sh
configure "$build" -DUMBRIEL_BUILD_TESTS=ON -DUMBRIEL_WERROR=ON
cmake --build "$build" --parallel "$JOBS"
ctest --test-dir "$build" --output-on-failure --parallel "$JOBS" "${labels[@]}"
jobs/fuzz.sh "$fuzz_seconds"
