"""Where a proposal of membranes goes wrong: pictures of sections with splits, mergers and missed membrane marked."""

from __future__ import annotations

import math
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from voxloom import membranes
from voxloom.blocks import Block, reduce_blocks
from voxloom.deferred import Deferred
from voxloom.errors import VolumeError
from voxloom.membranes import Section
from voxloom.report_pictures import grey_levels
from voxloom.tally import Volume
from voxloom.volume import IGNORE
from voxloom.warping import MERGER, SPLIT

if TYPE_CHECKING:
    import pandas as pd
    from PIL import Image, ImageDraw
else:
    Image = Deferred("PIL.Image")
    ImageDraw = Deferred("PIL.ImageDraw")

SPLIT_MARK, MERGER_MARK, MISSED_MARK = 1, 2, 3

COLOURS = {
    SPLIT_MARK: ("split", (230, 30, 40)),
    MERGER_MARK: ("merger", (40, 110, 255)),
    MISSED_MARK: ("missed membrane", (240, 228, 66)),
}
"""What a mark means, and its red, green and blue."""

PERCENTILES = (0.5, 99.5)
"""Of a section's grey values: what is drawn black and white."""

TOLERANCE = 2
"""How far, in pixels along rows and columns, a membrane may lie from the true one without being missed."""
