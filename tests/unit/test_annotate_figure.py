"""The figure of an annotation shows the masks it is given, and what each step changed."""

import numpy as np
import pytest
from matplotlib.colors import to_rgb

from voxloom.annotate_figure import ADDED, OUTLINE, REMOVED, annotation_figure
from voxloom.errors import VolumeError
from voxloom.figures import MUTED, save_figure
from voxloom.recipe import annotate_volume, summarise
from voxloom.volume import IGNORE

RECIPE = [
    {"threshold": {"below": 100}},
    {"remove_small_objects": {"min_size_voxels": 40}},
    {"grow": {"grow_um": 3.0}},
    {"ignore": {"y_um": [0, 8]}},
]


def _annotated(folder, shape=(8, 40, 50), recipe=RECIPE):
    """A vessel along Z, 6 x 6 voxels, and a cell of 3 x 3 x 3, widest in slice 5."""
    image = np.full(shape, 200, np.uint8)
    image[:, 20:26, 20:26] = 20
    image[4:7, 34:37, 40:43] = 20
    image[5, 26, 20:26] = 20
    codes = np.zeros(shape, np.uint8)
    return annotate_volume(image, codes, recipe, spacing_um=(2.0, 1.0, 1.0), memory_mib=64, scratch_directory=folder)


def _panels(figure):
    panels = {}
    for axis in figure.axes:
        panels.setdefault(axis.get_title(loc="left").replace("\n", " "), axis)  # the first slice's
    return panels


def _share(axis, box, colour):
    """Share of the pixels of a box in micrometres (Y, X) that lean towards a colour."""
    picture = axis.images[0].get_array()
    scale = picture.shape[0] / 40
    part = picture[tuple(slice(int(a * scale), int(b * scale)) for a, b in box)]
    lean = part - part.mean(axis=2, keepdims=True)
    towards = np.array(to_rgb(colour)) - np.mean(to_rgb(colour))
    return float(np.mean((lean @ towards) > 0.05))


def test_each_step_has_its_panel_and_each_panel_shows_its_change(tmp_path):
    figure = annotation_figure(_annotated(tmp_path), spacing_um=(2.0, 1.0, 1.0), title="vessels on a phantom")
    panels = _panels(figure)
    assert list(panels)[:5] == ["slice 5", "below 100", "remove < 40 voxels", "grow 3 µm", "stored annotation"]
    cell, lumen, wall = ((34, 37), (40, 43)), ((22, 24), (22, 24)), ((21, 25), (17.2, 19.8))
    assert _share(panels["slice 5"], cell, REMOVED) == 0
    assert _share(panels["below 100"], cell, OUTLINE) == 1
    assert _share(panels["remove < 40 voxels"], cell, REMOVED) == 1
    assert _share(panels["remove < 40 voxels"], lumen, REMOVED) == 0
    assert _share(panels["grow 3 µm"], cell, ADDED) == 0
    assert _share(panels["grow 3 µm"], wall, ADDED) > 0.5
    assert _share(panels["stored annotation"], wall, OUTLINE) == 1
    ignored = panels["stored annotation"].images[0].get_array()[0, 0]
    assert np.abs(ignored - np.array(to_rgb(MUTED))).max() < 0.35
    assert _share(panels["stored annotation"], ((0, 8), (0, 50)), OUTLINE) < 1


def test_titles_of_two_lines_are_inside_the_figure(tmp_path):
    recipe = [RECIPE[0], {"subtract": [{"smooth": {"sigma_um": 1.2}}, {"threshold": {"below": 30}}]}]
    figure = annotation_figure(_annotated(tmp_path, (8, 50, 50), recipe), spacing_um=(1.0, 1.0, 1.0))
    figure.canvas.draw()
    titles = [title for axis in figure.get_axes() for title in axis.get_children() if hasattr(title, "get_text")]
    long = [title for title in titles if "\n" in title.get_text()]
    assert long
    assert all(title.get_window_extent().y1 <= figure.bbox.y1 for title in long)


def test_the_view_along_z_shows_near_foreground_lighter_than_far_and_background_darkest(tmp_path):
    figure = annotation_figure(_annotated(tmp_path, recipe=RECIPE[:1]), spacing_um=(2.0, 1.0, 1.0))
    view = _panels(figure)["foreground seen along z"].images[0].get_array().mean(axis=2)
    vessel, cell, background = view[23, 23], view[35, 41], view[5, 5]
    assert vessel > 1.5 * cell > 1.5 * background


def test_large_slices_are_shown_where_most_foreground_is(tmp_path):
    figure = annotation_figure(_annotated(tmp_path, shape=(8, 40, 900)), spacing_um=(2.0, 1.0, 1.0))
    panel = _panels(figure)["stored annotation"]
    left, right = panel.get_xlim()
    assert right - left == 400
    assert _share(panel, ((21, 25), (0, 400)), OUTLINE) > 0


def test_an_annotation_without_a_recipe_is_shown_beside_its_image():
    image = np.random.default_rng(0).integers(0, 255, (4, 30, 40), np.uint8)
    codes = np.full(image.shape, 255, np.uint8)
    codes[2, 5:20, 5:20] = 0
    codes[2, 8:12, 8:12] = 1
    figure = annotation_figure(summarise(image, codes, memory_mib=16), spacing_um=(2.0, 1.0, 1.0))
    assert list(_panels(figure))[:3] == ["slice 2", "stored annotation", "foreground seen along z"]


def test_is_written_as_svg_and_png(tmp_path):
    figure = annotation_figure(_annotated(tmp_path), spacing_um=(2.0, 1.0, 1.0))
    svg, png = save_figure(figure, tmp_path / "figure", png_dpi=50)
    assert "remove &lt; 40 voxels" in svg.read_text()
    assert png.read_bytes().startswith(b"\x89PNG")


def test_a_volume_that_is_not_to_be_annotated_is_shown_as_such(tmp_path):
    """What `voxloom init` writes for volumes without labels: the recipe of those that have none ignores all of them."""
    recipe = [{"threshold": {"above": "otsu"}}, {"ignore": {"z_um": [0, 1e9]}}]
    annotated = _annotated(tmp_path, recipe=recipe)
    assert [traced.z for traced in annotated.slices] == [4]
    assert (annotated.slices[0].codes == IGNORE).all()
    figure = annotation_figure(annotated, spacing_um=(2.0, 1.0, 1.0))
    save_figure(figure, tmp_path / "figure", png_dpi=50)


def test_nothing_to_show_is_an_error(tmp_path):
    with pytest.raises(VolumeError, match="marked no voxel, so there is nothing to show"):
        annotation_figure(_annotated(tmp_path, recipe=[{"threshold": {"below": 3}}]), spacing_um=(2.0, 1.0, 1.0))
