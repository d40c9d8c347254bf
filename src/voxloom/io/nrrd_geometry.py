"""What the axes of a NRRD file mean: which are channels, how large voxels are in micrometres, where they lie.

NRRD counts axes from the fastest (x) and world vectors as (x, y, z); everything that leaves this module is (Z, Y, X).
"""

from __future__ import annotations

import math
import unicodedata
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from voxloom.io.nrrd_header import NrrdHeader, WorldVector
from voxloom.volume import Geometry, Vector

_SPATIAL = {"domain", "space"}
_UNKNOWN = {"none", "???"}
_GIVE_SPACING = "give the volume a voxel size in config/volumes.tsv"
NO_UNIT = (
    "no unit of length is stated: millimetres are taken, as ITK and 3D Slicer do; if they are not, " + _GIVE_SPACING
)

_METRES = {
    "k": 1e3, "d": 1e-1, "c": 1e-2, "m": 1e-3, "u": 1e-6, "μ": 1e-6, "n": 1e-9, "p": 1e-12, "f": 1e-15,
    "kilo": 1e3, "deci": 1e-1, "centi": 1e-2, "milli": 1e-3, "micro": 1e-6, "nano": 1e-9, "pico": 1e-12,
    "femto": 1e-15, "": 1.0,
}  # fmt: skip
_MICROMETRES = {"micron": 1.0, "microns": 1.0, "å": 1e-4}
_MICROMETRES |= dict.fromkeys(("angstrom", "angstroms", "ångstrom", "ångström"), 1e-4)
for _prefix, _metres in _METRES.items():
    if len(_prefix) < 2:
        _MICROMETRES[_prefix + "m"] = _metres * 1e6
    if len(_prefix) != 1:
        _MICROMETRES |= dict.fromkeys(
            (_prefix + word for word in ("meter", "meters", "metre", "metres")), _metres * 1e6
        )


@dataclass(frozen=True)
class Axes:
    """What each axis of the file is.

    Parameters
    ----------
    roles : tuple of str
        "X", "Y", "Z" or "C" for each axis in file order; empty where the file is not a volume.
    refusal : str or None
        Why it is not.
    warnings : tuple of str
    """

    roles: tuple[str, ...]
    refusal: str | None = None
    warnings: tuple[str, ...] = ()


@dataclass(frozen=True)
class Placed:
    """Where the voxels lie.

    Parameters
    ----------
    geometry : Geometry or None
        None where the file states no usable voxel size; `warnings` say why.
    unit_stated : bool
    warnings : tuple of str
    """

    geometry: Geometry | None
    unit_stated: bool = False
    warnings: tuple[str, ...] = ()


def micrometres_per(unit: str) -> float | None:
    """How many micrometres a unit of length is.

    Parameters
    ----------
    unit : str
        In any spelling met in files: "mm", "millimeters", "um", "µm" (either sign), "microns", "Å"; case is ignored.

    Returns
    -------
    factor : float or None
        None if it is not a metric length.

    Examples
    --------
    >>> micrometres_per("mm"), micrometres_per("Micron"), micrometres_per("pixel")
    (1000.0, 1.0, None)
    """
    return _MICROMETRES.get(unicodedata.normalize("NFKC", unit).strip().strip(".").lower())


def axes_of(header: NrrdHeader) -> Axes:
    """Tell channels from space: by kinds, then by axes without direction, then by axes without spacing.

    Parameters
    ----------
    header : NrrdHeader

    Returns
    -------
    axes : Axes
        Two spatial axes are X and Y of a single slice.
    """
    dimension = len(header.sizes)
    kinds = header.kinds or ("none",) * dimension
    channels = [axis for axis in range(dimension) if _is_channel(header, kinds, axis)]
    times = [axis for axis in channels if kinds[axis] == "time"]
    warnings = tuple(f"axis {axis + 1} is time; its steps are read as channels" for axis in times)
    is_segmentation = any(key.startswith(("Segment0_", "Segmentation_")) for key in header.key_values)
    if dimension == 4 and not channels and is_segmentation:
        channels = [3]  # one axis per segment, as 3D Slicer wrote before its version 4.11
    space = dimension - len(channels)
    shown = f"{header.path}: sizes {' '.join(map(str, header.sizes))}, kinds {' '.join(kinds)}"
    if len(channels) > 1:
        return Axes((), f"{shown}: {len(channels)} axes are not spatial, voxloom takes one; save one channel of them")
    if space == 4:
        return Axes((), f"{shown}: which of 4 axes holds channels is not told; name it 'list' or 'vector' in 'kinds'")
    if space > 4:
        return Axes((), f"{shown}: {space} spatial axes; save a part of it that has three, X, Y and Z")
    if space < 2:
        return Axes((), f"{shown}: {space} spatial axis is not a volume; give a file with axes X, Y and Z")
    names = iter("XYZ")
    return Axes(tuple("C" if axis in channels else next(names) for axis in range(dimension)), None, warnings)


