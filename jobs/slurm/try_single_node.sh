#!/bin/bash
# SPDX-License-Identifier: Apache-2.0
# Tries amalgam.sbatch under a real Slurm: makes a one-node cluster of this machine, submits it with a stand-in for amalgam,
# and checks signal, requeue and brake. For a bare Debian machine (or container), as root:
#
#   jobs/slurm/try_single_node.sh          installs slurm-wlm, munge and openmpi-bin if they are missing; 3 to 5 minutes
#   AMALGAM=FILE jobs/slurm/try_single_node.sh   with that executable too: the quickstart job, cut into several attempts
#
# The cluster lives in a folder of its own under /tmp, is found through SLURM_CONF, and is stopped at the end; /etc/slurm is
# not touched. Do not run it on a machine that belongs to a cluster.
set -eu

script_folder=$(cd "$(dirname "$0")" && pwd)
cores=$(getconf _NPROCESSORS_ONLN)  # nproc would say OMP_NUM_THREADS
real_program=${AMALGAM:+$(realpath "$AMALGAM")}
work=$(mktemp -d /tmp/amalgam-slurm-XXXXXX)
chmod 755 "$work"
started=()

stop_cluster() {
    local pid
    for pid in "${started[@]}"; do
        kill "$pid" 2>/dev/null || true
    done
    wait || true
    echo "logs of the cluster and of the jobs: $work"
}
trap stop_cluster EXIT

install_packages() {
    if command -v slurmctld slurmd munged mpirun > /dev/null; then
        return
    fi
    apt-get update
    DEBIAN_FRONTEND=noninteractive apt-get install -y --no-install-recommends slurm-wlm munge openmpi-bin
}

# Authentication. Debian's package makes the key; without systemd nobody makes the socket's folder.
start_munge() {
    if munge -n > /dev/null 2>&1; then
        return
    fi
    install -d -o munge -g munge -m 755 /run/munge
    runuser -u munge -- munged
    started+=("$(cat /run/munge/munged.pid)")
    munge -n > /dev/null
}

# cred_expire: a requeued job waits until the old credential has expired, 120 s by default.
# linuxproc, task/none: work in a container, where cgroups are not ours.
write_slurm_conf() {
    local host memory
    host=$(hostname -s)
    memory=$(($(awk '/MemTotal/ {print $2}' /proc/meminfo) / 1024 * 9 / 10))
    cat > "$work/slurm.conf" <<CONF
ClusterName=try
SlurmctldHost=$host(127.0.0.1)
SlurmctldPort=16817
SlurmdPort=16818
SlurmUser=root
SlurmdUser=root
AuthType=auth/munge
AuthInfo=cred_expire=5
StateSaveLocation=$work/state
SlurmdSpoolDir=$work/spool
SlurmctldPidFile=$work/slurmctld.pid
SlurmdPidFile=$work/slurmd.pid
SlurmctldLogFile=$work/slurmctld.log
SlurmdLogFile=$work/slurmd.log
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
JobAcctGatherType=jobacct_gather/none
SelectType=select/cons_tres
SelectTypeParameters=CR_Core
ReturnToService=2
SchedulerParameters=sched_interval=5
KillWait=10
MpiDefault=none
NodeName=$host NodeAddr=127.0.0.1 CPUs=$cores RealMemory=$memory State=UNKNOWN
PartitionName=all Nodes=$host Default=YES MaxTime=INFINITE State=UP
CONF
    mkdir -p "$work/state" "$work/spool"
    export SLURM_CONF=$work/slurm.conf
}

start_slurm() {
    slurmctld -D > "$work/slurmctld.out" 2>&1 &
    started+=($!)
    slurmd -D > "$work/slurmd.out" 2>&1 &
    started+=($!)
    local second
    for second in $(seq 30); do
        if sinfo -h -o %T 2>/dev/null | grep -q idle; then
            echo "one-node cluster is up after $second s"
            return
        fi
        sleep 1
    done
    echo "the node did not become idle; see $work/slurmctld.log and $work/slurmd.log" >&2
    exit 1
}

# Behaves like `amalgam run JOB.yaml` and `amalgam run-folder JOB.yaml` as far as Slurm is concerned; $BEHAVIOUR says how.
# Every rank is one of these.
write_stand_in() {
    mkdir -p "$work/site/outputs"
    cat > "$work/amalgam" <<'PROGRAM'
#!/bin/bash
name=$(sed -n 's/^name: *//p' "$2")
if [ "$1" = run-folder ]; then
    echo "outputs/$name"
    exit
fi
checkpoints=outputs/$name/checkpoints
rank=${OMPI_COMM_WORLD_RANK:-0}
mkdir -p "$checkpoints"
case $BEHAVIOUR in
fails) exit 4 ;;
stalls) exit 75 ;;
esac
if [ -e "$checkpoints/step-1.h5" ]; then
    echo "rank $rank: found a checkpoint, finishing"
    exit 0
