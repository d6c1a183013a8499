#!/usr/bin/env bash
# From a fresh clone to a posterior mass map: builds umbriel, samples the posterior of a simulated survey and writes the
# report. Nothing is downloaded but, where they are missing, packages.
#
#   jobs/demo.sh [RANKS]      RANKS: MPI ranks, default all cores, at most 8
#
# Environment: BUILD (default build/demo), JOBS (cores to build with, default all).
set -euo pipefail
case "${1:-}" in -h | --help) sed -n '2,7s/^# \{0,1\}//p' "$0"; exit 0 ;; esac
cd "$(dirname "$0")/.."
. jobs/environment.sh
ranks=${1:-$((JOBS < 8 ? JOBS : 8))}
build=${BUILD:-build/demo}

jobs/dependencies.sh --without-tests
echo "Building umbriel in $build …"
configure "$build" -DUMBRIEL_BUILD_TESTS=OFF
cmake --build "$build" --parallel "$JOBS" --target umbriel -- ${VERBOSE:+-v} >"$build/build.log" 2>&1 ||
  { cat "$build/build.log" >&2; exit 2; }

result=$PWD/$build/result
mkdir -p "$result"
umbriel=$build/bin/umbriel
echo "Sampling on $ranks ranks …"
start=$SECONDS
mpirun -n "$ranks" "$umbriel" sample jobs/configs/demo.toml --set "run.output=\"$result/demo.h5\""
echo "… took $((SECONDS - start)) s."
"$umbriel" report "$result/demo.h5" -o "$result/demo.html"
"$umbriel" inspect "$result/demo.h5" | grep -v "^    "   # without the list of datasets
echo
echo "Result file:  $result/demo.h5"
echo "FITS maps:    $(ls "$result"/*.fits | tr '\n' ' ')"
echo "HTML page:    $result/demo.html  (open it in a browser)"
