"""A job under conda takes packages from its own environment and from nowhere else."""

import os
import subprocess
import sys
from pathlib import Path

import voxloom

SOURCES = Path(voxloom.__file__).parents[1]
SCRIPT = """
import sys
sys.path.extend({launcher!r})
import snakemake_of_the_launcher, early
{preamble}
__file__ = "elsewhere/script.py"  # Snakemake names the script that it copied, which isn't the one that runs
import voxloom
assert "__main__" in sys.modules
print("early" in sys.modules, "snakemake_of_the_launcher" in sys.modules)
import late
"""


def run_script(folder: Path, *, preamble: str, prefix: str) -> subprocess.CompletedProcess[str]:
    """Run a script as Snakemake does: its own search path, appended, finds packages that the script's doesn't."""
    launcher = folder / "launcher"
    launcher.mkdir()
    for name in ("snakemake_of_the_launcher", "early", "late"):
        (launcher / f"{name}.py").touch()
    script = folder / "scripts" / "script.py"
    script.parent.mkdir()
    script.write_text(SCRIPT.format(launcher=[str(launcher), str(SOURCES)], preamble=preamble))
    environment = {**os.environ, "CONDA_PREFIX": prefix}
    return subprocess.run([sys.executable, script], env=environment, capture_output=True, text=True, check=False)


def test_a_job_in_a_conda_environment_finds_nothing_of_the_launching_interpreter(tmp_path):
    done = run_script(tmp_path, preamble="snakemake = object()", prefix=sys.prefix)
    assert done.stdout.split() == ["False", "True"]
    assert "ModuleNotFoundError: No module named 'late'" in done.stderr


def test_without_a_conda_environment_of_its_own_a_job_keeps_what_snakemake_gave_it(tmp_path):
    done = run_script(tmp_path, preamble="snakemake = object()", prefix=str(tmp_path))
    assert (done.stdout.split(), done.stderr) == (["True", "True"], "")


def test_an_interpreter_that_merely_imports_voxloom_keeps_its_search_path(tmp_path):
    done = run_script(tmp_path, preamble="import snakemake_of_the_launcher as snakemake", prefix=sys.prefix)
    assert (done.stdout.split(), done.stderr) == (["True", "True"], "")