fi
save_and_stop() {
    echo "rank $rank: USR1, saving"
    sleep 2
    if [ "$rank" = 0 ]; then echo weights > "$checkpoints/step-1.h5"; fi
    sleep 1
    exit 75
}
trap save_and_stop USR1
echo "rank $rank: training"
for _ in $(seq 600); do sleep 0.5; done
PROGRAM
    chmod 755 "$work/amalgam"
}

# submit BEHAVIOUR [sbatch options]: prints the job's id. Time limits have a resolution of minutes and the signal may come up
# to a minute early, hence 3 minutes and 120 seconds.
submit() {
    local behaviour=$1
    shift
    echo "name: $behaviour" > "$work/site/$behaviour.yaml"
    (cd "$work/site" && AMALGAM=$work/amalgam BEHAVIOUR=$behaviour OMPI_ALLOW_RUN_AS_ROOT=1 OMPI_ALLOW_RUN_AS_ROOT_CONFIRM=1 \
        sbatch --parsable --job-name="$behaviour" --ntasks-per-node="$cores" --cpus-per-task=1 --gpus-per-node=0 \
        --time=00:03:00 --signal=B:USR1@120 "$@" "$script_folder/amalgam.sbatch" "$behaviour.yaml")
}

# Waits until a job has ended for good and prints the exit code of its last attempt.
wait_for() {
    local state
    for _ in $(seq 1200); do
        state=$(scontrol show job "$1" -o | grep -o 'JobState=[A-Z_]*' | cut -d= -f2)
        case $state in
        COMPLETED | FAILED | CANCELLED | TIMEOUT | NODE_FAIL)
            scontrol show job "$1" -o | grep -o 'ExitCode=[0-9]*' | cut -d= -f2
            return
            ;;
        esac
        sleep 1
    done
    echo "unfinished"
}

failures=0
expect() {
    local what=$1 wanted=$2 got=$3
    if [ "$wanted" = "$got" ]; then
        echo "ok      $what: $got"
    else
        echo "FAILED  $what: expected $wanted, got $got"
        failures=$((failures + 1))
    fi
}

log_lines() {  # JOB_NAME ID PATTERN: how many lines of the job's log match
    grep -cs -- "$3" "$work/site/outputs/slurm-$1-$2.log" || true
}

install_packages
start_munge
write_slurm_conf
start_slurm
write_stand_in

id=$(submit fails)
expect "failure is passed on" 4 "$(wait_for "$id")"
expect "failure is not queued again" 1 "$(log_lines fails "$id" 'attempt ')"

id=$(submit stalls)
expect "brake ends the chain with" 1 "$(wait_for "$id")"
expect "attempts until the brake" 3 "$(log_lines stalls "$id" 'attempt [0-9]*,')"
expect "brake says why" 1 "$(log_lines stalls "$id" '3 attempts without progress')"

id=$(submit trains)
expect "interrupted run finishes with" 0 "$(wait_for "$id")"
expect "it needed attempts" 2 "$(log_lines trains "$id" 'attempt [0-9]*,')"
expect "ranks that got USR1 through mpirun" "$cores" "$(log_lines trains "$id" 'USR1, saving')"
expect "first attempt ended with 75" 1 "$(log_lines trains "$id" 'mpirun ended with 75')"
cat "$work/site/outputs/slurm-trains-$id.log"

# A lost node: Slurm queues the job again without the script having a say.
id=$(submit hangs)
for attempt in 1 2 3; do
    for _ in $(seq 60); do
        if [ "$(log_lines hangs "$id" 'rank 0: training')" = "$attempt" ]; then break; fi
        sleep 1
    done
    scontrol requeue "$id"
done
expect "brake holds when attempts are cut off" 1 "$(wait_for "$id")"
expect "attempts until then" 3 "$(log_lines hangs "$id" 'attempt [0-9]*,')"

# The time limit is shorter than the job, so that it is stopped, queued again and taken up where it was.
if [ -n "$real_program" ]; then
    id=$(cd "$script_folder/../.." && AMALGAM=$real_program \
        OMPI_ALLOW_RUN_AS_ROOT=1 OMPI_ALLOW_RUN_AS_ROOT_CONFIRM=1 \
        sbatch --parsable --job-name=quickstart --ntasks-per-node="$cores" --cpus-per-task=1 --gpus-per-node=0 \
        --time=00:03:00 --signal=B:USR1@120 --output="$work/site/outputs/slurm-%x-%j.log" \
        "$script_folder/amalgam.sbatch" jobs/quickstart.yaml --set output="$work/runs")
    expect "the quickstart job finishes with" 0 "$(wait_for "$id")"
    attempts=$(log_lines quickstart "$id" 'attempt [0-9]*,')
    expect "it needed several attempts ($attempts)" yes "$([ "$attempts" -gt 1 ] && echo yes || echo no)"
    expect "all but the last ended with 75" "$((attempts - 1))" "$(log_lines quickstart "$id" 'mpirun ended with 75')"
    expect "it left a student" yes "$([ -e "$work/runs/quickstart/student/config.json" ] && echo yes || echo no)"
fi

if [ "$failures" -gt 0 ]; then
    echo "$failures checks failed"
    exit 1
fi
echo "all checks passed"
