import base64
import dataclasses
import json
import re
import shutil
import subprocess
from html.parser import HTMLParser
from io import BytesIO
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from unit.report_tables import make_run, tubes

from voxloom import io
from voxloom.errors import ConfigError
from voxloom.figures import new_figure, save_figure
from voxloom.report import Volume, build_report
from voxloom.volume import Geometry

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")


class Cells(HTMLParser):
    """Rows of text of every table."""

    def __init__(self):
        super().__init__()
        self.tables, self.cell = [], None

    def handle_starttag(self, tag, attrs):
        if tag == "table":
            self.tables.append([])
        elif tag == "tr":
            self.tables[-1].append([])
        elif tag in ("td", "th"):
            self.cell = []

    def handle_endtag(self, tag):
        if tag in ("td", "th") and self.cell is not None:
            self.tables[-1][-1].append("".join(self.cell).strip())
            self.cell = None

    def handle_data(self, data):
        if self.cell is not None:
            self.cell.append(data)


def tables_of(page):
    parser = Cells()
    parser.feed(page)
    return parser.tables


def section(page, name):
    return re.search(rf'<section id="{name}".*?</section>', page, re.DOTALL)[0]


@pytest.fixture(scope="module")
def built(tmp_path_factory):
    folder = tmp_path_factory.mktemp("run")
    inputs, open_volume = make_run(folder)
    path = build_report(inputs, out_directory=folder / "report", open_volume=open_volume)
    return inputs, path, path.read_text(encoding="utf-8")


@pytest.fixture(scope="module")
def of_two_folds(tmp_path_factory):
    """A page with what the first run lacks: folds, an annotation's figure, augmented patches, overlapping tiles."""
    folder = tmp_path_factory.mktemp("folds")
    inputs, open_volume = make_run(folder, folds=2, models=("best",))
    save_figure(new_figure(1.0, 1.0), folder / "phantom_a")
    save_figure(new_figure(1.0, 1.0), inputs.runs[-1].directory / "augmented_patches")
    for run in inputs.runs:
        [facts] = open_volume(run.predictions["phantom_a"]).metadata["prediction"]
        facts |= {"halo_voxels": None, "sees_voxels": [0, 54, 54], "largest_difference": None}
        facts["averaged_tile_voxels"] = [1, 480, 480]
    task = dataclasses.replace(inputs.tasks[0], annotation_figures={"phantom_a": folder / "phantom_a.png"})
    inputs = dataclasses.replace(inputs, tasks=[task])
    path = build_report(inputs, out_directory=folder / "report", open_volume=open_volume)
    return inputs, path, path.read_text(encoding="utf-8")


def test_the_page_loads_nothing_from_outside_itself(built):
    _, _, page = built
    addresses = re.findall(r'(?:src|href|action|data|poster)\s*=\s*"([^"]*)"', page) + re.findall(
        r"url\(([^)]*)\)", page
    )
    assert addresses
    assert [address for address in addresses if not address.startswith(("#", "data:"))] == []
    assert re.findall(r"https?://|@import|<link rel=\"?stylesheet|<script src|fetch\(|XMLHttpRequest", page) == []


def test_a_run_without_the_challenges_measures_has_no_section_about_membranes(built):
    assert 'id="membranes"' not in built[2]
    assert 'href="#membranes"' not in built[2]


def test_every_figure_is_there_as_svg_and_png(built):
    _, path, page = built
    figures = path.parent / "figures"
    stems = {file.stem for file in figures.glob("*.svg")}
    assert stems == {file.stem for file in figures.glob("*.png")}
    kinds = ("headline", "precision_recall", "training", "split", "reliability", "panels", "costs", "workflow")
    assert all(any(stem.startswith(kind) for stem in stems) for kind in kinds)
    assert all(f"figures/{stem}.svg" in page for stem in stems)
    assert not list(figures.glob(".*"))


def test_text_in_a_figure_is_text(built):
    _, path, _ = built
    svg = (path.parent / "figures" / "precision_recall_axons.svg").read_text(encoding="utf-8")
    assert re.search(r"<text[^>]*>axons against truth \(synthetic\)</text>", svg)
    assert "recipe" in svg


