"""Splits of volumes of any shape, spacing and setting keep their promises, or say why they can't."""

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from voxloom import audit, boxes
from voxloom.errors import SplitError
from voxloom.split import SplitSettings, SplitVolume, boxes_of, count_blocks, gap_voxels, make_split

SPACINGS = st.tuples(*[st.sampled_from([0.5, 1.0, 1.17, 3.0])] * 3)
SHAPES = st.tuples(st.integers(8, 24), st.integers(4, 14), st.integers(4, 14))
EDGES = st.tuples(st.floats(1.0, 8.0), *[st.one_of(st.none(), st.floats(2.0, 15.0))] * 2)
REACHES = st.tuples(st.integers(0, 3), st.one_of(st.none(), st.integers(0, 4)), st.one_of(st.none(), st.integers(0, 4)))
PART_PAIRS = [("train", "test"), ("train", "validation"), ("validation", "test")]


def counter(codes):
    return lambda name, wanted: count_blocks(codes[name], wanted)


def random_codes(volumes, seed):
    rng = np.random.default_rng(seed)
    return {v.name: rng.choice(np.array([0, 0, 1, 255], np.uint8), size=v.shape) for v in volumes}


def painted(split, fold, volume):
    """Every voxel's part, by number; fails where two rows share a voxel or one has none."""
    parts = np.zeros(volume.shape, dtype=int)
    for number, part in enumerate(["train", "validation", "test", "gap", "excluded"], start=1):
        for box in boxes_of(split, fold=fold, volume=volume.name, part=part):
            assert not parts[boxes.slices(box)].any(), "two rows share a voxel"
            parts[boxes.slices(box)] = number
    assert parts.all(), "a voxel is in no row"
    return parts


def assert_apart(parts, a, b, gap):
    """No voxel of b is within the gap of a voxel of a along all axes, by growing a without any box arithmetic."""
    grown = parts == a
    for axis, margin in enumerate(gap):
        reach = np.zeros_like(grown)
        for shift in range(-margin, margin + 1):
            moved = np.roll(grown, shift, axis=axis)
            wrapped = [slice(None)] * 3
            wrapped[axis] = slice(0, shift) if shift >= 0 else slice(shift, None)
            if shift:
                moved[tuple(wrapped)] = False
            reach |= moved if abs(shift) < grown.shape[axis] else False
        grown = reach
    assert not (grown & (parts == b)).any()


@settings(deadline=None, max_examples=150, suppress_health_check=[HealthCheck.too_slow, HealthCheck.filter_too_much])
@given(
    shapes=st.lists(SHAPES, min_size=1, max_size=4),
    spacing_um=SPACINGS,
    block_um=EDGES,
    gap_um=st.floats(0.0, 4.0),
    reach=REACHES,
    kind=st.sampled_from(["fractions", "fractions", "folds", "slices", "volumes"]),
    number=st.integers(2, 5),
    seed=st.integers(0, 2**31),
)
def test_every_pair_of_voxels_of_different_parts_is_a_gap_apart(
    shapes, spacing_um, block_um, gap_um, reach, kind, number, seed
):
    volumes = [SplitVolume(f"v{k}", "r", shape, spacing_um) for k, shape in enumerate(shapes)]
    codes = random_codes(volumes, seed)
    folds = number if kind == "folds" else 1
    test_slices = number if kind == "slices" else None
    wanted = SplitSettings(
        by="volume" if kind == "volumes" else "block",
        block_um=block_um,
        gap_um=gap_um,
        test_fraction=0.2,
        validation_fraction=0.2,
        test_slices=test_slices,
        folds=folds,
    )
    try:
        split = make_split(volumes, counter(codes), settings=wanted, reach_voxels=[reach], seed=seed)
    except SplitError:
        return
    gaps = {v.name: gap_voxels(v, gap_um=gap_um, reach_voxels=[reach]) for v in volumes}
    audit.refuse_violations(audit.distances(split, volumes, gaps=gaps))
    for fold in range(folds):
        slices = 0
        for volume in volumes:
            parts = painted(split, fold, volume)
            gap = gaps[volume.name]
            for a, b in ((1, 3), (1, 2), (2, 3)):
                assert_apart(parts, a, b, gap)
            is_test = (parts == 3).all(axis=(1, 2))
            slices += int(is_test.sum())
        if test_slices is not None:
            assert slices == test_slices
    rows = split.sample(min(5, len(split)), random_state=0)
    for row in rows.itertuples():
        inside = codes[row.volume][row.z_from : row.z_to, row.y_from : row.y_to, row.x_from : row.x_to]
        assert row.voxels == inside.size
        assert row.annotated_voxels == (inside != 255).sum()
        assert row.foreground_voxels == (inside == 1).sum()


