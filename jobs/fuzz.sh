#!/usr/bin/env bash
# Fuzzes everything that reads a user's files: libFuzzer under AddressSanitizer, LeakSanitizer and
# UndefinedBehaviorSanitizer. Needs Clang; without it nothing is done, and said.
#
#   jobs/fuzz.sh [SECONDS]     SECONDS: for each fuzzer; without it, the same few thousand inputs each time
#
# Environment: FUZZ_BUILD (default build/fuzz), JOBS (default: all cores).
# Inputs that break something are left in FUZZ_BUILD/tests/fuzz/findings; FUZZ_BUILD/bin/fuzz_NAME FILE runs one again.
set -euo pipefail
case "${1:-}" in -h | --help) sed -n '2,9s/^# \{0,1\}//p' "$0"; exit 0 ;; esac
cd "$(dirname "$0")/.."
. jobs/environment.sh
build=${FUZZ_BUILD:-build/fuzz}

export CC=clang CXX=clang++
if ! command -v clang++ >/dev/null || ! jobs/dependencies.sh --without-tests --with-fuzzers; then
  echo "No fuzzing: Clang with its libFuzzer is not here (Debian: apt-get install clang libclang-rt-14-dev)."
  exit 0
fi
configure "$build" -DUMBRIEL_BUILD_TESTS=OFF -DUMBRIEL_BUILD_FUZZERS=ON -DUMBRIEL_WERROR=ON \
  -DUMBRIEL_FUZZ_SECONDS="${1:-0}"
cmake --build "$build" --parallel "$JOBS" --target fuzzers
ctest --test-dir "$build" --output-on-failure --parallel "$JOBS" --label-exclude slow
