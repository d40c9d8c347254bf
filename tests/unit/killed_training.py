"""A training in a process of its own, to be killed: ``python killed_training.py CHECKPOINT``."""

import sys
from pathlib import Path

from unit.test_training import LONG, run

from voxloom.checkpoint import load_checkpoint, save_checkpoint

if __name__ == "__main__":
    path = Path(sys.argv[1])
    run(
        resume=load_checkpoint(path, key="k"),
        on_checkpoint=lambda state: save_checkpoint(path, state, key="k"),
        checkpoint_minutes=0.0,
        **LONG,
    )
