"""Sections of cells between membranes, held in memory, and splits of them."""

from dataclasses import dataclass, field

import numpy as np
import pandas as pd

from voxloom.split import COLUMNS
from voxloom.volume import PROBABILITY


@dataclass
class Held:
    """A volume in memory that knows what a stored one does, and what was read of it."""

    values: np.ndarray
    quantisation: object = PROBABILITY
    spacing_um: tuple = (0.05, 0.004, 0.004)
    reads: list = field(default_factory=list)

    @property
    def shape(self):
        return self.values.shape

    @property
    def dtype(self):
        return self.values.dtype

    def __getitem__(self, index):
        found = self.values[index]
        self.reads.append(found.shape)
        return found


def table_of(*parts):
    """A split from (part, (z from, z to), (y from, y to), (x from, x to)) of the volume "v"."""
    rows = [[0, "v", "r", 0, part, *z, *y, *x, 0, 0, 0] for part, z, y, x in parts]
    return pd.DataFrame(rows, columns=list(COLUMNS)).astype(COLUMNS)


def cells(sections=3):
    """Two cells, 16 x 11 and 16 x 12 pixels, and a membrane of one column between them, in every section."""
    codes = np.zeros((sections, 16, 24), np.uint8)
    codes[:, :, 11] = 1
    return codes
