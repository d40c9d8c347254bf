"""Splits of a column of 100 slices, 1 um each, of which the upper half is denser in foreground."""

import numpy as np
import pytest
from numpy.testing import assert_array_equal

from voxloom import boxes, io
from voxloom.errors import SplitError
from voxloom.split import COLUMNS, SplitSettings, SplitVolume, boxes_of, count_blocks, gap_voxels, make_split
from voxloom.volume import Geometry

SHAPE = (100, 6, 6)
NATIVE = [(0, 2, 2)]


def column(depth=100):
    codes = np.zeros((depth, 6, 6), np.uint8)
    codes[: depth // 2, :3], codes[depth // 2 :, :1] = 1, 1
    return codes


def split_of(volumes=None, codes=None, reach_voxels=NATIVE, seed=0, **changes):
    volumes = volumes or [SplitVolume("v", "cortex", SHAPE, (1.0, 1.0, 1.0))]
    codes = codes or {volume.name: column(volume.shape[0]) for volume in volumes}
    known = {
        "by": "block",
        "block_um": (10.0, None, None),
        "gap_um": 2.0,
        "test_fraction": 0.2,
        "validation_fraction": 0.2,
    }
    return make_split(
        volumes,
        lambda name, wanted: count_blocks(codes[name], wanted),
        settings=SplitSettings(**(known | changes)),
        reach_voxels=reach_voxels,
        seed=seed,
    )


def depths(split, part, fold=0):
    rows = split[(split["part"] == part) & (split["fold"] == fold)]
    return sorted(zip(rows["z_from"].tolist(), rows["z_to"].tolist(), strict=True))


def test_one_volume_is_enough_and_every_part_gets_its_share():
    split = split_of()
    assert list(split.columns) == list(COLUMNS)
    assert len(depths(split, "test")) == len(depths(split, "validation")) == 2
    assert split["voxels"].sum() == 3600
    assert split["annotated_voxels"].sum() == 3600
    assert split["foreground_voxels"].sum() == column().sum()


def test_foreground_is_stratified():
    """Blocks hold 50 % or 17 %; two blocks a part that are drawn blindly are one of each in 5 of 9 draws only."""
    for seed in range(20):
        split = split_of(seed=seed)
        for part in ("test", "validation"):
            shares = split.loc[split["part"] == part, "foreground_voxels"] / split.loc[split["part"] == part, "voxels"]
            assert sorted(shares.round(2)) == [0.17, 0.5]


def test_the_same_seed_gives_the_same_split_and_another_seed_another():
    assert split_of(seed=4).equals(split_of(seed=4))
    assert any(not split_of(seed=4).equals(split_of(seed=seed)) for seed in range(5, 10))


def test_only_training_makes_room_for_test():
    split = split_of(gap_um=3.0)
    assert all(last - first == 10 for first, last in depths(split, "test"))
    assert {last - first for first, last in depths(split, "train")} > {10}
    for first, last in depths(split, "train"):
        for low, high in depths(split, "test"):
            assert first - high >= 3 or low - last >= 3


def test_the_gap_is_in_micrometres_and_widened_to_what_the_models_see():
    volume = SplitVolume("v", "r", (100, 50, 60), (2.0, 1.0, 0.5))
    assert gap_voxels(volume, gap_um=5.0, reach_voxels=[(0, 0, 0)]) == (3, 5, 10)
    assert gap_voxels(volume, gap_um=5.0, reach_voxels=[(4, 4, 4), (0, 22, 22)]) == (4, 22, 22)
    assert gap_voxels(volume, gap_um=5.0, reach_voxels=[(1, None, None)]) == (3, 50, 60)
    assert gap_voxels(volume, gap_um=0.3 * 3, reach_voxels=[]) == (1, 1, 2)


@pytest.mark.parametrize("wanted", [1, 30, 212])
def test_test_set_has_exactly_the_wanted_number_of_whole_slices(wanted):
    volumes = [SplitVolume(name, "r", (depth, 6, 6), (1.0,) * 3) for name, depth in (("a", 100), ("b", 301), ("c", 55))]
    split = split_of(volumes, test_slices=wanted)
    tested = split[split["part"] == "test"]
    assert (tested["z_to"] - tested["z_from"]).sum() == wanted
    assert (tested["voxels"] == (tested["z_to"] - tested["z_from"]) * 36).all(), "slices are whole"
    assert tested["volume"].is_unique, "one run in each volume"
    if wanted > 3:
        assert set(tested["volume"]) == {"a", "b", "c"}


def test_volumes_and_regions_are_kept_together():
    volumes = [SplitVolume(name, name[0], (20, 6, 6), (1.0,) * 3) for name in ("a1", "a2", "b1", "c1", "c2")]
    by_volume = split_of(volumes, by="volume")
    assert (by_volume.groupby("volume")["part"].nunique() == 1).all()
    assert (by_volume["part"] == "test").sum() == 1
    by_region = split_of(volumes, by="region")
    assert (by_region.groupby("region")["part"].nunique() == 1).all()
    assert set(by_region["part"]) == {"train", "validation", "test"}


def test_training_blocks_with_little_foreground_are_left_out():
    codes = column()
    codes[10:20] = 0
    codes[10, 0, :5] = 1
    kept = split_of(codes={"v": codes}, min_foreground_voxels=5, seed=1)
    left_out = split_of(codes={"v": codes}, min_foreground_voxels=6, seed=1)
    assert "excluded" not in set(kept["part"])
    assert depths(left_out, "excluded") == [(first, last) for first, last in depths(kept, "train") if first == 10]


def test_what_nobody_annotated_is_in_no_part():
    codes = column()
    codes[30:60] = 255
    split = split_of(codes={"v": codes})
    assert depths(split, "excluded") == [(30, 40), (40, 50), (50, 60)]


def test_sections_of_a_training_box_are_named_gap():
    split = split_of(gap_um=4.0)
    for _, row in split[split["part"] == "gap"].iterrows():
        same = split[(split["block"] == row["block"]) & (split["part"] == "train")]
        assert len(same) <= 1
    covered = np.zeros(100, int)
    for first, last in zip(split["z_from"], split["z_to"], strict=True):
        covered[first:last] += 1
    assert_array_equal(covered, 1)


def test_named_boxes_are_taken_as_they_are():
    entries = [
        {"fold": 0, "volume": "v", "part": "test", "z": [40, 41]},
        {"fold": 0, "volume": "v", "part": "validation", "z": [70, 80], "y": [0, 3]},
        {"fold": 0, "volume": "v", "part": "unused", "z": [90, 100]},
    ]
    split = split_of(by="box", boxes=entries, reach_voxels=[(1, 1, 1)])
    assert boxes_of(split, fold=0, volume="v", part="test") == [((40, 41), (0, 6), (0, 6))]
    assert boxes_of(split, fold=0, volume="v", part="validation") == [((70, 80), (0, 3), (0, 6))]
    assert boxes_of(split, fold=0, volume="v", part="excluded") == [((90, 100), (0, 6), (0, 6))]
    training = boxes_of(split, fold=0, volume="v", part="train")
    assert ((0, 38), (0, 6), (0, 6)) in training
    assert ((68, 82), (5, 6), (0, 6)) in training, "beside the validation box there is training, 2 um away"
    assert sum(map(boxes.voxels, training)) == (38 + 25 + 8) * 36 + 14 * 6


def test_counts_come_from_all_blocks_of_a_stored_annotation(tmp_path):
    codes = np.random.default_rng(0).choice(np.array([0, 1, 255], np.uint8), size=(130, 20, 30))
    with io.create_volume(
        tmp_path / "a.zarr", shape=codes.shape, dtype="uint8", geometry=Geometry((1.0,) * 3), kind="annotation"
    ) as writer:
        writer[:] = codes
    wanted = [((0, 130), (0, 20), (0, 30)), ((63, 65), (3, 9), (0, 30)), ((120, 130), (19, 20), (29, 30))]
    found = count_blocks(io.open_volume(tmp_path / "a.zarr"), wanted, threads=2)
    expected = [[(codes[boxes.slices(b)] != 255).sum(), (codes[boxes.slices(b)] == 1).sum()] for b in wanted]
    assert_array_equal(found, expected)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        (
            {"block_um": (50.0, None, None)},
            "there are 2 annotated blocks to split: 1 for test and 1 for validation leave none",
        ),
        ({"by": "volume"}, "there are 1 annotated volumes.*use by: block"),
        (
            {"gap_um": 30.0},
            r"nothing is left of (train|validation); .* gap_um: 30.*Make block_um several times the gap",
        ),
        (
            {"block_um": (None, 2.0, None), "reach_voxels": [(0, None, None)]},
            r"nothing is left of (train|validation); .*\(2, 6, 6\) in v",
        ),
        ({"folds": 11}, "11 folds"),
        ({"test_slices": 100}, "leaves nothing of the 100 slices"),
        ({"test_slices": 5, "folds": 2}, "needs by: block and folds: 1"),
        ({"min_foreground_voxels": 10_000}, "nothing is left of train"),
        ({"codes": {"v": np.zeros(SHAPE, np.uint8)}}, "no foreground"),
        ({"by": "box"}, "names no box of fold 0"),
        ({"by": "box", "boxes": [{"fold": 1, "volume": "v", "part": "test"}]}, "names fold 1"),
        ({"by": "box", "boxes": [{"fold": 0, "volume": "w", "part": "test"}]}, "known volumes: v"),
        ({"by": "box", "boxes": [{"fold": 0, "volume": "v", "part": "test", "z": [90, 101]}]}, "100 voxels along z"),
        (
            {
                "by": "box",
                "boxes": [
                    {"fold": 0, "volume": "v", "part": "test", "z": [9, 12]},
                    {"fold": 0, "volume": "v", "part": "validation", "z": [11, 14]},
                ],
            },
            "share voxels",
        ),
    ],
)
def test_impossible_splits_say_which_numbers_and_what_to_do(changes, message):
    with pytest.raises(SplitError, match=message):
        split_of(**changes)