def test_scores_on_a_phantom_are_called_synthetic_in_headline_tables_and_every_score_figure(built):
    _, path, page = built
    for name in ("headline", "curves", "panels", "training", "reliability", "tables"):
        assert "synthetic" in section(page, name), name
    scores = next(table for table in tables_of(section(page, "tables")) if "data" in table[0][1])
    assert {row[1] for row in scores[1:]} == {"synthetic"}
    assert all("synthetic" in row[0] for row in tables_of(section(page, "headline"))[0][1:])
    for file in (path.parent / "figures").glob("*.svg"):
        if file.stem.split("_")[0] in ("headline", "precision", "panels", "training", "reliability"):
            assert "synthetic" in file.read_text(encoding="utf-8"), file.name


def test_scores_on_a_real_volume_are_not_called_synthetic(tmp_path):
    inputs, open_volume = make_run(tmp_path, is_synthetic=False, models=("best",))
    page = build_report(inputs, out_directory=tmp_path / "report", open_volume=open_volume).read_text(encoding="utf-8")
    assert "synthetic" not in re.sub(r"<style>.*?</style>", "", page, flags=re.DOTALL)


def test_headline_numbers_equal_the_tables(built):
    inputs, _, page = built
    table = tables_of(section(page, "headline"))[0]
    names = table[0]
    for run in inputs.runs:
        scores = pd.read_csv(run.evaluation / "scores.csv")
        for against in ("annotation", "truth"):
            one = scores[(scores.scope == "pooled") & (scores.part == "test") & (scores.against == against)].iloc[0]
            row = next(row for row in table[1:] if row[0].startswith(against) and row[1] == run.model)
            shown = dict(zip(names, row, strict=True))
            ap = f"{one.average_precision:.3f} [{one.average_precision_low:.3f}, {one.average_precision_high:.3f}]"
            assert shown["AP"] == ap
            assert shown["F1"] == f"{one.f1:.3f} [{one.f1_low:.3f}, {one.f1_high:.3f}]"
            assert shown["accuracy"] == f"{one.accuracy:.3f}"
            assert shown["accuracy of all background"] == f"{one.all_background_accuracy:.3f}"
            assert shown["prevalence"] == f"{one.prevalence:.3f}"
    recipe = pd.read_csv(inputs.runs[0].evaluation / "recipe.csv")
    mask = recipe[(recipe.part == "test") & (recipe.scope == "pooled")].iloc[0]
    row = next(row for row in table[1:] if row[1] == "recipe's own mask")
    assert dict(zip(names, row, strict=True))["F1"] == f"{mask.f1:.3f}"


def test_the_downloaded_table_is_the_table_in_full(built):
    inputs, _, page = built
    content = re.search(r'download="scores.csv" href="data:text/csv;charset=utf-8;base64,([^"]*)"', page)[1]
    table = pd.read_csv(BytesIO(base64.b64decode(content)))
    scores = pd.concat([pd.read_csv(run.evaluation / "scores.csv") for run in inputs.runs])
    assert len(table) == len(scores)
    np.testing.assert_array_equal(table["f1"].to_numpy(), scores["f1"].to_numpy())


def test_nothing_from_the_inputs_becomes_markup_or_tells_the_authors_folders(built):
    inputs, path, page = built
    assert "<h1>Phantom &lt;demo&gt; &amp; friends</h1>" in page
    assert "/home/" not in page
    assert str(path.parents[1]) not in page
    assert str(inputs.tasks[0].splits.parent) not in page
    assert "…/phantom_a.nrrd" in page


def test_provenance_has_checksums_versions_and_costs(built):
    _, _, page = built
    said = section(page, "provenance")
    assert "ab" * 32 in said
    assert "<dt>numpy</dt><dd>2.4.6</dd>" in said
    assert "0123abc" in said
    assert ["train", "1", "62", "–", "62", "6\u202f200", "–"] in [
        table_row for table in tables_of(said) for table_row in table
    ]


def test_only_predictions_with_a_narrowed_halo_are_listed_with_what_it_changed(built):
    _, _, page = built
    [table] = [each for each in tables_of(section(page, "provenance")) if "halo (z, y, x)" in each[0]]
    assert {row[1] for row in table[1:]} == {"best"}
    assert table[1][-3:] == ["8 × 8 × 8", "22 × 22 × 22", "0.0012"]


def test_each_viewer_has_a_frame_for_every_models_typical_and_worst_slice(built):
    _, _, page = built
    viewer = re.search(r'<div class="viewer" id="panels-axons-truth">.*?</ul></div>', page, re.DOTALL)[0]
    frames = re.findall(r'<div class="frame[^"]*" data-place="\d+" data-name="z (\d+)"( hidden)?>', viewer)
    assert {int(z) for z, _ in frames} <= set(range(18, 24))
    assert [hidden for _, hidden in frames].count("") == 1
    for model in ("as_published", "best"):
        for kind in ("typical", "worst"):
            assert f"{kind} for {model}" in viewer
    assert "typical" in re.search(r'<div class="frame[^"]*"[^>]*data-name="z \d+">.*?</p>', viewer, re.DOTALL)[0]
    used = set(re.findall(r'<use href="#([^"]+)"', viewer))
    assert used <= set(re.findall(r'<image id="([^"]+)"', page))


