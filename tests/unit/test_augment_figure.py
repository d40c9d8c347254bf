"""The figure of augmented patches has a panel for every change that is on, and each panel shows that change."""

import numpy as np
import pytest
import torch
from matplotlib.colors import to_rgb

from voxloom.augment import NAMES
from voxloom.augment_figure import COLUMNS, DRAWS, OUTLINE, draw
from voxloom.figures import MUTED, save_figure
from voxloom.sampling import Batch, Examples

SIZE, DEPTH = 32, 5


def settings(**probabilities):
    return {**dict.fromkeys(NAMES, 0.0), "elastic_sigma_um": None, "elastic_amplitude_um": None, **probabilities}


def examples(dimensions=2, samples=2, channels=1):
    """A bright square, off the centre, in a ramp along X; the first row is not annotated."""
    shape = (samples, 1, DEPTH, SIZE, SIZE) if dimensions == 3 else (samples, 1, SIZE, SIZE)
    mask = torch.zeros(shape)
    mask[..., 20:28, 4:12] = 1
    ignore = torch.zeros(shape, dtype=torch.bool)
    ignore[..., 0, :] = True
    image = (2 * mask + torch.linspace(-1, 1, SIZE)).repeat_interleave(channels, dim=1)
    places = tuple(("cube", (3, 4, 5 + number)) for number in range(samples))
    return Examples(Batch(image, mask, ignore, places), (2.0, 1.0, 1.0), 1.0)


def panels(figure):
    return [(axis.get_title(loc="left"), axis) for axis in figure.axes if axis.images]


def picture(figure, title):
    return next(axis for name, axis in panels(figure) if name == title).images[0].get_array().astype(float) / 255


def is_of(picture, colour):
    return np.abs(picture - np.array(to_rgb(colour))).max(axis=2) < 0.01


def test_every_patch_has_its_draws_and_every_change_its_panel():
    figure = draw(examples(), settings=settings(flip=0.5, noise=0.1, gamma=1.0), title="axons / best / fold 0")
    row = ["original", *(f"draw {k + 1}" for k in range(DRAWS))]
    assert [name for name, _ in panels(figure)] == [*row, *row, "flip", "gamma", "noise"]
    first = [axis for name, axis in panels(figure) if name == "original"]
    assert [axis.get_ylabel() for axis in first] == ["cube\nat voxel 3, 4, 5", "cube\nat voxel 3, 4, 6"]
    assert [axis.texts[0].get_text() for axis in first] == ["5 µm", "5 µm"]


def test_every_augmentation_fits_on_the_page():
    on = settings(**dict.fromkeys(NAMES, 0.5))
    figure = draw(examples(3, samples=1), settings=on, title="all")
    alone = [name.split(",")[0] for name, _ in panels(figure)[COLUMNS:]]
    assert alone == list(NAMES)


def test_foreground_is_outlined_and_moves_with_the_image():
    figure = draw(examples(), settings=settings(flip=0.5), title="moves")
    before, after = (is_of(picture(figure, name), OUTLINE) for name in ("original", "flip"))
    scale = before.shape[0] // SIZE
    rows, columns = np.nonzero(before)
    assert (rows.min() // scale, rows.max() // scale) == (20, 27)
    assert (columns.min() // scale, columns.max() // scale) == (4, 11)
    np.testing.assert_array_equal(after, before[::-1, ::-1])


def test_what_nobody_annotated_is_grey_and_all_panels_of_a_patch_have_the_same_window():
    figure = draw(examples(), settings=settings(contrast=1.0), title="window")
    original, changed = (picture(figure, name) for name in ("original", "contrast"))
    row = original[0, :, :].mean(axis=1)
    assert np.ptp(row) < 0.4 * np.ptp(original[original.shape[0] // 2, :, 0])
    assert np.abs(row - np.mean(to_rgb(MUTED))).max() < 0.2
    assert np.abs(original - changed).max() > 0.05


@pytest.mark.parametrize(("dimensions", "channels"), [(3, 1), (2, 5)])
def test_of_a_fault_the_section_is_shown_that_has_it(dimensions, channels):
    figure = draw(examples(dimensions, channels=channels), settings=settings(missing_section=1.0), title="faults")
    (title,) = [name for name, _ in panels(figure) if name.startswith("missing_section")]
    missing = picture(figure, title)
    inside = missing[missing.shape[0] // 4 : missing.shape[0] // 2]
    assert np.ptp(inside) == 0
    # without a Z axis only the middle slice has labels
    assert is_of(missing, OUTLINE).any() == (dimensions == 3 or title.endswith("slice 3"))


def test_of_a_large_patch_the_middle_is_shown():
    large = torch.zeros(1, 1, 300, 280)
    shown = Examples(Batch(large, large, large > 0, (("cube", (0, 0, 0)),)), (1.0, 0.5, 0.5), 1.0)
    figure = draw(shown, settings=settings(noise=1.0), title="large")
    assert panels(figure)[0][1].images[0].get_extent() == [0, 128.0, 128.0, 0]


def test_equal_examples_are_equal_files(tmp_path):
    for name in ("one", "two"):
        figure = draw(examples(), settings=settings(noise=0.5, rotate=0.5), title="same")
        save_figure(figure, tmp_path / name / "figure")
    for name in ("figure.svg", "figure.png"):
        assert (tmp_path / "one" / name).read_bytes() == (tmp_path / "two" / name).read_bytes()
