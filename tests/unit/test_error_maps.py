"""Error maps: what is marked where, and the picture that shows it."""

import numpy as np
import pytest
from PIL import Image
from sections import Held, cells, table_of

from voxloom import error_maps
from voxloom.error_maps import MARKS, MERGER_MARK, MISSED_MARK, SPLIT_MARK, error_map, error_marks
from voxloom.errors import VolumeError


def drawn():
    """A wall of four columns between two cells, 20 x 30 pixels, predicted with a gap, and a false wall in one of them.

    rows 0-4 and 15-19   the wall as it is
    rows 5-14            no wall
    columns 20-21        a wall that isn't there
    """
    codes = np.zeros((20, 30), np.uint8)
    codes[:, 8:12] = 1
    interior = 1.0 - (codes == 1)
    interior[5:15, 8:12] = 1.0
    interior[:, 20:22] = 0.0
    return interior, codes


def test_a_gap_in_a_membrane_is_a_merger_on_missed_membrane_and_a_false_one_a_split():
    marks = error_marks(*drawn(), threshold=0.5)
    merged, missed, cut = (np.argwhere(marks == mark) for mark in (MERGER_MARK, MISSED_MARK, SPLIT_MARK))
    for found, rows, columns in ((merged, (4, 15), (7, 12)), (missed, (7, 12), (8, 11)), (cut, (0, 19), (18, 23))):
        assert len(found)
        assert rows[0] <= found[:, 0].min() <= found[:, 0].max() <= rows[1]
        assert columns[0] <= found[:, 1].min() <= found[:, 1].max() <= columns[1]


def test_a_membrane_that_lies_two_pixels_off_is_not_missed():
    _, codes = drawn()
    interior = 1.0 - (np.roll(codes, 2, axis=1) == 1)
    assert not error_marks(interior, codes, threshold=0.5).any()
    further = 1.0 - (np.roll(codes, 3, axis=1) == 1)
    assert set(np.unique(error_marks(further, codes, threshold=0.5))) == {0, MISSED_MARK}


def test_nothing_is_marked_where_nobody_annotated():
    interior, codes = drawn()
    codes[3:17] = 255
    codes[:, 18:] = 255
    assert not error_marks(interior, codes, threshold=0.5).any()


def test_the_picture_is_the_section_pixel_by_pixel_above_its_legend():
    image = np.tile(np.linspace(0, 60000, 300), (40, 1)).astype(np.uint16)
    marks = np.zeros(image.shape, np.uint8)
    marks[2, 3], marks[5, 7], marks[9, 1] = SPLIT_MARK, MERGER_MARK, MISSED_MARK
    colours = np.asarray(error_map(image, marks, caption="section 3").convert("RGB"))
    assert colours.shape[1] == 300
    section, legend = colours[:40], colours[40:]
    for (row, column), mark in (((2, 3), SPLIT_MARK), ((5, 7), MERGER_MARK), ((9, 1), MISSED_MARK)):
        assert tuple(section[row, column]) == MARKS[mark][1]
        assert (legend == MARKS[mark][1]).all(axis=-1).sum() == error_maps.LETTER**2
    greys = section[30].astype(int)
    assert (greys[:, 0] == greys[:, 1]).all()
    assert (np.diff(greys[:, 0]) >= 0).all()
    assert (greys[0, 0], greys[-1, 0]) == (0, 255)


def test_a_narrow_section_has_a_legend_of_several_rows():
    picture = error_map(np.zeros((4, 5), np.uint8), np.zeros((4, 5), np.uint8), caption="section 3")
    assert picture.width == error_maps.LEAST_WIDTH
    assert picture.height > 4 + 4 * error_maps.LETTER


def volumes(values):
    return {"v": Held(values)}


def test_every_test_section_is_a_file_of_its_own(tmp_path):
    codes = cells(12)
    split = table_of(("train", (0, 9), (0, 16), (0, 24)), ("test", (9, 12), (0, 16), (0, 24)))
    held = {"predictions": volumes(codes * 255), "truths": volumes(codes), "split": split}
    error_maps.write_error_maps(
        tmp_path / "maps", volumes(np.stack([codes, codes])), fold=0, threshold=0.5, threads=2, **held
    )
    assert sorted(path.name for path in (tmp_path / "maps").iterdir()) == ["v-0009.png", "v-0010.png", "v-0011.png"]
    with Image.open(tmp_path / "maps" / "v-0010.png") as picture:
        assert picture.width == error_maps.LEAST_WIDTH


def test_an_image_of_another_shape_is_refused(tmp_path):
    codes = cells()
    split = table_of(("test", (0, 3), (0, 16), (0, 24)))
    held = {"predictions": volumes(codes * 255), "truths": volumes(codes), "split": split}
    with pytest.raises(VolumeError, match=r"volume v: the image has shape \(2, 16, 24\)"):
        error_maps.write_error_maps(tmp_path, volumes(codes[:2]), fold=0, threshold=0.5, **held)