def test_each_embedded_picture_is_there_once(built):
    _, _, page = built
    ids = re.findall(r'\sid="([^"]+)"', page)
    assert len(ids) == len(set(ids))


def test_the_same_inputs_give_the_same_bytes_be_they_arrays_or_stores_on_disk(built, tmp_path):
    inputs, path, _ = built
    folder = inputs.tasks[0].splits.parents[1]
    _, open_volume = make_run(folder)
    for place, stored in open_volume.__self__.items():
        place.parent.mkdir(parents=True, exist_ok=True)
        kind = "probability" if stored.quantisation else "image"
        described = {"geometry": Geometry(spacing_um=stored.spacing_um), "kind": kind, "metadata": stored.metadata}
        with io.create_volume(
            place, shape=stored.shape, dtype=stored.dtype, quantisation=stored.quantisation, **described
        ) as writer:
            writer[:, :, :] = stored.values
    again = build_report(inputs, out_directory=tmp_path, open_volume=io.open_volume)
    assert again.read_bytes() == path.read_bytes()
    for file in sorted((path.parent / "figures").iterdir()):
        assert (tmp_path / "figures" / file.name).read_bytes() == file.read_bytes(), file.name


def test_pictures_stop_at_the_given_size(tmp_path):
    inputs, open_volume = make_run(tmp_path / "run", models=("best",))
    page = build_report(inputs, out_directory=tmp_path, open_volume=open_volume, pictures_mib=0.0).read_text("utf-8")
    frames = re.findall(r'<div class="frame([^"]*)"', page)
    assert frames
    assert set(frames) == {" case"}  # only typical and worst slices


def test_means_over_overlapping_tiles_are_listed(of_two_folds):
    _, _, page = of_two_folds
    assert "tiles without a halo, of (z, y, x) voxels: axons, best, fold 0, phantom_a: 1 × 480 × 480" in page
    assert "Tiles were predicted with a narrower halo" not in page


def test_several_folds_are_said_to_be_means(of_two_folds):
    _, _, page = of_two_folds
    assert "mean over folds" in section(page, "headline")
    assert "fold 1" in section(page, "panels")


def test_the_annotations_figure_is_kept_beside_the_page(of_two_folds):
    inputs, path, page = of_two_folds
    source = inputs.tasks[0].annotation_figures["phantom_a"]
    for file in (source, source.with_suffix(".svg")):
        copied = path.parent / "figures" / f"annotation_axons_phantom_a{file.suffix}"
        assert copied.read_bytes() == file.read_bytes()
    assert base64.b64encode(source.read_bytes()).decode() in section(page, "annotation")


def test_augmented_patches_are_shown_beside_the_training_curves(of_two_folds):
    inputs, path, page = of_two_folds
    source = inputs.runs[-1].directory / "augmented_patches.png"
    for file in (source, source.with_suffix(".svg")):
        copied = path.parent / "figures" / f"augmented_patches_axons_best{file.suffix}"
        assert copied.read_bytes() == file.read_bytes()
    shown = section(page, "training")
    assert base64.b64encode(source.read_bytes()).decode() in shown
    assert shown.count("Augmented patches of") == 1


def test_a_test_part_without_foreground_is_a_sentence(tmp_path):
    empty = np.zeros_like(tubes())
    inputs, open_volume = make_run(tmp_path, truth=empty, annotation=empty.copy(), is_validated=False)
    page = build_report(inputs, out_directory=tmp_path / "report", open_volume=open_volume).read_text(encoding="utf-8")
    assert "there is no foreground in the test part" in section(page, "headline")
    assert "No threshold could be chosen" in section(page, "panels")
    assert "No foreground to validate" in section(page, "training")


def test_a_truth_that_covers_no_test_slice_is_a_sentence(tmp_path):
    nothing = np.full_like(tubes(), 255)
    nothing[:16] = 0
    inputs, open_volume = make_run(tmp_path, models=("best",))
    path = inputs.tasks[0].truths["truth"]["phantom_a"]
    stores = {path: dataclasses.replace(open_volume(path), values=nothing)}
    page = build_report(
        inputs, out_directory=tmp_path / "report", open_volume=lambda p: stores.get(p) or open_volume(p)
    ).read_text(encoding="utf-8")
    assert "No test slice is annotated by truth." in section(page, "panels")


