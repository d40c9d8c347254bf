"""Segments of 3D Slicer's files, and the masks chosen from them."""

import gzip
from pathlib import Path

import numpy as np
import pytest

from voxloom.errors import FormatError
from voxloom.io.nrrd import open_nrrd, segment_selector
from voxloom.io.source import Segment

SEGMENTS = {
    "Segment0_ID": "S_1",
    "Segment0_Name": "soma",
    "Segment0_Color": "1 0.5 2.5e-1",
    "Segment0_LabelValue": "1",
    "Segment0_Layer": "0",
    "Segment0_Extent": "0 3 0 2 0 1",
    "Segment0_Tags": "Segmentation.Status:inprogress|",
    "Segment1_ID": "S_2",
    "Segment1_Name": "axon",
    "Segment1_LabelValue": "7",
    "Segment1_Layer": "1",
    "Segmentation_ReferenceImageExtentOffset": "1 2 3",
}
LAYERS = np.zeros((2, 2, 3, 4), np.uint8)  # layer, Z, Y, X
LAYERS[0, 0] = 1  # soma: the first slice
LAYERS[1, :, 1] = 7  # axon: a plane across it


def write(path: Path, array: np.ndarray, pairs: dict[str, str], *, kinds: str) -> Path:
    sizes = " ".join(map(str, array.shape[::-1]))
    text = f"NRRD0004\ntype: uint8\ndimension: {array.ndim}\nsizes: {sizes}\nkinds: {kinds}\nencoding: gzip\n"
    text += "".join(f"{key}:={value}\n" for key, value in pairs.items()) + "\n"
    path.write_bytes(text.encode() + gzip.compress(array.tobytes()))
    return path


@pytest.fixture
def layered(tmp_path):
    array = np.ascontiguousarray(np.moveaxis(LAYERS, 0, -1))
    return open_nrrd(write(tmp_path / "a.seg.nrrd", array, SEGMENTS, kinds="list domain domain domain"))


def block_of(source):
    ((_, block),) = source.read_blocks(99)
    return block


def test_segments_are_read_with_all_that_is_said_of_them(layered):
    assert layered.shape == (2, 2, 3, 4)
    soma, axon = layered.segments
    assert (soma.id, soma.name, soma.color, soma.layer, soma.label_value) == ("S_1", "soma", (1.0, 0.5, 0.25), 0, 1)
    assert soma.extra == {"Extent": "0 3 0 2 0 1", "Tags": "Segmentation.Status:inprogress|"}
    assert axon == Segment("S_2", "axon", (1.0, 1.0, 1.0), 1, 7)
    assert layered.header["key_values"]["Segmentation_ReferenceImageExtentOffset"] == "1 2 3"


@pytest.mark.parametrize(
    ("labels", "expected"),
    [
        ("any", LAYERS.any(axis=0)),
        (["soma"], LAYERS[0] == 1),
        (["S_2"], LAYERS[1] == 7),
        ([7], LAYERS[1] == 7),
        (["soma", "axon"], LAYERS.any(axis=0)),
        ([1, "axon"], LAYERS.any(axis=0)),
    ],
)
def test_segments_are_chosen_by_name_or_value_across_layers(layered, labels, expected):
    mask = segment_selector(layered, labels)(block_of(layered))
    assert mask.dtype == bool
    np.testing.assert_array_equal(mask, expected)


def test_a_value_counts_in_the_layer_of_its_segment_only(layered):
    block = np.full((2, 1, 1, 1), 7, np.uint8)
    block[1] = 0
    assert not segment_selector(layered, [7])(block).any()  # 7 is a segment of the other layer


def test_unknown_segments_are_refused_with_those_there_are(layered):
    for labels in (["dendrite"], [2]):
        with pytest.raises(FormatError, match=r"a\.seg\.nrrd has no segment .*it has 'soma' = 1, 'axon' = 7"):
            segment_selector(layered, labels)


@pytest.mark.parametrize(("labels", "said"), [("soma", "must be 'any' or a list"), ([], "labels is an empty list")])
def test_labels_must_name_something(layered, labels, said):
    with pytest.raises(FormatError, match=said):
        segment_selector(layered, labels)


def test_all_layers_are_needed_at_once(layered):
    with pytest.raises(FormatError, match="has 2 layers, got a block of shape"):
        segment_selector(layered, "any")(block_of(layered)[:1])


def test_plain_label_files_are_chosen_by_value(tmp_path):
    labels = np.arange(24, dtype=np.uint8).reshape(2, 3, 4)
    source = open_nrrd(write(tmp_path / "a.nrrd", labels, {}, kinds="domain domain domain"))
    np.testing.assert_array_equal(segment_selector(source, [3, 5])(block_of(source)), np.isin(labels, [3, 5]))
    np.testing.assert_array_equal(segment_selector(source, "any")(block_of(source)), labels > 0)
    with pytest.raises(FormatError, match="no segment 'soma' .it names none; use label values"):
        segment_selector(source, ["soma"])


def test_older_files_have_a_layer_per_segment_without_saying_so(tmp_path):
    pairs = {"Segment0_Name": "soma", "Segment0_DefaultColor": "1 0 0", "Segment1_Name": "axon"}
    array = (LAYERS > 0).astype(np.uint8)
    source = open_nrrd(write(tmp_path / "a.seg.nrrd", array, pairs, kinds="domain domain domain domain"))
    assert [(each.name, each.layer, each.label_value) for each in source.segments] == [("soma", 0, 1), ("axon", 1, 1)]
    assert source.segments[0].color == (1.0, 0.0, 0.0)
    volume = np.zeros(source.shape, np.uint8)
    for index, block in source.read_blocks(1):
        volume[index] = block
    np.testing.assert_array_equal(segment_selector(source, ["axon"])(volume), LAYERS[1] > 0)


@pytest.mark.parametrize(
    ("key", "value", "said"),
    [
        ("Segment0_LabelValue", "one", "key 'Segment0_LabelValue' must be a whole number, got 'one'"),
        ("Segment1_Layer", "2", "key 'Segment1_Layer' is 2, expected 0 to 1 as the file has 2 layers"),
    ],
)
def test_values_that_cannot_be_are_refused(tmp_path, key, value, said):
    array = np.ascontiguousarray(np.moveaxis(LAYERS, 0, -1))
    path = write(tmp_path / "a.seg.nrrd", array, SEGMENTS | {key: value}, kinds="list domain domain domain")
    with pytest.raises(FormatError, match=said):
        open_nrrd(path)


def test_files_of_3d_slicer_hold_the_structures_they_name(shared_data):
    folder = shared_data / "multiclass-ct"
    if not folder.is_dir():
        pytest.skip(f"no segmentation at {folder}")
    flat = open_nrrd(folder / "Segmentation.seg.nrrd")
    layered = open_nrrd(folder / "SegmentationOverlapping.seg.nrrd")
    assert (flat.shape, layered.shape) == ((34, 128, 128), (2, 34, 128, 128))
    assert flat.segments[0].name == "ribs"
    ribs = [segment_selector(source, ["ribs"])(block_of(source)) for source in (flat, layered)]
    assert ribs[0].any()
    assert (ribs[0] & ribs[1]).sum() / ribs[0].sum() > 0.9
