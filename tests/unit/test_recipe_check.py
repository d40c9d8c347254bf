"""A recipe that can't be done is refused with the step, the key, the value and what to do."""

import pytest

from voxloom.errors import ConfigError
from voxloom.recipe_check import check_recipe

ABOVE = {"threshold": {"above": 100}}


def _check(*steps):
    check_recipe(list(steps), shape=(20, 30, 40), spacing_um=(2.0, 1.0, 1.0))


def test_the_published_recipes_are_accepted():
    _check({"threshold": {"between": [120, 200]}}, {"subtract": [{"threshold": {"above": "p99.5"}}]})
    _check(
        {"smooth": {"sigma_um": 1.0}},
        {"ignore": {"z_um": [0, 4]}},
        {"threshold": {"below": "otsu"}},
        {"remove_small_objects": {"min_size_voxels": 2000, "connectivity": 26}},
        {"grow": {"grow_um": 4.0, "mode": "slicer_legacy"}},
        {"shrink": {"shrink_um": 1.0}},
        {"fill_holes": {}},
        {"keep": {"x_um": [3, 1000]}},
    )


@pytest.mark.parametrize(
    ("steps", "message"),
    [
        ([], "the recipe has no threshold, so it makes no mask; add one"),
        ([{"smooth": {"sigma_um": 1}}], "the recipe has no threshold"),
        (["threshold"], "step 1 of the recipe must be one key with its settings"),
        ([{**ABOVE, "grow": {"grow_um": 1}}], "step 1 of the recipe must be one key with its settings"),
        ([ABOVE, {"dilate": {}}], "step 2 of the recipe is 'dilate', which is unknown; known: smooth, threshold,"),
        (
            [{"grow": {"grow_um": 1}}, ABOVE],
            "step 1 of the recipe, grow: works on a mask, but no threshold comes before",
        ),
        ([{"subtract": [ABOVE]}], "step 1 of the recipe, subtract: works on a mask"),
        (
            [ABOVE, ABOVE],
            "step 2 of the recipe, threshold: there is a mask already; put this threshold under intersect",
        ),
        ([ABOVE, {"subtract": [{"smooth": {"sigma_um": 1}}]}], "the recipe in step 2 has no threshold"),
        ([ABOVE, {"subtract": [{"keep": {"z_um": [0, 1]}}]}], "step 2.1 of the recipe, keep: works on a mask"),
        (
            [ABOVE, {"union": [ABOVE, {"ignore": {"z_um": [0, 1]}}]}],
            "step 2.2 of the recipe, ignore: means nothing inside",
        ),
        ([ABOVE, {"grow": {"grow_um": 400}}], "step 2 of the recipe, grow: grow_um is 400, .* longest edge, 40 um"),
        ([ABOVE, {"grow": {"grow_um": -1}}], "grow_um is -1, but must be above 0"),
        ([ABOVE, {"shrink": {"shrink_um": 41}}], "shrink_um is 41, .* micrometres, not voxels or nanometres"),
        ([{"smooth": {"sigma_um": 99}}, ABOVE], "step 1 of the recipe, smooth: sigma_um is 99"),
        ([ABOVE, {"grow": {}}], "step 2 of the recipe, grow: grow_um is missing; give it in micrometres"),
        (
            [ABOVE, {"grow": {"radius_um": 4}}],
            "step 2 of the recipe, grow: unknown key 'radius_um'; known: grow_um, mode",
        ),
        ([ABOVE, {"grow": {"grow_um": 4, "mode": "box"}}], "mode is 'box', but must be exact or slicer_legacy"),
        ([{"threshold": {"between": [90, 30]}}], r"threshold: between is \[90, 30\], .* smaller than the second; swap"),
        ([{"threshold": {"between": ["p90", "p30"]}}], r"between is \[p90, p30\]"),
        ([{"threshold": {"between": 90}}], "between takes two levels"),
        ([{"threshold": {"above": "p100.5"}}], "above is 'p100.5', .* a percentile from p0 to p100"),
        ([{"threshold": {"above": "high"}}], "above is 'high', but a level is a grey value, otsu, or a percentile"),
        ([{"threshold": {"above": 1, "below": 2}}], "takes exactly one of above, below and between, got above, below"),
        ([ABOVE, {"remove_small_objects": {}}], "takes exactly one of min_size_voxels and min_size_um3, got 0 of them"),
        (
            [ABOVE, {"remove_small_objects": {"min_size_voxels": 24001}}],
            "min_size_voxels is 24001, but must be above 0 and at most the volume's 24000 voxels",
        ),
        ([ABOVE, {"fill_holes": {"connectivity": 4}}], "step 2 of the recipe, fill_holes: connectivity is 4"),
        ([ABOVE, {"keep": {}}], "step 2 of the recipe, keep: names no range; give at least one of z_um, y_um, x_um"),
        ([ABOVE, {"keep": {"z_um": [40, 50]}}], r"z_um is \[40, 50\], .* inside the volume, whose edge is 40 um"),
        ([ABOVE, {"ignore": {"y_um": [9, 3]}}], r"ignore: y_um is \[9, 3\], but must go from a smaller to a larger"),
        ([ABOVE, {"ignore": {"t_um": [0, 3]}}], "ignore: unknown key 't_um'; known: z_um, y_um, x_um"),
    ],
)
def test_says_which_step_is_wrong_and_what_to_do(steps, message):
    with pytest.raises(ConfigError, match=message):
        _check(*steps)
