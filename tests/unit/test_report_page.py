import numpy as np
import pandas as pd
import pytest

from voxloom import report_page


@pytest.mark.parametrize(
    ("written", "shown"),
    [
        ("/data/ada/scans/brain.nrrd", "…/brain.nrrd"),
        ("~/scans/brain.nrrd", "…/brain.nrrd"),
        ("C:\\scans\\brain.nrrd", "…/brain.nrrd"),
        ("['/data/a/x.tif', '/data/b/y.tif']", "['…/x.tif', '…/y.tif']"),
        ("results/volumes/brain.zarr", "results/volumes/brain.zarr"),
        ("CHB/MIT 40 m/s", "CHB/MIT 40 m/s"),
        ("https://example.org/data/x.nrrd", "https://example.org/data/x.nrrd"),
    ],
)
def test_absolute_paths_lose_their_folders_and_nothing_else_does(written, shown):
    assert report_page.without_folders(written) == shown


def test_text_from_files_cannot_become_markup():
    frame = pd.DataFrame({"<b>": ["<script>alert(1)</script>"], "n": [1]})
    shown = report_page.table(frame, caption="a < b")
    assert "<script>" not in shown
    assert "&lt;script&gt;" in shown
    assert "<b>" not in shown
    assert "a &lt; b" in shown


@pytest.mark.parametrize(
    ("value", "column", "shown"),
    [
        (0.91249, "f1", "0.912"),
        (0.00012, "prevalence", "0.00012"),
        (1234567, "voxels", "1\u202f234\u202f567"),
        (62.04, "time_s", "62.0"),
        (1234.6, "time_s", "1\u202f235"),
        (0.0123456, "learning_rate", "0.0123"),
        (np.nan, "f1", "–"),
        (None, "", "–"),
        (True, "", "yes"),
        ("axons", "", "axons"),
    ],
)
def test_numbers_have_sensible_digits(value, column, shown):
    assert report_page.number(value, column=column) == shown


def test_headings_say_units_in_brackets():
    assert report_page.heading_of("peak_memory_mib") == "peak memory [MiB]"
    assert report_page.heading_of("average_precision") == "average precision"


def test_a_sortable_tables_cells_carry_the_full_value():
    shown = report_page.table(pd.DataFrame({"f1": [0.123456789, np.nan]}), is_sortable=True)
    assert '<td class="num" data-value="0.123456789">0.123</td>' in shown
    assert '<td class="num" data-value="">–</td>' in shown


def test_whole_numbers_beside_fractions_stay_whole():
    shown = report_page.table(pd.DataFrame({"voxels": [2000], "f1": [0.5]}))
    assert 'data-value="2000">2\u202f000<' in shown


def test_a_configuration_keeps_its_order_and_loses_its_folders():
    shown = report_page.collapsible_yaml("config", {"b": 1, "a": {"path": "/data/ada/x.nrrd", "step": np.float64(0.5)}})
    assert "b: 1\na:\n  path: …/x.nrrd\n  step: 0.5\n" in shown