def _is_channel(header: NrrdHeader, kinds: Sequence[str], axis: int) -> bool:
    if kinds[axis] in _SPATIAL:
        return False
    if kinds[axis] not in _UNKNOWN:
        return True
    for vectors in (header.directions, header.spacings):
        if vectors is not None and any(map(_is_given, vectors)):
            return not _is_given(vectors[axis])
    return False


def _is_given(value: WorldVector | float | None) -> bool:
    return value is not None and not (isinstance(value, float) and math.isnan(value))


def place(header: NrrdHeader, axes: Axes) -> Placed:
    """Voxel size, origin and directions in micrometres and (Z, Y, X).

    Parameters
    ----------
    header : NrrdHeader
    axes : Axes
        Of the same header.

    Returns
    -------
    placed : Placed
        A single slice is as thick as its voxels are along Y. Without a unit, lengths are millimetres, as ITK and
        3D Slicer take them; both are said in `warnings`.
    """
    if axes.refusal is not None:
        return Placed(None)
    spatial = [axis for axis, role in enumerate(axes.roles) if role != "C"]
    has_directions = header.directions is not None and any(header.directions[axis] is not None for axis in spatial)
    with np.errstate(over="ignore", invalid="ignore", divide="ignore"):  # what is not finite is refused at the end
        placed = _from_directions(header, spatial) if has_directions else _from_spacings(header, spatial)
    if placed.geometry is None:
        return placed
    warnings = list(placed.warnings)
    spacing = placed.geometry.spacing_um
    if len(spatial) == 2:
        warnings.append(f"a single slice: its thickness is taken from Y, {spacing[1]:g} micrometres")
    rows = np.asarray(placed.geometry.directions)
    if np.abs(rows @ rows.T - np.eye(3)).max() > 1e-2:
        warnings.append("the axes are not at right angles; lengths are measured as if they were")
    return replace(placed, warnings=tuple(warnings))


def _unusable(why: str) -> Placed:
    return Placed(None, False, (f"no usable voxel size: {why}; {_GIVE_SPACING}",))


def _factors(units: Sequence[str] | None, count: int) -> tuple[list[float], bool, list[str]] | str:
    """Micrometres per unit, for each axis; or what is wrong with the units."""
    stated = [unit.strip() for unit in units or ()]
    stated = ["" if unit.lower() in _UNKNOWN else unit for unit in stated]
    named = {unit for unit in stated if unit}
    for unit in named:
        if micrometres_per(unit) is None:
            return f"the unit {unit!r} is not a metric length such as mm, um or nm"
    if not named:
        return [1000.0] * count, False, [NO_UNIT]
    if len(named) > 1 and not all(stated):
        return f"of the units {stated} some are missing and the others differ"
    warnings = [] if all(stated) else [f"only some axes state their unit; {next(iter(named))} is taken for all"]
    factors = [micrometres_per(unit or next(iter(named))) for unit in stated]
    return [factor for factor in factors if factor is not None], True, warnings


def _from_directions(header: NrrdHeader, spatial: list[int]) -> Placed:
    assert header.directions is not None
    vectors = [header.directions[axis] for axis in spatial]
    if any(vector is None for vector in vectors):
        return _unusable("'space directions' lacks some of the spatial axes")
    rows = np.array(vectors, dtype=float)  # axis in file order x world (x, y, z)
    world = rows.shape[1]
    if world > 3:
        if world > 4 or np.any(rows[:, 3:] != 0):
            return _unusable(f"'space directions' spans {world} world axes")
        rows = rows[:, :3]  # the fourth is time, or stands for segments
        world = 3
    if world < len(spatial):
        return _unusable(f"'space directions' has {world} world axes for {len(spatial)} of the array")
    units = None if header.space_units is None else header.space_units[:world]
    per_axis = units is None and header.units is not None
    if per_axis:  # not as the format has it, but pynrrd's users write it so
        units = tuple(header.units[axis] for axis in spatial) if header.units is not None else None
    result = _factors(units, world)
    if isinstance(result, str):
        return _unusable(result)
    factors, stated, warnings = result
    if per_axis and len(set(factors)) > 1:
        return _unusable("'units' differ between axes; with 'space directions' give 'space units'")
    scale = np.resize(factors, world)
    origin = np.zeros(world) if header.origin is None else np.array(header.origin)[:world]
    conflict = _spacings_differ(header, spatial, np.linalg.norm(rows, axis=1))
    if conflict:
        return _unusable(conflict)
    return _geometry(rows * scale, origin * scale, header.space, stated, warnings)