@settings(deadline=None, max_examples=60, suppress_health_check=[HealthCheck.too_slow])
@given(depth=st.integers(10, 60), folds=st.integers(2, 5), edge=st.floats(1.0, 8.0), seed=st.integers(0, 2**31))
def test_folds_test_every_block_once(depth, folds, edge, seed):
    volume = SplitVolume("v", "r", (depth, 6, 6), (1.0, 1.0, 1.0))
    codes = {"v": np.random.default_rng(seed).choice(np.array([0, 1], np.uint8), size=volume.shape)}
    wanted = SplitSettings(
        by="block", block_um=(edge, None, None), gap_um=0.0, test_fraction=0.2, validation_fraction=0.2, folds=folds
    )
    try:
        split = make_split([volume], counter(codes), settings=wanted, reach_voxels=[(0, 0, 0)], seed=seed)
    except SplitError:
        return
    times_tested = np.zeros(volume.shape, int)
    for fold in range(folds):
        times_tested += painted(split, fold, volume) == 3
    assert (times_tested == 1).all()


@st.composite
def ranges(draw, size):
    first = draw(st.integers(0, size - 1))
    return first, draw(st.integers(first + 1, size))


@settings(deadline=None, max_examples=100)
@given(data=st.data(), gap=st.tuples(*[st.integers(0, 3)] * 3))
def test_named_boxes_leave_as_training_exactly_what_is_a_gap_away(data, gap):
    shape = (9, 8, 7)
    volume = SplitVolume("v", "r", shape, (1.0, 1.0, 1.0))
    test = dict(zip("zyx", (data.draw(ranges(n)) for n in shape), strict=True))
    entries = [{"fold": 0, "volume": "v", "part": "test", **test}]
    wanted = SplitSettings(
        by="box", block_um=(None,) * 3, gap_um=0.0, test_fraction=0.2, validation_fraction=0.2, boxes=entries
    )
    codes = {"v": np.ones(shape, np.uint8)}
    expected = np.ones(shape, bool)
    grown = tuple(slice(max(0, a - g), b + g) for (a, b), g in zip(test.values(), gap, strict=True))
    expected[grown] = False
    try:
        split = make_split([volume], counter(codes), settings=wanted, reach_voxels=[gap], seed=0)
    except SplitError:
        assert not expected.any()
        return
    np.testing.assert_array_equal(painted(split, 0, volume) == 1, expected)


@settings(deadline=None)
@given(data=st.data(), seed=st.integers(0, 100))
def test_a_box_less_a_hole_is_covered_once(data, seed):
    shape = (6, 5, 4)
    box, hole = (tuple(data.draw(ranges(n)) for n in shape) for _ in range(2))
    expected = np.zeros(shape, int)
    expected[boxes.slices(box)] = 1
    expected[boxes.slices(hole)] = 0
    found = np.zeros(shape, int)
    for piece in boxes.subtract(box, hole):
        found[boxes.slices(piece)] += 1
    np.testing.assert_array_equal(found, expected)


@pytest.mark.parametrize("part_pair", PART_PAIRS)
def test_the_audit_sees_a_box_that_is_one_voxel_too_close(part_pair):
    volume = SplitVolume("v", "r", (40, 8, 8), (1.0, 1.0, 1.0))
    codes = {"v": np.ones(volume.shape, np.uint8)}
    wanted = SplitSettings(
        by="block", block_um=(8.0, None, None), gap_um=2.0, test_fraction=0.2, validation_fraction=0.2
    )
    split = make_split([volume], counter(codes), settings=wanted, reach_voxels=[(0, 0, 0)], seed=3)
    gaps = {"v": (2, 2, 2)}
    audit.refuse_violations(audit.distances(split, [volume], gaps=gaps))
    weaker, stronger = part_pair
    near = split.copy()
    z_to = int(near.loc[near["part"] == stronger, "z_to"].iloc[0])
    moved = near.index[near["part"] == weaker][0]
    near.loc[moved, ["z_from", "z_to"]] = [z_to + 1, z_to + 2]
    with pytest.raises(SplitError, match="1 voxel"):
        audit.refuse_violations(audit.distances(near, [volume], gaps=gaps))