def test_what_is_missing_is_said_in_its_place(tmp_path):
    inputs, open_volume = make_run(tmp_path, models=("best",))
    for run in inputs.runs:
        shutil.rmtree(run.evaluation)
        shutil.rmtree(run.directory)
    task = dataclasses.replace(inputs.tasks[0], truths={}, audit=None)
    bare = dataclasses.replace(
        inputs, tasks=[task], configuration={}, provenance={}, benchmarks=None, rulegraph="", introduction=""
    )
    page = build_report(bare, out_directory=tmp_path / "report", open_volume=open_volume).read_text(encoding="utf-8")
    for name, sentence in {
        "headline": "No model was scored on a test part",
        "curves": "There is no curve",
        "panels": "There is no ground truth to show",
        "training": "There is no training log",
        "annotation": "No figure of this task's annotation was made",
        "split": "The split was not audited",
        "reliability": "No test voxel was scored",
        "tables": "There are no rows",
        "provenance": "benchmarks of this run are not there",
        "graph": "graph was not drawn",
    }.items():
        assert sentence in section(page, name), name


def test_a_caption_is_said_under_its_heading_and_an_unknown_one_is_refused(built, tmp_path):
    inputs, _, page = built
    _, open_volume = make_run(inputs.tasks[0].splits.parents[1])
    bare = dataclasses.replace(inputs, runs=[], captions={"curves": "Look <here>."})
    other = build_report(bare, out_directory=tmp_path, open_volume=open_volume).read_text(encoding="utf-8")
    assert "<p>Look &lt;here&gt;.</p>" in section(other, "curves")
    assert "Precision against recall at every threshold." in section(page, "curves")
    with pytest.raises(
        ConfigError, match="no section curve of the report to caption; known: what, headline, membranes, curves"
    ):
        build_report(
            dataclasses.replace(inputs, captions={"curve": ""}), out_directory=tmp_path, open_volume=open_volume
        )


def test_a_split_of_an_unknown_volume_is_refused(tmp_path):
    inputs, open_volume = make_run(tmp_path, models=("best",))
    inputs = dataclasses.replace(inputs, volumes=[Volume("other", Path("other.zarr"))])
    with pytest.raises(ConfigError, match=r"split of task axons names volumes .*\['phantom_a'\]"):
        build_report(inputs, out_directory=tmp_path / "report", open_volume=open_volume)


def test_a_model_of_an_unknown_task_is_refused(tmp_path):
    inputs, open_volume = make_run(tmp_path, models=("best",))
    runs = [dataclasses.replace(inputs.runs[0], task="cells")]
    with pytest.raises(ConfigError, match=r"model best is of task cells, but the report was given \['axons'\]"):
        build_report(dataclasses.replace(inputs, runs=runs), out_directory=tmp_path, open_volume=open_volume)


@pytest.mark.skipif(CHROMIUM is None, reason="needs a Chromium browser to run the page's script")
def test_in_a_browser_the_slider_shows_one_slice_at_a_time(built, tmp_path):
    _, path, _ = built
    flags = ["--headless", "--no-sandbox", "--disable-gpu", "--no-first-run", "--disable-background-networking"]
    flags += ["--disable-component-update", "--disable-sync", f"--user-data-dir={tmp_path}", "--dump-dom"]
    flags += ["--virtual-time-budget=3000"]
    address = f"{path.as_uri()}#panels-axons-truth:1"
    dom = subprocess.run([CHROMIUM, *flags, address], capture_output=True, text=True, timeout=120, check=True).stdout
    viewer = re.search(r'<div class="viewer" id="panels-axons-truth">.*?</ul></div>', dom, re.DOTALL)[0]
    frames = re.findall(r'<div class="frame[^>]*>', viewer)
    assert [place for place, frame in enumerate(frames) if "hidden" not in frame] == [1]
    shown = re.search(r'data-name="(z \d+)"', frames[1])[1]
    assert re.search(r"<output>(.*?)</output>", viewer)[1] == shown
    assert f'aria-valuetext="{shown}"' in viewer


def test_thresholds_come_from_the_validation_part(built):
    inputs, _, page = built
    chosen = json.loads((inputs.runs[0].evaluation / "threshold.json").read_text(encoding="utf-8"))
    row = tables_of(section(page, "headline"))[0][1]
    assert row[-1] == f"{chosen['threshold']:.3f}"
