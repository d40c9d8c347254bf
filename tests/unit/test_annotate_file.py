"""Annotation files: what is foreground, what is background, and what nobody looked at."""

from pathlib import Path

import numpy as np
import pytest

from voxloom import io
from voxloom.annotate_file import ImportedAnnotation, import_annotation
from voxloom.errors import ConfigError, FormatError, VolumeError
from voxloom.io.source import Segment, Source, slabs
from voxloom.volume import Geometry

GEOMETRY = Geometry(spacing_um=(2.0, 1.0, 1.0), space="left-posterior-superior")


def _source(array, *, one_channel=True, geometry=GEOMETRY, segments=()):
    def read_blocks(slices):
        for index in slabs(array.shape, slices, one_channel=one_channel):
            yield index, np.ascontiguousarray(array[index])

    return Source(
        path=Path("drawn.nrrd"),
        format="nrrd",
        shape=array.shape,
        dtype=array.dtype,
        read_blocks=read_blocks,
        read_values=lambda: iter([array.ravel()]),
        geometry=geometry,
        segments=segments,
    )


def _imported(array, **options):
    out = np.zeros(array.shape[-3:], np.uint8)
    source_options = {key: options.pop(key) for key in ("one_channel", "geometry", "segments") if key in options}
    return out, import_annotation(_source(array, **source_options), out, geometry=GEOMETRY, **options)


def _sparse():
    """Four slices of 3 x 4: label 2 on the first, label 7 on the third, nothing on the others."""
    values = np.zeros((4, 3, 4), np.uint16)
    values[0, 0, :2] = 2
    values[2, 1, 1] = 7
    return values


def test_any_value_but_zero_is_foreground_and_slices_without_are_not_annotated():
    codes, imported = _imported(_sparse())
    assert codes[0].tolist() == [[1, 1, 0, 0], [0, 0, 0, 0], [0, 0, 0, 0]]
    assert codes[2, 1, 1] == 1
    assert (codes[[1, 3]] == 255).all()
    assert imported == ImportedAnnotation(foreground_voxels=3, background_voxels=21, ignored_voxels=24, drawn_slices=2)


def test_slices_without_are_background_in_a_dense_annotation():
    codes, imported = _imported(_sparse(), empty_slices="background")
    np.testing.assert_array_equal(codes, _sparse() != 0)
    assert imported.ignored_voxels == 0


def test_only_the_named_values_are_foreground():
    codes, _ = _imported(_sparse(), labels=[7], empty_slices="background")
    np.testing.assert_array_equal(codes, _sparse() == 7)


def test_a_slice_with_another_label_only_was_not_drawn_for_this_one():
    codes, _ = _imported(_sparse(), labels=[7])
    assert (codes[[0, 1, 3]] == 255).all()


def test_values_that_mean_not_annotated_win_and_slices_that_have_them_were_looked_at():
    values = np.full((3, 4, 4), 255, np.uint8)
    values[0, :2, :2] = [[1, 0], [0, 0]]
    values[1, :2, :2] = 0
    codes, imported = _imported(values)
    np.testing.assert_array_equal(codes, values)
    assert imported == ImportedAnnotation(1, 7, 40, 3)


def test_a_mask_of_0_and_255_is_foreground_once_255_is_not_ignored():
    values = np.zeros((2, 3, 3), np.uint8)
    values[:, 1, 1] = 255
    with pytest.raises(FormatError, match=r"ignore_labels, \[255\]; .* take it out of ignore_labels"):
        _imported(values)
    assert _imported(values, labels=[1])[1].foreground_voxels == 0  # no vessel here, and somebody said so
    codes, _ = _imported(values, ignore_labels=[])
    np.testing.assert_array_equal(codes, values == 255)


def test_what_a_file_leaves_out_is_foreground_where_0_is_chosen():
    cells = np.full((2, 3, 3), 255, np.uint8)
    cells[:, 1] = 0  # a membrane between two cells
    codes, imported = _imported(cells, labels=[0], ignore_labels=[], empty_slices="background")
    np.testing.assert_array_equal(codes, cells == 0)
    assert imported == ImportedAnnotation(6, 12, 0, 2)
    with pytest.raises(FormatError, match="2 layers.*take 0 out of labels"):
        _imported(np.stack([cells, cells]), labels=[0])


