"""The page's slice viewers: a slider over test slices, every model's output beside image and truth."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from voxloom import report_panels as panels
from voxloom import report_pictures as pictures
from voxloom.deferred import Deferred
from voxloom.drawing import scale_bar_um
from voxloom.report_page import data_uri, text
from voxloom.report_panels import Case, Ranges, Window
from voxloom.report_pictures import Picture

if TYPE_CHECKING:
    import pandas as pd
else:
    pd = Deferred("pandas")

OpenVolume = Callable[[Path], Any]


@dataclass(frozen=True)
class Output:
    """One model's prediction of one fold's test part.

    Parameters
    ----------
    task, model, fold : str
    predictions : mapping of str to Path
        Volume to its stored prediction.
    stored_threshold : int
        What is called foreground, on the stored scale.
    """

    task: str
    model: str
    fold: str
    predictions: Mapping[str, Path]
    stored_threshold: int


@dataclass
class Gallery:
    """Pictures that several viewers show, each embedded once, and what is needed to make them.

    Parameters
    ----------
    open_volume : function
        From a path to something with shape, ndim, spacing_um, quantisation and slicing.
    images : mapping of str to Path
        Volume to its stored image.
    panel_voxels : int
        Largest edge of a picture.
    viewer_mib : float
        What the pictures of one viewer may take in the page, roughly.
    """

    open_volume: OpenVolume
    images: Mapping[str, Path]
    panel_voxels: int = 512
    viewer_mib: float = 6.0
    _embedded: dict[str, str] = field(default_factory=dict)
    _grey_range: dict[str, tuple[float, float]] = field(default_factory=dict)

    def grey_range(self, volume: str) -> tuple[float, float]:
        """Grey values that become black and white: percentiles 0.5 and 99.5 of the middle of nine slices."""
        if volume not in self._grey_range:
            image = self.open_volume(self.images[volume])
            depth, height, width = image.shape[-3:]
            half = self.panel_voxels // 2
            window = tuple((max(0, size // 2 - half), min(size, size // 2 + half)) for size in (height, width))
            slices = np.unique(np.linspace(0, depth - 1, 11).round().astype(int)[1:-1])
            values = np.stack([panels.read_slice(image, z=int(z), window=window) for z in slices])  # type: ignore[arg-type]
            low, high = np.nanpercentile(values.astype(np.float32), (0.5, 99.5))
            self._grey_range[volume] = (float(low), float(high))
        return self._grey_range[volume]

    def picture(self, case: Case, *, output: Output, truth: Path, window: Window, heading: str) -> Picture:
        """Read one slice of image, prediction and truth."""
        image = self.open_volume(self.images[case.volume])
        prediction = self.open_volume(output.predictions[case.volume])
        stored = panels.read_slice(prediction, z=case.z, window=window)
        codes = panels.read_slice(self.open_volume(truth), z=case.z, window=window)
        low, high = self.grey_range(case.volume)
        return Picture(
            heading=heading,
            grey=pictures.grey_levels(panels.read_slice(image, z=case.z, window=window), low=low, high=high),
            probability=_probability(stored, prediction.quantisation),
            classes=pictures.overlay_classes(stored >= output.stored_threshold, codes),
            codes=codes,
            spacing_um=tuple(image.spacing_um[-2:]),
        )

    def embed(self, name: str, *, content: bytes, kind: str, size_um: tuple[float, float]) -> str:
        """Keep a picture under a name for `definitions`, and return the anchor to show it by."""
        anchor = "p-" + re.sub(r"[^A-Za-z0-9_-]", "_", name)
        if anchor not in self._embedded:
            rendering = "" if kind == "image/jpeg" else ' style="image-rendering:pixelated"'
            self._embedded[anchor] = (
                f'<image id="{anchor}" width="{size_um[1]:g}" height="{size_um[0]:g}" preserveAspectRatio="none"'
                f'{rendering} href="{data_uri(content, kind)}"/>'
            )
        return anchor

    @property
    def size_mib(self) -> float:
        """What the embedded pictures take in the page."""
        return sum(map(len, self._embedded.values())) / 2**20

    def definitions(self) -> str:
        """All embedded pictures as HTML that shows nothing by itself."""
        inside = "\n".join(self._embedded.values())
        return f'<svg class="pictures" aria-hidden="true"><defs>\n{inside}\n</defs></svg>' if inside else ""


def _probability(stored: np.ndarray, quantisation: Any) -> np.ndarray:
    if quantisation is not None:
        return np.asarray(quantisation.decode(stored), dtype=np.float32)
    if np.issubdtype(stored.dtype, np.integer):
        return stored.astype(np.float32) / np.float32(np.iinfo(stored.dtype).max)
    return stored.astype(np.float32)


def test_boxes(splits: pd.DataFrame, *, fold: str, volume: str) -> list[Ranges]:
    """The boxes of a volume that test in a fold, as half-open voxel ranges (Z, Y, X).

    Parameters
    ----------
    splits : DataFrame
        A task's split table.
    fold, volume : str

    Returns
    -------
    boxes : list of ((z_from, z_to), (y_from, y_to), (x_from, x_to))
    """
    rows = splits[(splits["fold"].astype(str) == fold) & (splits["volume"] == volume) & (splits["part"] == "test")]
    return [
        ((int(r.z_from), int(r.z_to)), (int(r.y_from), int(r.y_to)), (int(r.x_from), int(r.x_to)))
        for r in rows.itertuples()
    ]


def count_slices(
    outputs: Sequence[Output], *, truths: Mapping[str, Path], splits: pd.DataFrame, open_volume: OpenVolume
) -> dict[str, pd.DataFrame]:
    """Right and wrong voxels of every model's test slices.

    Parameters
    ----------
    outputs : sequence of Output
        All models and folds of a task.
    truths : mapping of str to Path
        Volume to its stored truth; volumes without one are left out.
    splits : DataFrame
        The task's split table.
    open_volume : function

    Returns
    -------
    counts : dict of str to DataFrame
        Per model: columns fold, volume, z, tp, fp, fn, tn.
    """
    parts: dict[str, list[pd.DataFrame]] = {}
    for output in outputs:
        for volume, path in output.predictions.items():
            boxes = test_boxes(splits, fold=output.fold, volume=volume)
            if boxes and volume in truths:
                counted = panels.slice_confusion(
                    open_volume(path),
                    open_volume(truths[volume]),
                    boxes=boxes,
                    stored_threshold=output.stored_threshold,
                )
                counted.insert(0, "fold", output.fold)
                counted.insert(1, "volume", volume)
                parts.setdefault(output.model, []).append(counted)
    return {model: pd.concat(tables, ignore_index=True) for model, tables in parts.items()}


def viewer(
    gallery: Gallery,
    *,
    name: str,
    against: str,
    outputs: Sequence[Output],
    counts: Mapping[str, pd.DataFrame],
    truths: Mapping[str, Path],
    splits: pd.DataFrame,
    limit: int,
) -> str:
    """A slider over slices and the panels of each.

    Parameters
    ----------
    gallery : Gallery
        Takes the pictures in.
    name : str
        The viewer's anchor.
    against : str
        The ground truth's name.
    outputs : sequence of Output
        Models in order, all folds.
    counts : mapping
        As `count_slices` returns it.
    truths : mapping of str to Path
    splits : DataFrame
    limit : int
        Largest number of slices; fewer where they would take more than the gallery's `viewer_mib`. Typical and worst
        slices are always there.

    Returns
    -------
    html : str
        Empty if no test slice is annotated.
    """
    cases = panels.choose_cases(counts, limit=1)
    if not cases:
        return ""
    before_mib = gallery.size_mib
    for case in cases:
        _frame(
            gallery, case, place=0, is_first=True, against=against, outputs=outputs, counts=counts, truths=truths,
            splits=splits,
        )  # fmt: skip
    each_mib = max((gallery.size_mib - before_mib) / len(cases), 1e-6)
    cases = panels.choose_cases(counts, limit=min(limit, int(gallery.viewer_mib / each_mib)))
    start = next((place for place, case in enumerate(cases) if any(t.startswith("typical") for t in case.tags)), 0)
    frames = [
        _frame(gallery, case, place=place, is_first=place == start, against=against, outputs=outputs, counts=counts,
               truths=truths, splits=splits)
        for place, case in enumerate(cases)
    ]  # fmt: skip
    buttons = "".join(_jumps(cases, kind) for kind in ("typical", "worst"))
    return (
        f'<div class="viewer" id="{text(name)}"><div class="controls">'
        f'<label for="{text(name)}-slider">Slice</label>'
        f'<input id="{text(name)}-slider" type="range" min="0" max="{len(cases) - 1}" step="1" value="{start}">'
        f"<output></output>{buttons}</div>\n" + "\n".join(frames) + f"\n{legend()}</div>"
    )


def _jumps(cases: Sequence[Case], kind: str) -> str:
    """Buttons to the slices that are typical or worst for a model."""
    buttons = "".join(
        f'<button type="button" data-show="{place}">{text(tag.removeprefix(f"{kind} for "))}</button>'
        for place, case in enumerate(cases)
        for tag in case.tags
        if tag.startswith(f"{kind} for ")
    )
    return f'<span class="jump">{kind}{buttons}</span>' if buttons else ""


def _frame(
    gallery: Gallery,
    case: Case,
    *,
    place: int,
    is_first: bool,
    against: str,
    outputs: Sequence[Output],
    counts: Mapping[str, pd.DataFrame],
    truths: Mapping[str, Path],
    splits: pd.DataFrame,
) -> str:
    truth = truths[case.volume]
    boxes = test_boxes(splits, fold=case.fold, volume=case.volume)
    window = panels.window_of(gallery.open_volume(truth), z=case.z, boxes=boxes, size_voxels=gallery.panel_voxels)
    shown = [o for o in outputs if o.fold == case.fold and case.volume in o.predictions]
    spot = f"{case.volume}-{case.z}-{window[0][0]}-{window[1][0]}-{window[0][1]}-{window[1][1]}"
    columns: list[str] = []
    rows: list[str] = []
    for output in shown:
        picture = gallery.picture(case, output=output, truth=truth, window=window, heading="")
        height, width = picture.grey.shape
        size_um = (height * picture.spacing_um[0], width * picture.spacing_um[1])

        def keep(label: str, content: bytes, *, kind: str = "image/png", size_um: tuple[float, float] = size_um) -> str:
            return gallery.embed(f"{spot}-{label}", content=content, kind=kind, size_um=size_um)

        who = f"{output.task}-{output.model}-{output.fold}"
        base = keep("image", pictures.encode_grey(picture.grey), kind="image/jpeg")
        probability = keep(f"{who}-probability", pictures.encode_probability(picture.probability))
        overlay = keep(f"{who}-{against}-overlay", pictures.encode_overlay(picture.classes))
        if not columns:
            reference = keep(f"{output.task}-{against}-truth", pictures.encode_truth(picture.codes))
            columns = [
                _panel([base], "image", size_um, with_scale=True),
                _panel([reference], f"truth <span>{text(against) if against != 'truth' else ''}</span>", size_um),
            ]
        rows.append(_panel([probability], f"{text(output.model)} <span>probability</span>", size_um))
        found = counts[output.model]
        found = found[(found["fold"] == case.fold) & (found["volume"] == case.volume) & (found["z"] == case.z)]
        rows.append(_panel([base, overlay], f"{text(output.model)} <span>overlay{_slice_f1(found)}</span>", size_um))
    if len(shown) == 1:
        cells, across = [columns[0], *rows, columns[1]], 4
    else:  # image above truth on the left, one model a row on the right
        cells, across = [], 3
        for index in range(len(shown)):
            cells.append(columns[index] if index < 2 else '<div class="panel"></div>')
            cells += rows[2 * index : 2 * index + 2]
    spacing_z_um = float(gallery.open_volume(gallery.images[case.volume]).spacing_um[0])
    where = f"{text(case.volume)}, slice {case.z} (z = {case.z * spacing_z_um:.1f} µm)"
    folds = {output.fold for output in outputs}
    where += f", fold {text(case.fold)}" if len(folds) > 1 else ""
    tags = f" · <strong>{text(', '.join(case.tags))}</strong>" if case.tags else ""
    return (
        f'<div class="frame{" case" if case.tags else ""}" data-place="{place}" data-name="z {case.z}"'
        f"{'' if is_first else ' hidden'}><p>{where}{tags}</p>"
        f'<div class="panels" style="grid-template-columns:repeat({across},minmax(0,1fr))">{"".join(cells)}</div></div>'
    )


def _slice_f1(counts: pd.DataFrame) -> str:
    f1 = panels.f1_of(counts)
    return "" if f1.empty or f1.isna().all() else f", F1 of this slice {f1.iloc[0]:.3f}"


def _panel(anchors: Sequence[str], caption: str, size_um: tuple[float, float], *, with_scale: bool = False) -> str:
    """Pictures on top of each other; `caption` is HTML."""
    height, width = size_um
    inside = "".join(f'<use href="#{anchor}"/>' for anchor in anchors)
    if with_scale:
        length = scale_bar_um(width)
        bar, left, bottom = 0.018 * width, 0.04 * width, height - 0.05 * width
        inside += (
            f'<g fill="#fff" stroke="#000" stroke-width="{0.012 * width:g}" stroke-opacity="0.45"'
            ' paint-order="stroke" text-anchor="middle"'
            f' font-family="sans-serif" font-size="{0.055 * width:g}">'
            f'<rect x="{left:g}" y="{bottom - bar:g}" width="{length:g}" height="{bar:g}"/>'
            f'<text x="{left + length / 2:g}" y="{bottom - 2 * bar:g}">{length:g} µm</text></g>'
        )
    return (
        f'<figure class="panel"><figcaption>{caption}</figcaption>'
        f'<svg viewBox="0 0 {width:g} {height:g}" role="button" tabindex="0" aria-label="Enlarge this picture">'
        f"{inside}</svg></figure>"
    )


def legend() -> str:
    """What the colours of the panels mean."""
    said = {
        "true positive": "found (true positive)",
        "false positive": "extra (false positive)",
        "false negative": "missed (false negative)",
    }
    items = [
        f'<li><i style="background:rgb({r},{g},{b})"></i>{said[name]}</li>'
        for name, (r, g, b, _) in pictures.OVERLAY.items()
        if name in said
    ]
    colours = pictures.probability_colours(9)
    stops = ",".join(f"rgb({r},{g},{b})" for r, g, b in colours)
    items.append('<li><i style="background:#7d7d7d"></i>not annotated (darker in the overlay)</li>')
    items.append(f'<li>probability 0 <i class="scale" style="background:linear-gradient(90deg,{stops})"></i>1</li>')
    return f'<ul class="legend">{"".join(items)}</ul>'
