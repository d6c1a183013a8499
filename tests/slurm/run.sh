#!/usr/bin/env bash
# The job script jobs/slurm/generic/umbriel.sbatch under a real Slurm, which this test starts for itself on this machine:
#   - a run that needs at least four time limits is stopped before each by Slurm's signal, puts itself back into the
#     queue, goes on without repeating work, and ends with the data of a run that was never stopped, bit by bit;
#   - a run that never gets on is given up after MAX_RESTARTS;
#   - a job that was cancelled stays cancelled.
#
#   tests/slurm/run.sh [BUILD_FOLDER]       default build/ci; takes 7 to 9 minutes
#
# Environment: LAUNCH as in the job script (default: srun --mpi=pmix where Slurm has it, else mpirun); KEEP=yes leaves
# the folder with all logs.
# Needs slurmctld, slurmd and munged (Debian: slurm-wlm, munge); two idle cores; no systemd, no cgroups, no root.
# Exit codes: 0 passed, 1 failed, 77 skipped because Slurm is not installed.
set -euo pipefail
cd "$(dirname "$0")/../.."
. jobs/environment.sh
. tests/slurm/cluster.sh
case "${1:-}" in -h | --help) sed -n '2,14s/^# \{0,1\}//p' tests/slurm/run.sh; exit 0 ;; esac

for program in slurmctld slurmd munged sbatch; do
  command -v $program >/dev/null ||
    { echo "skipped: $program is not installed (Debian: apt-get install slurm-wlm munge)"; exit 77; }
done
build=$(realpath "${1:-build/ci}")
export UMBRIEL=$build/bin/umbriel
[ -x "$UMBRIEL" ] || { echo "error: no program $UMBRIEL: build first" >&2; exit 1; }
script=$PWD/jobs/slurm/generic/umbriel.sbatch
unset ${!SLURM_@} ${!SBATCH_@}             # this test may itself run inside a job

# --- The private folder and its end --------------------------------------------------------------------------------
folder=$(mktemp -d "${TMPDIR:-/tmp}/umbriel-slurm-XXXXXX")
finish() {
  local code=$?
  trap - EXIT
  set +e
  stop_cluster
  if [ "${KEEP:-no}" = yes ]; then echo "the logs are in $folder"; else rm -rf "$folder"; fi
  exit $code
}
trap finish EXIT
trap 'exit 1' INT TERM

fail() {
  local log
  echo "FAILED: $*" >&2
  for log in "$folder"/*.log; do            # start_cluster has shown those of the daemons that do not start
    if [ ! -s "$log" ] || [ "$log" = "$folder/munged.log" ]; then continue; fi
    printf '%s\n' "--- end of ${log##*/}" >&2
    tail -n 25 "$log" >&2
  done
  exit 1
}
passed() { echo "passed: $*"; }

# --- Small tools ---------------------------------------------------------------------------------------------------
# submit NAME SBATCH_OPTION... -- WORD...: prints the job's number. The options win over those in the script.
submit() {
  local name=$1 options=()
  shift
  while [ "$1" != -- ]; do options+=("$1"); shift; done
  shift
  sbatch --parsable --job-name="$name" --output="$folder/$name.log" --chdir="$folder" --account=test --partition=test \
    --ntasks=2 "${options[@]}" "$script" "$@" || fail "sbatch does not take the job"
}
# job NUMBER FIELD: what `scontrol show job` says of it.
job() { scontrol show job -o "$1" | tr ' ' '\n' | sed -n "s/^$2=//p" | head -n 1; }
job_ended() {
  case "$(job "$1" JobState)" in
    COMPLETED | FAILED | CANCELLED | TIMEOUT | NODE_FAIL | OUT_OF_MEMORY | PREEMPTED | DEADLINE | BOOT_FAIL) ;;
    *) return 1 ;;                          # also between two states: COMPLETING, REQUEUED, SIGNALING …
  esac
}
wait_for_job() { wait_until "$2" "job $1 to end" job_ended "$1" || fail "job $1 is still $(job "$1" JobState)"; }
# events FILE WORDS: how many lines of a run's log have these words.
events() { grep -c -- "$2" "$1" || true; }
digest() { "$UMBRIEL" inspect "$1" | sed -n 's/.*data digest: *//p'; }
seconds_of() { sed -n '/"event":"sampled"/s/.*"seconds":\([0-9.]*\).*/\1/p' "$1" | tail -n 1; }

# --- The run -------------------------------------------------------------------------------------------------------
interval=6                                  # seconds between checkpoints
cat >"$folder/run.toml" <<END
[run]
output = "$folder/none.h5"
checkpoint_minutes = $(awk "BEGIN { print $interval / 60 }")
export_fits = false
[survey]
size = [64, 64]
pixel_arcmin = 0.4
[survey.simulate]
mask = "cosmos-like"
seed = 20
[prior]
kind = "score"
model = "$PWD/jobs/priors/cosmos.safetensors"
END
output() { echo "run.output=\"$folder/$1.h5\""; }

echo "starting $(slurmctld -V) in $folder …"
start_cluster "$folder" || fail "Slurm does not start"
if [ -z "${LAUNCH:-}" ]; then
  LAUNCH=mpirun
  if srun --mpi=list 2>&1 | grep -qw pmix; then LAUNCH="srun --mpi=pmix"; fi
fi
export LAUNCH
echo "programs start with: $LAUNCH"

