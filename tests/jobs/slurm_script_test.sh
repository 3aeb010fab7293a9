#!/bin/bash
# SPDX-License-Identifier: Apache-2.0
# The batch script for Slurm without a Slurm: scontrol, mpirun and `amalgam run` are stand-ins. When is a job queued again, when
# does the chain end, does the brake hold? (jobs/slurm/try_single_node.sh tries the same with a real Slurm.)
#
# usage: slurm_script_test.sh AMALGAM
set -u

script=$(cd "$(dirname "$0")/../.." && pwd)/jobs/slurm/amalgam.sbatch
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
mkdir "$work/bin" "$work/outputs"
cd "$work"
export PROGRAM=$1 PATH=$work/bin:$PATH WORK=$work SLURM_JOB_ID=17 SLURM_NTASKS=2 SLURM_JOB_NODELIST=node1

cat > bin/scontrol <<'END'
#!/bin/bash
echo "$*" >> "$WORK/scontrol.log"
END
# mpirun -np N --map-by X --bind-to Y PROGRAM...: one process in place of the ranks, USR1 reaches it.
cat > bin/mpirun <<'END'
#!/bin/bash
shift 6
exec "$@"
END
# The job's name says how it behaves.
cat > bin/amalgam <<'END'
#!/bin/bash
set -o pipefail
if [ "$1" = run-folder ]; then
    "$PROGRAM" "$@" | tee "$WORK/folder"
    exit
fi
folder=$(cat "$WORK/folder")
name=$(basename "$folder")
checkpoints=$folder/checkpoints
mkdir -p "$checkpoints"
case $name in
finishes) exit 0 ;;
fails) exit 4 ;;
stalls) exit 75 ;;
progresses) echo weights > "$checkpoints/step-$(ls "$checkpoints" | wc -l).h5"; exit 75 ;;
waits)
    trap 'echo weights > "$checkpoints/step-1.h5"; exit 75' USR1
    touch "$WORK/waiting"
    for _ in $(seq 300); do sleep 0.1; done
    ;;
deaf)  # as under an mpirun that passes no signals on
    trap '' USR1
    touch "$WORK/waiting"
    for _ in $(seq 300); do
        [ -e "$folder/stop" ] && exit 75
        sleep 0.1
    done
    ;;
esac
END
chmod 755 bin/*

failures=0
expect() {  # WHAT WANTED FOUND
    if [ "$2" = "$3" ]; then
        echo "ok      $1: $3"
    else
        echo "FAILED  $1: expected $2, found $3"
        failures=$((failures + 1))
    fi
}

new_job() {  # NAME [JOB_FILE]: as if it had just been submitted
    job=$1
    rm -rf outputs elsewhere scontrol.log waiting
    mkdir outputs
    printf '%b' "${2:-name: $job   # what it does\n}" > job.yaml
    export SLURM_JOB_NAME=$job
}
attempt() {  # [--set key=value]: prints the exit code
    bash "$script" job.yaml "$@" > attempt.log 2>&1
    echo $?
}
requeues() { if [ -f scontrol.log ]; then grep -c '^requeue 17$' scontrol.log; else echo 0; fi; }
wait_until_it_runs() {
    for _ in $(seq 100); do
        if [ -e waiting ]; then return; fi
        sleep 0.1
    done
    echo "FAILED  the program did not start"
    exit 1
}

new_job finishes
expect "a finished run" 0 "$(attempt)"
expect "is not queued again" 0 "$(requeues)"
expect "and leaves no count of attempts" 0 "$(find outputs -name '*.attempts' | wc -l)"

new_job fails
expect "a failure" 4 "$(attempt)"
expect "is not queued again" 0 "$(requeues)"

new_job progresses
for number in 1 2 3 4 5; do
    expect "attempt $number that gets on" 75 "$(attempt)"
    expect "is queued again" "$number" "$(requeues)"
done

new_job stalls
expect "stalled attempt 1" 75 "$(attempt)"
expect "stalled attempt 2" 75 "$(attempt)"
expect "stalled attempt 3 ends the chain" 1 "$(attempt)"
expect "and says why" 1 "$(grep -c '3 attempts without progress' attempt.log)"
expect "it was queued again before" 2 "$(requeues)"

new_job stalls
attempt > /dev/null
attempt > /dev/null
mkdir -p outputs/stalls/checkpoints
echo weights > outputs/stalls/checkpoints/step-1.h5
expect "after progress the count starts anew" 75 "$(attempt)"
expect "once more" 75 "$(attempt)"

# The node is lost: the script has no say at the end of an attempt.
new_job waits
for number in 1 2 3; do
    rm -f waiting
    setsid bash "$script" job.yaml > attempt.log 2>&1 &
    wait_until_it_runs
    kill -KILL -- "-$!"
    wait "$!" 2> /dev/null
done
rm -f waiting
expect "after three attempts that were cut off the chain ends" 1 "$(attempt)"
expect "without a fourth one" 0 "$(find . -name waiting | wc -l)"

near_the_limit() {  # NAME [JOB_FILE]: such a job, told that its time limit is near; leaves the attempt's exit code in `ended`
    new_job "$@"
    bash "$script" job.yaml > attempt.log 2>&1 &
    batch=$!
    wait_until_it_runs
    kill -USR1 "$batch"
    wait "$batch"
    ended=$?
}
near_the_limit waits
expect "USR1 near the time limit" 75 "$ended"
expect "saved" 1 "$(find outputs -name 'step-1.h5' | wc -l)"
expect "and queued again" 1 "$(requeues)"

near_the_limit deaf
expect "USR1 near the time limit, not passed on by mpirun" 75 "$ended"
expect "queued again, too" 1 "$(requeues)"

# Where the run is, the program says: a job file may be written in many ways.
export ELSEWHERE=$work/elsewhere HOME=$work
for file in 'output: $ELSEWHERE/runs\nname: progresses' "output: '~/elsewhere/runs'\r\nname: progresses\r\n" \
    '{name: "progresses", output: "${ELSEWHERE}/runs"}\n' '\xef\xbb\xbfname  : progresses\noutput: elsewhere/runs # relative\n'; do
    new_job progresses "$file"
    for number in 1 2 3 4; do
        expect "attempt $number of a job elsewhere that gets on" 75 "$(attempt)"
    done
    expect "is where the job says" 4 "$(find elsewhere/runs/progresses -name '*.h5' | wc -l)"
done
new_job finishes
for number in 1 2 3 4; do
    expect "attempt $number elsewhere by --set" 75 "$(attempt --set name=progresses --set "output=$ELSEWHERE")"
done
near_the_limit deaf 'name: deaf\noutput: $ELSEWHERE'
expect "USR1 near the time limit of a job elsewhere" 75 "$ended"
new_job finishes 'nme: finishes\n'
expect "a job file with a mistake" 2 "$(attempt)"
expect "is told" 1 "$(grep -c 'did you mean "name"' attempt.log)"
expect "and not queued again" 0 "$(requeues)"

if [ "$failures" -gt 0 ]; then
    echo "$failures checks failed"
    exit 1
fi
