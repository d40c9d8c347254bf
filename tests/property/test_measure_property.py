"""Measurements are those of the objects, not of the blocks in which they were read."""

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from voxloom import measure


@settings(deadline=None, max_examples=30)
@given(
    seed=st.integers(0, 2**32),
    shape=st.tuples(*[st.integers(1, 8)] * 3),
    block=st.tuples(*[st.integers(1, 5)] * 3),
    threads=st.integers(1, 3),
)
def test_any_block_grid_gives_the_same_table(seed, shape, block, threads):
    rng = np.random.default_rng(seed)
    labels = rng.integers(0, 5, shape).astype(np.uint32)
    image = rng.integers(0, 65536, shape).astype(np.uint16)
    whole = measure.measure_objects(labels, spacing_um=(2.0, 1.0, 0.5), image=image)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(measure, "BLOCK", block)
        by_blocks = measure.measure_objects(labels, spacing_um=(2.0, 1.0, 0.5), image=image, threads=threads)
    pd.testing.assert_frame_equal(by_blocks, whole, check_exact=True)
    np.testing.assert_array_equal(whole["voxels"], np.bincount(labels.ravel(), minlength=5)[1:][whole["label"] - 1])
