"""Stores of a workflow's results, opened by the names that their paths carry."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

from voxloom.io.checksums import tree_sha256
from voxloom.io.store import StoredVolume, open_volume


def open_volumes(paths: Iterable[str | Path]) -> dict[str, StoredVolume]:
    """Open one store a volume.

    Parameters
    ----------
    paths : iterable of str or Path
        ``.../{volume}.zarr``.

    Returns
    -------
    volumes : dict of str to StoredVolume
        By volume name, in the order given.
    """
    return {Path(path).stem: open_volume(path) for path in paths}


def open_annotations(paths: Iterable[str | Path]) -> dict[str, dict[str, StoredVolume]]:
    """Open the annotations of one task.

    Parameters
    ----------
    paths : iterable of str or Path
        ``annotations/{task}/{volume}.zarr``, or ``annotations.{annotator}/{task}/{volume}.zarr``.

    Returns
    -------
    annotations : dict of str to dict of str to StoredVolume
        By annotator ("annotation" is the recipe, or what replaces it), then by volume; in the order given.
    """
    found: dict[str, dict[str, StoredVolume]] = {}
    for path in map(Path, paths):
        found.setdefault(_annotator(path), {})[path.stem] = open_volume(path)
    return found


def is_of(path: Path, annotator: str, task: str) -> bool:
    """Whether an annotation's path is that of an annotator and a task.

    Parameters
    ----------
    path : Path
        See `open_annotations`.
    annotator, task : str

    Returns
    -------
    is_of : bool
    """
    return _annotator(path) == annotator and path.parts[-2] == task


def _annotator(path: Path) -> str:
    return path.parts[-3].removeprefix("annotations").removeprefix(".") or "annotation"


def fingerprints(paths: Iterable[str | Path]) -> dict[str, str]:
    """Checksums of stores' contents, whenever and wherever they were written.

    Parameters
    ----------
    paths : iterable of str or Path
        Folders.

    Returns
    -------
    digests : dict of str to str
        By path as given; see `voxloom.io.checksums.tree_sha256`.
    """
    return {str(path): tree_sha256(path) for path in paths}


def is_synthetic(volume: StoredVolume) -> bool:
    """Whether a volume is a phantom: its header says so, wherever it was converted."""
    header = volume.metadata.get("header", {})
    return "synthetic" in header.get("key_values", {})
