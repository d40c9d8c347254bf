"""Audits of splits whose leaks are known."""

import numpy as np
import pandas as pd
import pytest

from voxloom import audit
from voxloom.errors import SplitError
from voxloom.split import COLUMNS, SplitVolume
from voxloom.split_figure import split_figure

VOLUME = SplitVolume("v", "r", (60, 40, 40), (2.0, 1.0, 1.0))


def split_of(*rows):
    """From (volume, part, z range[, y range]) tuples."""
    table = pd.DataFrame(0, index=range(len(rows)), columns=list(COLUMNS)).astype(COLUMNS)
    for index, (volume, part, z, *y) in enumerate(rows):
        (y_from, y_to) = y[0] if y else (0, 40)
        table.loc[index, ["volume", "part", "z_from", "z_to"]] = [volume, part, *z]
        table.loc[index, ["y_from", "y_to", "x_to"]] = [y_from, y_to, 40]
    return table


def row_of(table, check):
    return table[table["check"] == check].iloc[0]


def test_distance_is_what_lies_between_in_micrometres():
    split = split_of(("v", "train", (0, 20)), ("v", "test", (25, 30)), ("v", "train", (40, 60)))
    table = audit.distances(split, [VOLUME], gaps={"v": (3, 4, 4)})
    row = row_of(table, "distance train-test")
    assert (row["value"], row["limit"], row["unit"], row["verdict"]) == (10.0, 6.0, "um", "ok")
    assert "5 voxel(s) along Z, 3 needed" in row["detail"]
    assert row_of(table, "distance validation-test")["verdict"] == "ok"
    audit.refuse_violations(table)


def test_one_far_axis_is_enough():
    split = split_of(("v", "train", (0, 60), (0, 10)), ("v", "test", (0, 60), (14, 40)))
    row = row_of(audit.distances(split, [VOLUME], gaps={"v": (3, 4, 4)}), "distance train-test")
    assert (row["value"], row["verdict"]) == (4.0, "ok")


def test_a_gap_that_is_too_narrow_stops_the_run():
    split = split_of(("v", "train", (0, 20)), ("v", "test", (22, 30)))
    table = audit.distances(split, [VOLUME], gaps={"v": (3, 4, 4)})
    assert row_of(table, "distance train-test")["verdict"] == "violated"
    with pytest.raises(SplitError, match=r"fold 0, volume v, distance train-test is 4 um where 6 um are needed"):
        audit.refuse_violations(table)


def test_parts_that_share_voxels_stop_the_run_even_without_a_gap():
    split = split_of(("v", "train", (0, 20)), ("v", "validation", (19, 30)))
    with pytest.raises(SplitError, match="distance train-validation is 0 um"):
        audit.refuse_violations(audit.distances(split, [VOLUME], gaps={"v": (0, 0, 0)}))


def test_a_copied_slice_is_found_across_volumes_though_noisy():
    rng = np.random.default_rng(0)
    images = {name: rng.integers(0, 200, (60, 40, 40)).astype(np.uint8) for name in "vw"}
    images["w"][7] = images["v"][33] + rng.integers(0, 20, (40, 40)).astype(np.uint8)
    split = split_of(("v", "test", (30, 40)), ("w", "train", (0, 60)), ("v", "train", (0, 20)))
    table = audit.duplicates(split, images, duplicate_correlation=0.98)
    found = table[(table["volume_a"] == "w") & (table["volume_b"] == "v")].iloc[0]
    assert found["verdict"] == "warning"
    assert "slice 7 of training and 33 of test" in found["detail"]
    assert "1 pair(s)" in found["detail"]
    other = table[table["volume_a"] == "v"].iloc[0]
    assert other["verdict"] == "ok"
    assert other["value"] < 0.5
    audit.refuse_violations(table)


@pytest.mark.parametrize(
    ("shape", "value", "dtype"),
    [((40, 40), 7, "uint8"), ((500, 700), 255, "uint8"), ((500, 700), 65535, "uint16"), ((20, 33), 1000, "uint16")],
)
def test_slices_without_contrast_are_no_duplicates(shape, value, dtype):
    images = {"v": np.full((60, *shape), value, dtype)}
    split = split_of(("v", "test", (30, 40)), ("v", "train", (0, 20)))
    split[["y_to", "x_to"]] = shape
    assert audit.duplicates(split, images, duplicate_correlation=0.98).empty


def test_many_slices_are_thinned_and_the_audit_says_so(monkeypatch):
    monkeypatch.setattr(audit, "MAX_SLICES", 6)
    images = {"v": np.random.default_rng(0).integers(0, 200, (60, 40, 40)).astype(np.uint8)}
    split = split_of(("v", "test", (30, 40)), ("v", "train", (0, 20)))
    detail = audit.duplicates(split, images, duplicate_correlation=0.98).iloc[0]["detail"]
    assert "1 in 4 slices of training and 1 in 2 of test" in detail


def test_figure_draws_every_box_where_it_is_and_counts_voxels():
    split = split_of(("v", "train", (0, 20)), ("v", "gap", (20, 25)), ("v", "test", (25, 60)))
    split.loc[split["part"] == "test", ["voxels", "annotated_voxels", "foreground_voxels"]] = [56000, 56000, 560]
    figure = split_figure(split, [VOLUME], fold=0)
    xz = figure.axes[0]
    drawn = sorted((patch.get_y(), patch.get_height()) for patch in xz.patches)
    assert drawn == [(0.0, 40.0), (40.0, 10.0), (50.0, 70.0)], "z in micrometres"
    assert len({patch.get_facecolor() for patch in xz.patches}) == 3
    labels = [text.get_text() for text in figure.legends[0].get_texts()]
    assert any(label.startswith("test: 56,000 voxels in 1 box, 1 %") for label in labels)
