# shellcheck shell=bash
# Sourced by run.sh: a private Slurm cluster of one node on this machine. It has ports, keys and folders of its own and
# does not touch a Slurm that may run here. Needs no systemd and no cgroups, so it also runs inside a container.
#
#   start_cluster FOLDER    munged, slurmctld and slurmd, with all their files in FOLDER; returns when the node is idle
#   stop_cluster            ends the jobs and these daemons, and whatever of them is left
#
# Both print what went wrong and return 1 on failure. start_cluster sets SLURM_CONF, which sbatch, scontrol … obey.

PATH=$PATH:/usr/sbin:/sbin
cluster_pids=()
cluster_folder=

# free_port: a TCP port on which nobody listens.
free_port() {
  local port
  for _ in {1..50}; do
    port=$((20000 + RANDOM % 12000))   # below the ports that Linux gives to outgoing connections
    if ! (exec 3<>"/dev/tcp/127.0.0.1/$port") 2>/dev/null; then echo "$port"; return 0; fi
  done
  return 1
}

# wait_until SECONDS WHAT COMMAND...
wait_until() {
  local end=$((SECONDS + $1)) what=$2
  shift 2
  until "$@" >/dev/null 2>&1; do
    if [ $SECONDS -ge $end ]; then echo "error: waited in vain for $what" >&2; return 1; fi
    sleep 0.5
  done
}

start_cluster() {
  local folder=$1 node user control_port node_port socket
  node=$(hostname -s)
  user=$(id -un)
  cluster_folder=$folder
  mkdir -p "$folder"/{munge,state,spool,tmp}
  chmod 755 "$folder" "$folder/munge"
  socket=$folder/munge/socket
  control_port=$(free_port) && node_port=$(free_port) || { echo "error: no free port" >&2; return 1; }

  (umask 077 && head -c 1024 /dev/urandom >"$folder/munge/key")
  # --force: the folder is below /tmp, which others may write to.
  munged --foreground --force --socket="$socket" --key-file="$folder/munge/key" \
    --pid-file="$folder/munge/pid" --log-file="$folder/munge/log" --seed-file="$folder/munge/seed" \
    >"$folder/munged.log" 2>&1 &
  cluster_pids+=($!)
  wait_until 20 "munged" test -S "$socket" || { cat "$folder/munged.log" "$folder/munge/log" >&2; return 1; }

  # cred_expire is also the time that a requeued job has to wait, 120 s unless told otherwise.
  # ReturnToService: a node that was slow to answer comes back by itself.
  # config_overrides: two processors even where there is one.
  cat >"$folder/slurm.conf" <<END
ClusterName=umbriel-test
SlurmctldHost=$node(127.0.0.1)
SlurmctldPort=$control_port
SlurmdPort=$node_port
SlurmUser=$user
SlurmdUser=$user
AuthType=auth/munge
AuthInfo=socket=$socket,cred_expire=5
CredType=cred/munge
StateSaveLocation=$folder/state
SlurmdSpoolDir=$folder/spool
SlurmctldPidFile=$folder/slurmctld.pid
SlurmdPidFile=$folder/slurmd.pid
TmpFS=$folder/tmp
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
SwitchType=switch/none
AccountingStorageType=accounting_storage/none
JobAcctGatherType=jobacct_gather/none
SelectType=select/cons_tres
SelectTypeParameters=CR_CPU
SchedulerType=sched/builtin
SchedulerParameters=batch_sched_delay=1,sched_interval=3
SlurmdParameters=config_overrides
ReturnToService=2
MailProg=/bin/true
JobRequeue=1
OverTimeLimit=0
KillWait=30
MinJobAge=600
NodeName=$node NodeAddr=127.0.0.1 Port=$node_port CPUs=2 State=UNKNOWN
PartitionName=test Nodes=$node Default=YES MaxTime=INFINITE State=UP
END
  export SLURM_CONF=$folder/slurm.conf
  slurmctld -D -c >"$folder/slurmctld.log" 2>&1 &
  cluster_pids+=($!)
  wait_until 30 "slurmctld" eval 'scontrol ping | grep -q UP' || { tail -n 30 "$folder/slurmctld.log" >&2; return 1; }
  slurmd -D -c >"$folder/slurmd.log" 2>&1 &
  cluster_pids+=($!)
  wait_until 60 "the node" eval 'sinfo -h -o %T | grep -qx idle' ||
    { sinfo -R; tail -n 30 "$folder/slurmctld.log" "$folder/slurmd.log"; return 1; } >&2
}

stop_cluster() {
  local pid
  if [ -n "${SLURM_CONF:-}" ] && scontrol ping 2>/dev/null | grep -q UP; then
    scancel --user="$(id -un)" 2>/dev/null || true
    wait_until 60 "the jobs to end" eval '[ -z "$(squeue -h)" ]' || true
  fi
  for ((i = ${#cluster_pids[@]} - 1; i >= 0; i--)); do
    pid=${cluster_pids[$i]}
    kill "$pid" 2>/dev/null || continue
    wait_until 15 "process $pid to end" eval "! kill -0 $pid" || kill -9 "$pid" 2>/dev/null || true
    wait "$pid" 2>/dev/null || true
  done
  cluster_pids=()
  # Processes of jobs that outlived their slurmd: their command lines name the private folder.
  for pid in $(pgrep -f -- "$cluster_folder/" || true); do
    if [ "$pid" -eq $$ ]; then continue; fi
    echo "warning: left over and killed: $(tr '\0' ' ' <"/proc/$pid/cmdline")" >&2
    kill -9 "$pid" 2>/dev/null || true
  done
}