def _spacings_differ(header: NrrdHeader, spatial: list[int], lengths: np.ndarray) -> str | None:
    if header.spacings is None:
        return None
    spacings = np.abs([header.spacings[axis] for axis in spatial])
    given = ~np.isnan(spacings)
    if np.allclose(spacings[given], lengths[given], rtol=1e-3):
        return None
    return f"'spacings' say {spacings.tolist()} and 'space directions' {lengths.tolist()}"


def _from_spacings(header: NrrdHeader, spatial: list[int]) -> Placed:
    spacings = [_spacing(header, axis) for axis in spatial]
    if any(math.isnan(spacing) for spacing in spacings):
        return _unusable("the header states neither 'space directions' nor 'spacings' for all spatial axes")
    units: Sequence[str] | None = header.space_units
    if header.units is not None:
        units = [header.units[axis] for axis in spatial]
    elif units is not None and len(units) != len(spatial):
        units = None
    result = _factors(units, len(spatial))
    if isinstance(result, str):
        return _unusable(result)
    factors, stated, warnings = result
    if header.origin is not None and len(header.origin) == len(spatial):
        origin = list(header.origin)
    else:
        origin = [_first(header, axis, spacing) for axis, spacing in zip(spatial, spacings, strict=True)]
    rows = np.diag(np.array(spacings) * factors)
    return _geometry(rows, np.array(origin) * factors, header.space, stated, warnings)


def _spacing(header: NrrdHeader, axis: int) -> float:
    """Distance of two samples along an axis: as stated, or from where the axis begins and ends."""
    if header.spacings is not None and not math.isnan(header.spacings[axis]):
        return header.spacings[axis]
    if header.axis_mins is None or header.axis_maxs is None:
        return math.nan
    steps = header.sizes[axis] - (1 if _is_node(header, axis) else 0)
    return (header.axis_maxs[axis] - header.axis_mins[axis]) / steps if steps else math.nan


def _first(header: NrrdHeader, axis: int, spacing: float) -> float:
    """Position of the first sample: 'axis mins' is its near face, or the sample itself where samples are nodes."""
    if header.axis_mins is None or math.isnan(header.axis_mins[axis]):
        return 0.0
    return header.axis_mins[axis] + (0.0 if _is_node(header, axis) else spacing / 2)


def _is_node(header: NrrdHeader, axis: int) -> bool:
    return header.centers is not None and header.centers[axis] == "node"


def _geometry(rows: np.ndarray, origin: np.ndarray, space: str | None, stated: bool, warnings: list[str]) -> Placed:
    """Turn vectors in micrometres from file order and (x, y, z) to (Z, Y, X), and a slice into a volume."""
    if rows.shape[1] == 2:
        rows = np.pad(rows, ((0, 0), (0, 1)))
        origin = np.pad(origin, (0, 1))
    if rows.shape[0] == 2:
        normal = np.cross(rows[0], rows[1])
        length = np.linalg.norm(normal)
        thickness = np.linalg.norm(rows[1])
        rows = np.vstack([rows, normal / length * thickness if length else np.zeros(3)])
    spacing = np.linalg.norm(rows, axis=1)
    if not (np.all(np.isfinite(rows)) and np.all(np.isfinite(origin)) and np.all(spacing > 0)):
        return _unusable(f"the voxel edges {spacing.tolist()} must be positive")
    units = rows / spacing[:, None]
    if abs(np.linalg.det(units)) < 1e-6:
        return _unusable("'space directions' don't span three dimensions")
    directions = tuple(_vector(row[::-1]) for row in units[::-1])
    space = space.removesuffix("-time") if space else None
    towards = (directions[0], directions[1], directions[2])
    geometry = Geometry(_vector(spacing[::-1]), _vector(origin[::-1]), towards, space)
    return Placed(geometry, stated, tuple(warnings))


def _vector(values: np.ndarray) -> Vector:
    z, y, x = (float(value) + 0.0 for value in values)  # + 0.0: no negative zeros
    return z, y, x
