"""Counts of any split, cell and block add up to those of the voxels themselves."""

from dataclasses import dataclass

import numpy as np
import pandas as pd
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from voxloom import boxes, evaluate, metrics, tally
from voxloom.split import COLUMNS
from voxloom.volume import PROBABILITY


@dataclass(frozen=True)
class Held:
    """A volume in memory, with what a stored one knows."""

    values: np.ndarray
    spacing_um: tuple = (1.0, 1.0, 1.0)
    quantisation: object = PROBABILITY

    @property
    def shape(self):
        return self.values.shape

    @property
    def dtype(self):
        return self.values.dtype

    def __getitem__(self, index):
        return self.values[index]


def table_of(parts):
    """From (part, box) pairs of one volume."""
    rows = []
    for part, ((z0, z1), (y0, y1), (x0, x1)) in parts:
        rows.append([0, "v", "r", 0, part, z0, z1, y0, y1, x0, x1, 0, 0, 0])
    return pd.DataFrame(rows, columns=list(COLUMNS)).astype(COLUMNS)


@st.composite
def scored_volumes(draw, dtype):
    shape = draw(st.tuples(*[st.integers(2, 9)] * 3))
    rng = np.random.default_rng(draw(st.integers(0, 2**31)))
    stored = rng.integers(0, np.iinfo(dtype).max + 1, shape).astype(dtype)
    codes = rng.choice(np.array([0, 0, 1, 255], np.uint8), shape)
    whole = boxes.whole(shape)
    at = draw(st.integers(1, shape[0] - 1))
    first, second = ((0, at), *whole[1:]), ((at, shape[0]), *whole[1:])
    across = draw(st.integers(0, shape[2]))
    pieces = [(second[0], second[1], (0, across)), (second[0], second[1], (across, shape[2]))]
    parts = [("validation", first)] + [("test", box) for box in pieces if boxes.voxels(box)]
    return stored, codes, parts


@settings(deadline=None, max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    volumes=st.sampled_from([np.uint8, np.uint16]).flatmap(scored_volumes),
    spacing_um=st.tuples(*[st.sampled_from([0.5, 1.0, 2.0])] * 3),
    cell_um=st.floats(0.5, 6.0),
    block=st.tuples(*[st.integers(1, 9)] * 3),
    cells=st.sampled_from([16, 10_000]),
    threads=st.integers(1, 2),
)
def test_histograms_do_not_depend_on_blocks_cells_or_threads(
    monkeypatch, volumes, spacing_um, cell_um, block, cells, threads
):
    stored, codes, parts = volumes
    monkeypatch.setattr(tally, "BLOCK", block)
    monkeypatch.setattr(tally, "MAX_CELLS", cells)
    monkeypatch.setattr(tally, "MAX_CELL_BYTES", 1 << 40)
    if stored.dtype == np.uint16:
        monkeypatch.setattr(tally, "MAX_CELLS", 16)
    found, _ = tally.tally(
        {"v": Held(stored, spacing_um)},
        {"truth": {"v": Held(codes)}},
        table_of(parts),
        fold=0,
        parts=("validation", "test"),
        cell_um=cell_um,
        threads=threads,
    )
    for part in ("validation", "test"):
        expected = sum(
            metrics.joint_histogram(stored[at], codes[at] == 1, ignore=codes[at] == 255)
            for at in (boxes.slices(box) for p, box in parts if p == part)
        )
        np.testing.assert_array_equal(found["truth", part].histograms.sum(axis=0), expected)


@settings(deadline=None, max_examples=40)
@given(volumes=scored_volumes(np.uint8), cell=st.integers(1, 4))
def test_every_cell_holds_the_voxels_of_its_place(volumes, cell):
    stored, codes, parts = volumes
    found, used_um = tally.tally(
        {"v": Held(stored)}, {"truth": {"v": Held(codes)}}, table_of(parts), fold=0, parts=("validation",), cell_um=cell
    )
    assert used_um == cell
    (z0, z1), *_ = parts[0][1]
    expected = []
    for z in range(0, stored.shape[0], cell):
        for y in range(0, stored.shape[1], cell):
            for x in range(0, stored.shape[2], cell):
                at = (slice(max(z, z0), min(z + cell, z1)), slice(y, y + cell), slice(x, x + cell))
                if z < z1:
                    expected.append(metrics.joint_histogram(stored[at], codes[at] == 1, ignore=codes[at] == 255))
    np.testing.assert_array_equal(found["truth", "validation"].histograms, expected)


@settings(deadline=None, max_examples=25)
@given(volumes=scored_volumes(np.uint8), axis=st.integers(1, 2))
def test_mirroring_everything_changes_no_score(volumes, axis):
    stored, codes, parts = volumes
    codes = codes.copy()
    codes[0, 0, 0] = codes[-1, -1, -1] = 1  # something to choose a threshold on
    parts = [(part, (box[0], box[1], (0, stored.shape[2]))) for part, box in parts[:2]]
    tables = []
    for turn in (lambda array: array, lambda array: np.flip(array, axis)):
        found = evaluate.evaluate_prediction(
            {"v": Held(turn(stored))},
            {"annotation": {"v": Held(turn(codes))}},
            table_of(parts),
            fold=0,
            threshold_metric="f1",
            bootstrap_samples=0,
            bootstrap_block_um=3.0,
            seed=0,
        )
        tables.append(found)
    columns = ["average_precision", "precision", "recall", "f1", "iou", "accuracy"]
    pd.testing.assert_frame_equal(tables[0].scores[columns], tables[1].scores[columns])
    assert tables[0].threshold == tables[1].threshold
    assert tables[0].curve.equals(tables[1].curve)


@pytest.mark.parametrize("spacing_um", [(1.0, 1.0, 1.0), (4.0, 1.0, 1.0)])
def test_cells_are_cubes_in_micrometres(spacing_um):
    stored = np.zeros((8, 8, 8), np.uint8)
    codes = np.zeros((8, 8, 8), np.uint8)
    found, _ = tally.tally(
        {"v": Held(stored, spacing_um)},
        {"truth": {"v": Held(codes)}},
        table_of([("test", boxes.whole((8, 8, 8)))]),
        fold=0,
        parts=("test",),
        cell_um=4.0,
    )
    voxels = found["truth", "test"].histograms.sum(axis=(1, 2))
    assert set(voxels.tolist()) == {int(64 / spacing_um[0])}
