"""What a recipe makes of a box, by the shortest way."""

import numpy as np
import pytest

from voxloom import recipe_plan
from voxloom.annotate import Step, every_value, marked
from voxloom.recipe_plan import Run, evaluate, nodes_of

BAND_AND_MORE = [
    {"threshold": {"between": [20, 200]}},
    {"subtract": [{"threshold": {"between": [40, 60]}}, {"union": [{"threshold": {"above": 180}}]}]},
    {"union": [{"threshold": {"below": 3}}]},
]


@pytest.mark.parametrize("dtype", ["uint8", "int8", "uint16", "int16", "int32", "float32"])
def test_thresholds_and_combinations_are_those_of_the_voxels_for_any_data_type(dtype):
    image = np.random.default_rng(3).integers(-128, 256, (4, 9, 30)).astype(dtype)
    run = Run(image, (1.0, 1.0, 1.0), 1.0, 1)
    found = evaluate(nodes_of(BAND_AND_MORE)[-1], run, {"image": image}, (0, 0, 0))
    values = image.astype(float)
    expected = (values >= 20) & (values < 200) & ~(((values >= 40) & (values < 60)) | (values >= 180)) | (values < 3)
    np.testing.assert_array_equal(found, expected)


def test_thresholds_of_grey_values_go_through_the_image_once(monkeypatch):
    image = np.random.default_rng(3).integers(0, 256, (2, 300, 300)).astype(np.uint8)
    seen = []
    threshold = recipe_plan.STEPS["threshold"].apply
    counting = Step(lambda values, **options: (seen.append(values.size), threshold(values, **options))[1], ())
    monkeypatch.setitem(recipe_plan.STEPS, "threshold", counting)
    evaluate(nodes_of(BAND_AND_MORE)[-1], Run(image, (1.0, 1.0, 1.0), 1.0, 1), {"image": image}, (0, 0, 0))
    assert seen == [256] * 4


@pytest.mark.parametrize("dtype", [np.uint8, np.int16])
def test_any_set_of_grey_values_can_be_marked(dtype):
    rng = np.random.default_rng(3)
    values = every_value(np.dtype(dtype))
    image = rng.choice(values.reshape(-1), (3, 20, 20))
    for share in (0.0, 0.01, 0.99, 1.0):
        chosen = rng.random(values.shape) < share
        np.testing.assert_array_equal(marked(image, chosen), np.isin(image, values[chosen]))
