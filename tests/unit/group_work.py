"""What the other processes of a group do in tests; found by their names, so in a module of its own."""

import os
import signal
import time

import torch

from voxloom.errors import ModelError


def meet(folder, *, group):
    total = group.total(torch.tensor([10.0**group.rank]))
    (folder / f"{group.rank}.said").write_text(f"{os.environ['SLURMD_NODENAME']} {total.item():g}")
    group.total(torch.ones(1))  # the first ends the others


def fail(*, group):
    raise ModelError(f"rank {group.rank}: the disk is on fire")


def die(*, group):
    os.kill(os.getpid(), signal.SIGKILL)
    time.sleep(60)
