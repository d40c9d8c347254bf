"""A volume, its annotations and the boxes of one part of a split: what may be read, and which labels may be seen."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from voxloom.blocks import Readable
from voxloom.errors import SplitError, VolumeError
from voxloom.volume import IGNORE

Shape = tuple[int, int, int]


@dataclass(frozen=True)
class TrainingVolume:
    """What can be learnt from one volume.

    Parameters
    ----------
    image : array-like, shape (Z, Y, X)
        Grey values; an array or a stored volume.
    annotations : tuple of (array-like of uint8, shape (Z, Y, X)) or None
        In the order of learn_from: codes 0 background, 1 foreground, 255 not annotated; the first wins wherever it is
        annotated. None stands for an annotation that this volume doesn't have.
    spacing_um : tuple of float
        Voxel edge lengths (Z, Y, X).
    """

    image: Readable
    annotations: tuple[Readable | None, ...]
    spacing_um: tuple[float, float, float]


def training_volumes(
    images: Mapping[str, Any], annotations: Mapping[str, Mapping[str, Readable]], learn_from: Sequence[str]
) -> dict[str, TrainingVolume]:
    """What a model learns from.

    Parameters
    ----------
    images : mapping of str to StoredVolume
        By volume.
    annotations : mapping of str to mapping of str to array-like of uint8
        By annotator, then by volume.
    learn_from : sequence of str
        Annotators, the winning ones first.

    Returns
    -------
    volumes : dict of str to TrainingVolume
        Every image, annotated or not.
    """
    return {
        name: TrainingVolume(
            image=image,
            annotations=tuple(annotations.get(who, {}).get(name) for who in learn_from),
            spacing_um=image.spacing_um,
        )
        for name, image in images.items()
    }


@dataclass(frozen=True)
class PartBox:
    """One row of a split's table: a box of a volume that trains, validates or tests.

    Parameters
    ----------
    volume : str
    part : str
        train, validation, test, gap or excluded.
    start, stop : tuple of int
        Half-open range of voxels along (Z, Y, X).
    """

    volume: str
    part: str
    start: Shape
    stop: Shape

    @property
    def shape(self) -> Shape:
        """Edge lengths (Z, Y, X)."""
        z, y, x = (stop - start for start, stop in zip(self.start, self.stop, strict=True))
        return z, y, x


def boxes_of_fold(rows: Iterable[Mapping[str, Any]], *, fold: int) -> list[PartBox]:
    """The boxes of one fold.

    Parameters
    ----------
    rows : iterable of mapping
        Rows of splits/{task}.csv: fold, volume, part, z_from, z_to, y_from, ...; numbers may be text.
    fold : int

    Returns
    -------
    boxes : list of PartBox

    Raises
    ------
    SplitError
        If the table has no such fold.
    """
    boxes = []
    folds = set()
    for row in rows:
        folds.add(int(row["fold"]))
        if int(row["fold"]) == fold:
            z, y, x = (int(row[f"{axis}_from"]) for axis in "zyx")
            z_to, y_to, x_to = (int(row[f"{axis}_to"]) for axis in "zyx")
            boxes.append(PartBox(str(row["volume"]), str(row["part"]), (z, y, x), (z_to, y_to, x_to)))
    if not boxes:
        raise SplitError(f"the split has no fold {fold}, only {', '.join(map(str, sorted(folds))) or 'an empty table'}")
    return boxes


def read_reflected(image: Readable, start: Sequence[int], shape: Sequence[int]) -> NDArray[Any]:
    """Read a box that may reach outside the volume, which is mirrored at its border voxels' centres there.

    Parameters
    ----------
    image : array-like, shape (Z, Y, X)
    start, shape : sequence of int
        First voxel, possibly negative, and edge lengths (Z, Y, X) of the box.

    Returns
    -------
    box : ndarray of that shape
        Equal to NumPy's padding "reflect", as often as it takes.

    Examples
    --------
    >>> read_reflected(np.arange(4).reshape(1, 1, 4), (0, 0, -2), (1, 1, 8)).tolist()
    [[[2, 1, 0, 1, 2, 3, 2, 1]]]
    """
    places = [reflected(first, length, size) for first, length, size in zip(start, shape, image.shape, strict=True)]
    lows = [int(place.min()) for place in places]
    box = image[tuple(slice(low, int(place.max()) + 1) for low, place in zip(lows, places, strict=True))]
    for axis, (low, place) in enumerate(zip(lows, places, strict=True)):
        if len(place) != box.shape[axis] or not np.array_equal(place, np.arange(low, low + len(place))):
            box = np.take(box, place - low, axis=axis)
    return box


def reflected(start: int, length: int, size: int) -> NDArray[np.intp]:
    """Indices start, start + 1, ... mirrored into 0 ... size - 1.

    Parameters
    ----------
    start, length, size : int

    Returns
    -------
    indices : ndarray of int
    """
    if size == 1:
        return np.zeros(length, dtype=np.intp)
    period = 2 * (size - 1)
    place = np.arange(start, start + length) % period
    return np.minimum(place, period - place)


@dataclass(frozen=True)
class Window:
    """A part of a volume that is held in memory and read with the volume's own coordinates.

    Parameters
    ----------
    values : ndarray, shape (Z, Y, X)
    start : tuple of int
        Where its first voxel is.
    shape : tuple of int
        Of the whole volume.
    """

    values: NDArray[Any]
    start: Shape
    shape: Shape

    def __getitem__(self, index: tuple[slice, ...]) -> NDArray[Any]:
        assert all(part.start >= low for part, low in zip(index, self.start, strict=True)), "read outside the window"
        return self.values[
            tuple(slice(part.start - low, part.stop - low) for part, low in zip(index, self.start, strict=True))
        ]


@dataclass
class LabelledVolume:
    """Reads the image anywhere, and labels inside the boxes of one part of the split only.

    Parameters
    ----------
    name : str
    volume : TrainingVolume
    boxes : list of PartBox
        Outside them every label reads as not annotated, so that none can leak from another part.
    """

    name: str
    volume: TrainingVolume
    boxes: list[PartBox]
    _codes: Window | None = field(default=None, init=False)
    _first: Window | None = field(default=None, init=False)
    _image: Window | None = field(default=None, init=False)

    def __post_init__(self) -> None:
        shapes = {"image": self.volume.image.shape}
        shapes |= {f"annotation {k + 1}": a.shape for k, a in enumerate(self.volume.annotations) if a is not None}
        if len(set(shapes.values())) != 1 or len(self.volume.image.shape) != 3:
            raise VolumeError(
                f"volume {self.name}: image and annotations must have one (Z, Y, X) shape, got "
                + ", ".join(f"{name} {shape}" for name, shape in shapes.items())
            )
        for box in self.boxes:
            if any(stop > size for stop, size in zip(box.stop, self.shape, strict=True)):
                raise SplitError(
                    f"volume {self.name}: a {box.part} box ends at {box.stop}, the volume at {self.shape}; "
                    "the split was made for other data: make it anew"
                )

    @property
    def shape(self) -> Shape:
        """Of the volume, (Z, Y, X)."""
        z, y, x = self.volume.image.shape
        return z, y, x

    @property
    def dtype(self) -> np.dtype:
        """Of the image."""
        return self.volume.image[0:1, 0:1, 0:1].dtype

    def image(self, start: Sequence[int], shape: Sequence[int]) -> NDArray[Any]:
        """Grey values of a box, mirrored outside the volume.

        Parameters
        ----------
        start, shape : sequence of int
            (Z, Y, X).

        Returns
        -------
        values : ndarray
            Of the stored type.
        """
        return read_reflected(self._image or self.volume.image, start, shape)

    def codes(self, start: Sequence[int], shape: Sequence[int], *, first_only: bool = False) -> NDArray[np.uint8]:
        """Labels of a box; not annotated outside this part's boxes and outside the volume.

        Parameters
        ----------
        start, shape : sequence of int
            (Z, Y, X).
        first_only : bool
            Labels of the first annotation alone.

        Returns
        -------
        codes : ndarray of uint8
            0 background, 1 foreground, 255 not annotated.
        """
        held = self._first if first_only else self._codes
        result = np.full(tuple(shape), IGNORE, dtype=np.uint8)
        for box in self.boxes:
            low = [max(a, b) for a, b in zip(start, box.start, strict=True)]
            high = [min(a + n, b) for a, n, b in zip(start, shape, box.stop, strict=True)]
            if all(a < b for a, b in zip(low, high, strict=True)):
                inside = tuple(slice(a, b) for a, b in zip(low, high, strict=True))
                to = tuple(slice(a - s, b - s) for a, b, s in zip(low, high, start, strict=True))
                result[to] = held[inside] if held is not None else self._joined(inside, first_only=first_only)
        return result

    def _joined(self, inside: tuple[slice, ...], *, first_only: bool) -> NDArray[np.uint8]:
        """The annotations of a box as one: each fills only where those before it say nothing."""
        if len(self.volume.annotations) == 1 and (only := self.volume.annotations[0]) is not None:
            return np.asarray(only[inside], dtype=np.uint8)
        joined = np.full([part.stop - part.start for part in inside], IGNORE, dtype=np.uint8)
        for annotation in self.volume.annotations[:1] if first_only else self.volume.annotations:
            unknown = joined == IGNORE
            if annotation is not None and unknown.any():
                joined[unknown] = annotation[inside][unknown]
        return joined

    def window(self, margin: Sequence[int]) -> tuple[Shape, Shape]:
        """Start and stop of the smallest box that holds this part's boxes and `margin` voxels around them.

        Parameters
        ----------
        margin : sequence of int
            (Z, Y, X).

        Returns
        -------
        start, stop : tuple of int
        """
        low = np.maximum(np.min([box.start for box in self.boxes], axis=0) - margin, 0)
        high = np.minimum(np.max([box.stop for box in self.boxes], axis=0) + margin, self.shape)
        return (int(low[0]), int(low[1]), int(low[2])), (int(high[0]), int(high[1]), int(high[2]))

    def bytes_held(self, margin: Sequence[int]) -> int:
        """Memory that `hold` would take.

        Parameters
        ----------
        margin : sequence of int

        Returns
        -------
        size : int
        """
        start, stop = self.window(margin)
        voxels = int(np.prod(np.subtract(stop, start)))
        return voxels * (self.dtype.itemsize + (1 if len(self.volume.annotations) == 1 else 2))

    def hold(self, margin: Sequence[int]) -> None:
        """Read this part's boxes and `margin` voxels around them into memory; nothing outside is read from then on.

        Parameters
        ----------
        margin : sequence of int
            (Z, Y, X).
        """
        start, stop = self.window(margin)
        self._image = self._held(self.volume.image, start, stop)
        codes, firsts = _Joined(self, first_only=False), _Joined(self, first_only=True)
        self._codes = self._held(codes, start, stop)
        self._first = self._codes if len(self.volume.annotations) == 1 else self._held(firsts, start, stop)

    def _held(self, source: Readable, start: Shape, stop: Shape) -> Window:
        dtype = self.dtype if source is self.volume.image else np.dtype(np.uint8)
        values = np.empty(tuple(np.subtract(stop, start)), dtype=dtype)
        for z in range(start[0], stop[0], 64):  # a store's chunks are 64 deep
            end = min(z + 64, stop[0])
            values[z - start[0] : end - start[0]] = source[z:end, start[1] : stop[1], start[2] : stop[2]]
        return Window(values, start, self.shape)


@dataclass(frozen=True)
class _Joined:
    """The joined annotations of a volume, as something that is read by slicing."""

    labelled: LabelledVolume
    first_only: bool

    @property
    def shape(self) -> tuple[int, ...]:
        return self.labelled.shape

    def __getitem__(self, index: tuple[slice, ...]) -> NDArray[np.uint8]:
        return self.labelled._joined(index, first_only=self.first_only)


def labelled_volumes(
    volumes: Mapping[str, TrainingVolume], boxes: Iterable[PartBox], *, part: str
) -> list[LabelledVolume]:
    """The volumes that have boxes of a part, in the order of their names.

    Parameters
    ----------
    volumes : mapping of str to TrainingVolume
    boxes : iterable of PartBox
        Of one fold.
    part : {"train", "validation", "test"}

    Returns
    -------
    labelled : list of LabelledVolume

    Raises
    ------
    SplitError
        If a box names a volume that isn't there.
    """
    chosen: dict[str, list[PartBox]] = {}
    for box in boxes:
        if box.part == part:
            if box.volume not in volumes:
                raise SplitError(
                    f"the split names volume {box.volume!r}, but only {', '.join(sorted(volumes)) or 'none'} were "
                    "given; make the split anew"
                )
            chosen.setdefault(box.volume, []).append(box)
    return [LabelledVolume(name, volumes[name], chosen[name]) for name in sorted(chosen)]


def holds_slices(volumes: Sequence[LabelledVolume], patch: Sequence[int]) -> bool:
    """Whether a patch is at least as high and wide as every slice.

    Parameters
    ----------
    volumes : sequence of LabelledVolume
    patch : sequence of int
        (Z, Y, X).

    Returns
    -------
    holds : bool
    """
    return all(size <= edge for volume in volumes for size, edge in zip(volume.shape[1:], patch[1:], strict=True))
