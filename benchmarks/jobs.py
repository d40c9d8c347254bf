"""What a job takes before it does anything (T19): starting Python and importing what its script imports.

    python benchmarks/jobs.py [--rounds 7]

Jobs that run a network wait for PyTorch and are shown without a limit. The peer is Python that does nothing. What a job
loads when it comes to its tables and figures (pandas, matplotlib) isn't counted: it doesn't delay its work.
"""

import argparse
import ast
import re
import subprocess
import sys
from collections import Counter
from pathlib import Path

import numpy as np
import timing

ROOT = Path(__file__).resolve().parents[1]
WITH_NETWORK = ("plan", "predict", "predict_part", "train")
MOST_SECONDS = 0.5
NEVER = ("monai", "nnunetv2")
NOT_WITHOUT_NETWORK = ("torch", *NEVER)


def imports_of(script: Path) -> str:
    nodes = ast.parse(script.read_text(encoding="utf-8")).body
    return "\n".join(ast.unparse(node) for node in nodes if isinstance(node, (ast.Import, ast.ImportFrom)))


def start(code: str, *words: str) -> subprocess.CompletedProcess[str]:
    done = subprocess.run([sys.executable, *words, "-c", code], capture_output=True, text=True)
    if done.returncode:
        raise SystemExit(f"{code}\n{done.stderr}")
    return done


def slowest_import(code: str) -> str:
    """The package that costs most by itself, as ``-X importtime`` tells."""
    microseconds: Counter[str] = Counter()
    for own, module in re.findall(r"import time:\s+(\d+) \|\s+\d+ \|\s+(\S+)", start(code, "-X", "importtime").stderr):
        microseconds[module.split(".")[0]] += int(own)
    package, most = microseconds.most_common(1)[0]
    return f"{package} {most / 1e6:.2f} s"


def loaded(code: str, packages: tuple[str, ...]) -> list[str]:
    said = start(f"{code}\nimport sys\nprint(*[name for name in {packages!r} if name in sys.modules])").stdout
    return said.split()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--only", nargs="+", help="names of scripts")
    options = parser.parse_args()
    timing.pin(1)
    scripts = [path for path in sorted((ROOT / "scripts").glob("*.py")) if path.stem in (options.only or [path.stem])]
    codes = {path.stem: imports_of(path) for path in scripts}
    cases = {name: (lambda code=code: start(code)) for name, code in {"": "pass", **codes}.items()}
    seconds = timing.interleaved(cases, rounds=options.rounds)
    for name, code in codes.items():
        has_network = name in WITH_NETWORK
        ours, forbidden = float(np.median(seconds[name])), NEVER if has_network else NOT_WITHOUT_NETWORK
        unwanted = loaded(code, forbidden)
        timing.record(
            f"start and imports of {name} [s]",
            target="T19",
            ours=round(ours, 2),
            peer=round(float(np.median(seconds[""])), 2),
            ratio=round(timing.ratio(seconds[name], seconds[""]), 1),
            limit=("has a network" if has_network else f"at most {MOST_SECONDS:g} s")
            + f", without {' and '.join(unwanted or forbidden)}; slowest import {slowest_import(code)}",
            identical=None,
            holds=not unwanted and (has_network or ours <= MOST_SECONDS),
        )


if __name__ == "__main__":
    main()
