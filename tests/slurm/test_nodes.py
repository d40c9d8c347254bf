"""Processes of one training on two nodes of a real Slurm: they meet, and end with their job."""

import subprocess
import sys
from pathlib import Path

TESTS = Path(__file__).resolve().parents[1]
JOB = """\
from pathlib import Path
from unit import group_work
from voxloom import process_group
here = Path.cwd()
how = {"device": "cpu", "nodes": process_group.nodes_of_job(), "shared_folder": here}
with process_group.started(2, work=group_work.meet, arguments={"folder": here}, **how) as group:
    group_work.meet(here, group=group)
"""
SUBMITTED = """\
#!/bin/sh
for name in $(env | sed -n 's/^\\(SLURM_[A-Z_]*\\)=.*/\\1/p' | grep -v SLURM_JOB_ID); do unset "$name"; done
srun -n1 --cpu-bind=q {python} job.py
"""


def test_two_processes_of_a_job_meet_on_its_two_nodes(cluster, long, tmp_path):
    """The job does as Snakemake's executor: it forgets what Slurm told it, and starts one step for its script."""
    (tmp_path / "job.py").write_text(JOB)
    (tmp_path / "job.sh").write_text(SUBMITTED.format(python=sys.executable))
    paths = f"{TESTS.parent / 'src'}:{TESTS}"
    done = subprocess.run(
        ["sbatch", "--wait", "--nodes=2", "--ntasks=2", "--output=said.log", "job.sh"],
        env={**cluster.environment, "PYTHONPATH": paths},
        cwd=tmp_path,
        check=False,
        timeout=600,
    )
    assert done.returncode == 0, (tmp_path / "said.log").read_text()
    assert [(tmp_path / f"{rank}.said").read_text() for rank in (0, 1)] == ["n1 11", "n2 11"]
    assert not list(tmp_path.glob(".voxloom-*"))