# --- A run that gets nowhere, while the cores are busy with the comparison -----------------------------------------
printf '#!/bin/sh\nexit 75\n' >"$folder/gets_nowhere"
chmod +x "$folder/gets_nowhere"
nowhere=$(UMBRIEL=$folder/gets_nowhere MAX_RESTARTS=2 submit nowhere --time=1 -- sample run.toml)

# --- One run without a stop: as long as four slices at least -------------------------------------------------------
# Slurm looks at time limits every half minute and sends the signal up to half a minute early: with a limit of 60 s and
# the signal 20 s before it a slice takes 10 to 40 s. Three never take 120 s.
long=125
chains=16
while :; do
  rm -f "$folder"/whole.*
  timeout 600 mpirun -n 2 "$UMBRIEL" sample "$folder/run.toml" --set "$(output whole)" --set sampler.chains=$chains \
    >"$folder/whole.log" 2>&1 || fail "the run without a stop ended with $?"
  seconds=$(seconds_of "$folder/whole.h5.log.jsonl")
  if awk "BEGIN { exit !($seconds >= $long) }"; then break; fi
  chains=$(awk "BEGIN { print 4 * int(1 + $chains * 1.3 * $long / $seconds / 4) }")
done
whole=$(digest "$folder/whole.h5") && [ -n "$whole" ] || fail "umbriel inspect gives no data digest"
echo "without a stop: $chains chains in ${seconds%.*} s, data digest $whole"

# --- The run that gets nowhere has been given up -------------------------------------------------------------------
wait_for_job "$nowhere" 120
[ "$(job "$nowhere" JobState) $(job "$nowhere" ExitCode) $(job "$nowhere" Restarts)" = "FAILED 75:0 2" ] ||
  fail "a run that gets nowhere: $(scontrol show job -o "$nowhere")"
passed "MAX_RESTARTS=2 ends a run that gets nowhere, with exit code 75"

# --- A cancelled job stays cancelled -------------------------------------------------------------------------------
cancelled=$(submit cancelled --time=10 -- sample run.toml --set "$(output cancelled)" --set sampler.chains=$chains)
wait_until 60 "the first checkpoint" grep -q '"event":"checkpoint"' "$folder/cancelled.h5.log.jsonl" ||
  fail "the job to cancel does not get on"
scancel "$cancelled"
wait_for_job "$cancelled" 60
sleep 8                                     # a requeued job would be back by now
[ "$(job "$cancelled" JobState) $(job "$cancelled" Restarts)" = "CANCELLED 0" ] ||
  fail "a cancelled job: $(scontrol show job -o "$cancelled")"
passed "a cancelled job stays cancelled"

# --- Time slices ---------------------------------------------------------------------------------------------------
start=$SECONDS
sliced=$(submit sliced --time=1 --signal=B:USR1@20 -- sample run.toml --set "$(output sliced)" \
  --set sampler.chains=$chains)
wait_for_job "$sliced" 900
took=$((SECONDS - start))

state="$(job "$sliced" JobState) $(job "$sliced" ExitCode)"
[ "$state" = "COMPLETED 0:0" ] || fail "the job of time slices ended as $state"
passed "the job is COMPLETED with exit code 0:0"

restarts=$(job "$sliced" Restarts)
log=$folder/sliced.h5.log.jsonl
[ "$restarts" -ge 3 ] ||
  fail "the run was over after $((restarts + 1)) slices: this machine was busier during the run without a stop"
[ "$(events "$folder/sliced.log" "back into the queue (restart ")" -eq "$restarts" ] &&
  [ "$(events "$log" '"message":"stopped before the end')" -eq "$restarts" ] &&
  [ "$(events "$log" '"message":"resuming: ')" -eq "$restarts" ] &&
  [ "$(events "$log" '"message":"umbriel sample: .* on 2 rank')" -eq $((restarts + 1)) ] ||
  fail "Slurm counts $restarts restarts, the log tells otherwise: $(cat "$log")"
passed "$((restarts + 1)) time slices, each but the last stopped in order, saved and requeued, in $took s"

# Each slice saved its work when it stopped, an interval after the save before at most; and what was finished and on its
# way when the next one began is no less than what had been finished before and was done since, in chains.
awk -v interval=$interval '
  function number(before,   text) { text = $0; sub(".*" before, "", text); return text + 0 }
  { split(substr($0, index($0, "T") + 1, 8), clock, ":"); now = 3600 * clock[1] + 60 * clock[2] + clock[3]
    if (now < last) now += 86400            # past midnight
    last = now }
  /"message":"umbriel sample: / { slice++; saved = now }
  /"event":"checkpoint"/ {
    if (now - saved > 2 * interval) { print "slice " slice ": " now - saved " s between two checkpoints"; bad = 1 }
    saved = now }
  /"message":"sampling \[/ { done = finished + number("\\] ") }
  /"message":"stopped before/ && now - saved > interval { print "slice " slice ": " now - saved " s unsaved"; bad = 1 }
  /"message":"resuming: / {
    finished = number("resuming: "); under_way = number("already, ")
    if (finished + under_way < done - 0.5) {
      print "slice " slice " begins with " finished " chains and " under_way " on their way; " done " were done"
      bad = 1 } }
  END { exit bad }' "$log" >"$folder/repeated.log" || fail "work was repeated: $(cat "$folder/repeated.log")"
passed "no slice repeats more than the $interval s between two checkpoints"

[ "$(digest "$folder/sliced.h5")" = "$whole" ] || fail "data digest $(digest "$folder/sliced.h5") instead of $whole"
passed "the data are equal bit by bit: $whole"
