#!/bin/sh
# A scheduler's commands as Snakemake's executor cluster-generic calls them:
#   scheduler.sh submit THREADS MEMORY_MB MINUTES RULE SCRIPT    prints the job's number
#   scheduler.sh status JOB                                      prints success, running or failed
#   scheduler.sh cancel JOB...
# Jobs inherit the environment, and log to .snakemake/cluster_logs.
set -eu
kind=${VOXLOOM_SCHEDULER:-sge} # lsf, pbs, sge or slurm: write your own here
verb=$1
shift
logs=.snakemake/cluster_logs
mkdir -p "$logs"

case "$kind $verb" in
"lsf submit")
    bsub -J "voxloom-$4" -n "$1" -R "span[hosts=1] rusage[mem=${2}MB]" -M "${2}MB" -W "$3" -o "$logs/%J.log" "$5" |
        sed -n 's/^Job <\([0-9]*\)>.*/\1/p'
    ;;
"lsf status")
    case $(bjobs -noheader -o stat "$1") in
    DONE) echo success ;;
    EXIT | ZOMBI) echo failed ;;
    *) echo running ;;
    esac
    ;;
"lsf cancel") bkill "$@" ;;

"pbs submit")
    qsub -V -N voxloom -l "select=1:ncpus=$1:mem=${2}mb" -l "walltime=$(($3 * 60))" -j oe -o "$logs/" "$5"
    ;;
"pbs status") # a job that has ended is listed with -x
    qstat -x -f "$1" | awk '
        $1 == "job_state" { state = $3 }
        $1 == "Exit_status" { status = $3 }
        END { print state != "F" ? "running" : status == "0" ? "success" : "failed" }'
    ;;
"pbs cancel") qdel "$@" ;;

"sge submit") # memory is that of one slot
    qsub -terse -V -cwd -N "voxloom-$4" -pe smp "$1" -l "h_vmem=$((($2 + $1 - 1) / $1))M" -l "h_rt=$(($3 * 60))" \
        -j y -o "$logs/" "$5"
    ;;
"sge status") # a job that has ended is in the accounting file, after some seconds
    if qstat -j "$1" >/dev/null 2>&1 || ! ended=$(qacct -j "$1" 2>/dev/null); then
        echo running
    else
        echo "$ended" | awk '
            ($1 == "failed" || $1 == "exit_status") && $2 != "0" { bad = 1 }
            END { print bad ? "failed" : "success" }'
    fi
    ;;
"sge cancel") qdel "$@" ;;

"slurm submit")
    sbatch --parsable --no-requeue -J "voxloom-$4" -c "$1" --mem "$2" -t "$3" -o "$logs/%j.log" "$5"
    ;;
"slurm status") # what can't be asked now isn't over; what Slurm has forgotten is
    if ! state=$(squeue -h -t all -j "$1" -o %T 2>&1); then
        case $state in
        *"Invalid job id"*) state=FORGOTTEN ;;
        *) state=RUNNING ;;
        esac
    fi
    case $state in
    COMPLETED) echo success ;;
    PENDING | CONFIGURING | RUNNING | COMPLETING | SUSPENDED) echo running ;;
    *) echo failed ;;
    esac
    ;;
"slurm cancel") scancel "$@" ;;

*)
    echo "scheduler.sh: $kind $verb: expected lsf, pbs, sge or slurm, and submit, status or cancel" >&2
    exit 2
    ;;
esac
