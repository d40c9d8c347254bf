"""What Snakemake asks of ``conda``, answered by py-rattler, for a machine that has no conda.

`install_shim` writes the commands ``conda`` and ``activate`` into a folder; the first one runs this file.
"""

import asyncio
import itertools
import json
import subprocess
import sys
from pathlib import Path

import yaml

VERSION = "25.7.0"  # Snakemake asks for 24.7.1 or newer
COMMAND = """#!/bin/sh
exec "{python}" -I "{shim}" "{folder}" "{channel}" "$@"
"""
ACTIVATE = """export CONDA_PREFIX="$1" CONDA_DEFAULT_ENV="$1" CONDA_SHLVL=1 PATH="$1/bin:$PATH"
for script in "$1"/etc/conda/activate.d/*.sh; do
    [ ! -e "$script" ] || . "$script"
done
"""


def install_shim(folder: Path, *, channel: str) -> Path:
    """Write the commands into folder/bin, and return that folder. They use this channel, whatever a file names."""
    commands = folder / "bin"
    commands.mkdir(parents=True)
    conda = commands / "conda"
    shim = Path(__file__).resolve()
    conda.write_text(COMMAND.format(python=sys.executable, shim=shim, folder=folder, channel=channel))
    conda.chmod(0o755)
    (commands / "activate").write_text(ACTIVATE)
    return commands


def answer(folder: str, channel: str, *words: str) -> None:
    """Do what the conda of that folder does when it is called with these words, and print what it prints."""
    if words[0] == "--version":
        print(f"conda {VERSION}")
    elif words[0] == "info":
        from rattler.platform import Subdir

        print(json.dumps({"conda_prefix": folder, "platform": str(Subdir.current())}))
    elif words[:2] == ("config", "--get"):
        print(json.dumps({"get": {"channel_priority": "strict"}}))
    elif words[:2] == ("env", "create"):
        given = dict(itertools.pairwise(words))
        _create(channel, Path(given["--file"]), Path(given["--prefix"]))
    elif words[0] != "clean":
        raise SystemExit(f"conda {' '.join(words)}: Snakemake didn't ask for this when the shim was written")


def _create(channel: str, file: Path, prefix: Path) -> None:
    environment = yaml.safe_load(file.read_text())
    lines = environment["dependencies"]
    asyncio.run(_install(channel, [line for line in lines if isinstance(line, str)], prefix))
    scripts = prefix / "etc" / "conda" / "activate.d"
    scripts.mkdir(parents=True)
    variables = environment.get("variables", {})
    (scripts / "variables.sh").write_text("".join(f'export {name}="{value}"\n' for name, value in variables.items()))
    _add_by_pip([line for each in lines if isinstance(each, dict) for line in each["pip"]], prefix)


def _add_by_pip(requirements: list[str], prefix: Path) -> None:
    if requirements:
        command = [prefix / "bin" / "python", "-I", "-m", "pip", "install", "--quiet", *requirements]
        subprocess.run(command, check=True)


async def _install(channel: str, specifications: list[str], prefix: Path) -> None:
    import rattler

    records = await rattler.solve(
        sources=[channel], specs=specifications, virtual_packages=rattler.VirtualPackage.detect()
    )
    await rattler.install(records, target_prefix=prefix, show_progress=False)


if __name__ == "__main__":
    answer(*sys.argv[1:])