def test_an_annotation_without_any_label_is_allowed():
    codes, imported = _imported(np.zeros((2, 3, 3), np.uint8), empty_slices="background")
    assert not codes.any()
    assert imported.drawn_slices == 0


@pytest.mark.parametrize("one_channel", [True, False])
def test_segments_are_chosen_by_name_in_whichever_layer(one_channel):
    layers = np.zeros((2, 3, 4, 5), np.uint8)
    layers[0, 0, 0, 0] = 1  # vessel
    layers[0, 1, 1, 1] = 2  # cell
    layers[1, 0, 0, 1] = 1  # artery
    segments = (Segment("S1", "vessel"), Segment("S2", "cell", label_value=2), Segment("S3", "artery", layer=1))
    options = {"one_channel": one_channel, "segments": segments, "empty_slices": "background"}
    codes, _ = _imported(layers, labels=["vessel", "artery"], **options)
    assert np.argwhere(codes).tolist() == [[0, 0, 0], [0, 0, 1]]
    codes, _ = _imported(layers, **options)
    assert np.argwhere(codes).tolist() == [[0, 0, 0], [0, 0, 1], [1, 1, 1]]
    with pytest.raises(FormatError, match="'nerve'.*'vessel' = 1"):
        _imported(layers, labels=["nerve"], **options)


def test_a_cropped_segmentation_is_refused_with_both_shapes():
    with pytest.raises(VolumeError, match=r"\(4, 3, 4\) voxels \(Z, Y, X\), the volume has \(4, 3, 5\); .* crops"):
        import_annotation(_source(_sparse()), np.zeros((4, 3, 5), np.uint8), geometry=GEOMETRY)


def test_another_voxel_size_is_refused_with_both_sizes():
    close = Geometry(spacing_um=(2.01, 1.0, 1.0))
    _imported(_sparse(), geometry=close)
    larger = Geometry(spacing_um=(4.0, 2.0, 2.0))
    with pytest.raises(VolumeError, match=r"voxels of \(4, 2, 2\) um .* voxels of \(2, 1, 1\) um"):
        _imported(_sparse(), geometry=larger)


def test_a_file_without_a_unit_is_taken_in_the_volume_s():
    read_as_millimetres = Geometry(spacing_um=(2000.0, 1000.0, 1000.0))
    _imported(_sparse(), geometry=read_as_millimetres)
    _imported(_sparse(), geometry=None)


def test_a_flipped_annotation_is_refused():
    flipped = Geometry(spacing_um=(2.0, 1.0, 1.0), directions=((1, 0, 0), (0, -1, 0), (0, 0, 1)), space=GEOMETRY.space)
    with pytest.raises(VolumeError, match="one is flipped or turned against the other"):
        _imported(_sparse(), geometry=flipped)


def test_empty_slices_is_one_of_two_words():
    with pytest.raises(ConfigError, match="empty_slices is 'zero', but must be ignore or background"):
        _imported(_sparse(), empty_slices="zero")


def test_the_budget_changes_no_voxel(tmp_path):
    values = np.random.default_rng(2).integers(0, 3, (70, 9, 8)).astype(np.uint8)
    values[[3, 40, 66]] = 0
    expected, _ = _imported(values, labels=[2])
    with io.create_volume(
        tmp_path / "a.zarr", shape=values.shape, dtype="uint8", geometry=GEOMETRY, kind="annotation"
    ) as out:
        import_annotation(_source(values), out, geometry=GEOMETRY, labels=[2], memory_mib=0.03)
    np.testing.assert_array_equal(io.open_volume(tmp_path / "a.zarr")[:, :, :], expected)
    assert (expected[[3, 40, 66]] == 255).all()


def test_the_human_labels_of_real_tissue_are_annotated_in_their_rectangle_only(shared_data):
    from voxloom.io.nrrd import open_nrrd

    source = open_nrrd(shared_data / "xray-thc" / "test_cube2_labels_z200_z230_z260.nrrd")
    out = np.zeros(source.require_shape(), np.uint8)
    imported = import_annotation(source, out, geometry=Geometry(spacing_um=(1.17, 1.17, 1.17)), labels=[2])
    values = np.concatenate([block for _, block in source.read_blocks(64)])
    np.testing.assert_array_equal(out == 1, values == 2)
    np.testing.assert_array_equal(out == 255, values == 255)
    assert imported.foreground_voxels == (values == 2).sum() > 0
