"""The generic profile's commands, against what schedulers are known to print."""

import os
import subprocess
from pathlib import Path

import pytest

SCRIPT = Path(__file__).resolve().parents[2] / "profiles" / "generic" / "scheduler.sh"
SUBMIT = ("submit", "4", "3000", "240", "train", "job.sh")


@pytest.fixture
def scheduler(tmp_path):
    """Run the script with commands that print what is given and write down how they were called."""

    def run(kind, *words, commands):
        for name, (printed, status) in commands.items():
            command = tmp_path / name
            command.write_text(f"#!/bin/sh\necho {name} \"$@\" >> calls\ncat <<'END'\n{printed}\nEND\nexit {status}\n")
            command.chmod(0o755)
        environment = {"PATH": f"{tmp_path}:{os.environ['PATH']}", "VOXLOOM_SCHEDULER": kind}
        done = subprocess.run(
            [SCRIPT, *words], cwd=tmp_path, env=environment, capture_output=True, text=True, check=True
        )
        return done.stdout.strip(), (tmp_path / "calls").read_text()

    return run


@pytest.mark.parametrize(
    ("kind", "command", "printed", "asked"),
    [
        (
            "lsf",
            "bsub",
            "Job <123> is submitted to queue <normal>.",
            "-n 4 -R span[hosts=1] rusage[mem=3000MB] -M 3000MB -W 240",
        ),
        ("pbs", "qsub", "123", "-l select=1:ncpus=4:mem=3000mb -l walltime=14400"),
        ("sge", "qsub", "123", "-pe smp 4 -l h_vmem=750M -l h_rt=14400"),
        ("slurm", "sbatch", "123", "-c 4 --mem 3000 -t 240"),
    ],
)
def test_a_job_asks_for_threads_memory_and_time(scheduler, kind, command, printed, asked):
    number, call = scheduler(kind, *SUBMIT, commands={command: (printed, 0)})
    assert number == "123"
    assert asked in call
    assert call.endswith(" job.sh\n")


@pytest.mark.parametrize(
    ("kind", "commands", "state"),
    [
        ("lsf", {"bjobs": ("RUN", 0)}, "running"),
        ("lsf", {"bjobs": ("PEND", 0)}, "running"),
        ("lsf", {"bjobs": ("DONE", 0)}, "success"),
        ("lsf", {"bjobs": ("EXIT", 0)}, "failed"),
        ("pbs", {"qstat": ("Job Id: 123\n    job_state = R", 0)}, "running"),
        ("pbs", {"qstat": ("Job Id: 123\n    job_state = F\n    Exit_status = 0", 0)}, "success"),
        ("pbs", {"qstat": ("Job Id: 123\n    job_state = F\n    Exit_status = 271", 0)}, "failed"),
        ("sge", {"qstat": ("job_number: 123", 0)}, "running"),
        ("sge", {"qstat": ("", 1), "qacct": ("error: job id 123 not found", 1)}, "running"),
        ("sge", {"qstat": ("", 1), "qacct": ("failed       0\nexit_status  0", 0)}, "success"),
        ("sge", {"qstat": ("", 1), "qacct": ("failed       0\nexit_status  1", 0)}, "failed"),
        ("sge", {"qstat": ("", 1), "qacct": ("failed       37  : qmaster enforced h_rt\nexit_status  0", 0)}, "failed"),
        ("slurm", {"squeue": ("RUNNING", 0)}, "running"),
        ("slurm", {"squeue": ("COMPLETED", 0)}, "success"),
        ("slurm", {"squeue": ("OUT_OF_MEMORY", 0)}, "failed"),
        ("slurm", {"squeue": ("slurm_load_jobs error: Unable to contact slurm controller", 1)}, "running"),
        ("slurm", {"squeue": ("slurm_load_jobs error: Invalid job id specified", 1)}, "failed"),
    ],
)
def test_a_job_s_state_is_understood(scheduler, kind, commands, state):
    assert scheduler(kind, "status", "123", commands=commands)[0] == state


def test_several_jobs_are_cancelled_at_once(scheduler):
    assert "bkill 1 2\n" in scheduler("lsf", "cancel", "1", "2", commands={"bkill": ("", 0)})[1]
