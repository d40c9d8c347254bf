"""Draws units for the parts of a split so that each part has about the same share of foreground."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from voxloom.errors import SplitError

DRAWS = 64
"""Random draws of which the best balanced is kept."""


@dataclass(frozen=True)
class Unit:
    """What is kept together: a block, a volume or a region.

    Parameters
    ----------
    annotated, foreground : int
        Voxels.
    """

    annotated: int
    foreground: int

    def plus(self, annotated: int, foreground: int) -> Unit:
        """The unit with more voxels."""
        return Unit(self.annotated + annotated, self.foreground + foreground)

    @property
    def share(self) -> float:
        """Foreground over annotated voxels."""
        return self.foreground / max(1, self.annotated)


def balanced_parts(
    units: Sequence[Unit], *, fractions: Mapping[str, float], rng: np.random.Generator, what: str
) -> list[str]:
    """Give every unit a part.

    Parameters
    ----------
    units : sequence of Unit
    fractions : mapping of str to float
        Share of the units of each part but training, which gets the rest. A share above 0 gets at least one.
    rng : numpy.random.Generator
    what : str
        What a unit is, for the message.

    Returns
    -------
    parts : list of str
        "train", a key of `fractions`, or "excluded" where nothing is annotated.

    Raises
    ------
    SplitError
        If no unit would be left to train on.

    Notes
    -----
    Units are sorted by foreground share and each part draws one at random from each of as many strata as it gets
    units; of `DRAWS` such draws the one is kept whose parts are closest to the share of all.
    """
    usable = [index for index, unit in enumerate(units) if unit.annotated]
    numbers = {part: max(1, round(share * len(usable))) for part, share in fractions.items() if share > 0}
    if sum(numbers.values()) >= len(usable):
        wanted = " and ".join(f"{number} for {part}" for part, number in numbers.items())
        mend = _mend(what) if usable else "look at results/annotations: nothing is annotated"
        raise SplitError(f"{_too_few(what, len(usable))}: {wanted} leave none to train on; {mend}")
    best: dict[int, str] = {}
    least = np.inf
    for _ in range(DRAWS if numbers else 1):
        drawn: dict[int, str] = {}
        for part, number in numbers.items():
            left = [index for index in usable if index not in drawn]
            drawn |= dict.fromkeys(_one_of_each_stratum(units, left, number, rng), part)
        imbalance = sum(_imbalance(units, usable, [i for i, p in drawn.items() if p == part]) for part in numbers)
        if imbalance < least:
            best, least = drawn, imbalance
    return [best.get(i, "train") if unit.annotated else "excluded" for i, unit in enumerate(units)]


def balanced_folds(
    units: Sequence[Unit], *, folds: int, validation_fraction: float, rng: np.random.Generator, what: str
) -> list[list[str]]:
    """Give every unit a part in each fold of a cross-validation; each annotated unit tests once.

    Parameters
    ----------
    units : sequence of Unit
    folds : int
        At least 2.
    validation_fraction : float
        Share of all units that validates in each fold, taken from those that don't test in it.
    rng : numpy.random.Generator
    what : str

    Returns
    -------
    parts : list of list of str
        For each fold the parts of all units, as in `balanced_parts`.

    Raises
    ------
    SplitError
        If there are fewer units than folds, or none would be left to train on.
    """
    usable = [index for index, unit in enumerate(units) if unit.annotated]
    validating = max(1, round(validation_fraction * len(usable))) if validation_fraction > 0 else 0
    largest = -(-len(usable) // folds)
    if len(usable) < folds or len(usable) - largest <= validating:
        raise SplitError(
            f"{_too_few(what, len(usable))}: {folds} folds test {largest} at a time and validate on {validating}, "
            f"which leaves none to train on; use fewer folds, or {_mend(what)}"
        )
    best: dict[int, int] = {}
    least = np.inf
    for _ in range(DRAWS):
        dealt = _deal(units, usable, folds, rng)
        imbalance = sum(_imbalance(units, usable, [i for i, f in dealt.items() if f == fold]) for fold in range(folds))
        if imbalance < least:
            best, least = dealt, imbalance
    result = []
    for fold in range(folds):
        rest = [Unit(0, 0) if best.get(i) == fold else unit for i, unit in enumerate(units)]
        share = validating / max(1, sum(1 for unit in rest if unit.annotated))
        parts = balanced_parts(rest, fractions={"validation": share}, rng=rng, what=what)
        result.append(["test" if best.get(i) == fold else part for i, part in enumerate(parts)])
    return result


def _by_share(units: Sequence[Unit], indices: Sequence[int], rng: np.random.Generator) -> list[int]:
    """Sorted by foreground share, equal ones in random order."""
    shuffled = [indices[k] for k in rng.permutation(len(indices))]
    return sorted(shuffled, key=lambda index: units[index].share)


def _one_of_each_stratum(
    units: Sequence[Unit], indices: Sequence[int], number: int, rng: np.random.Generator
) -> list[int]:
    strata = np.array_split(_by_share(units, indices, rng), number)
    return [int(stratum[rng.integers(len(stratum))]) for stratum in strata]


def _deal(units: Sequence[Unit], usable: Sequence[int], folds: int, rng: np.random.Generator) -> dict[int, int]:
    """Neighbours in foreground share go to different folds."""
    ordered = _by_share(units, usable, rng)
    dealt = {}
    for first in range(0, len(ordered), folds):
        for index, fold in zip(ordered[first : first + folds], rng.permutation(folds), strict=False):
            dealt[index] = int(fold)
    return dealt


def _imbalance(units: Sequence[Unit], everything: Sequence[int], chosen: Sequence[int]) -> float:
    """Difference between the foreground share of some units and of all, relative to that of all."""
    total = _pooled_share(units, everything)
    return abs(_pooled_share(units, chosen) - total) / total if total else 0.0


def _pooled_share(units: Sequence[Unit], indices: Sequence[int]) -> float:
    return sum(units[i].foreground for i in indices) / max(1, sum(units[i].annotated for i in indices))


def _too_few(what: str, number: int) -> str:
    return f"there are {number} annotated {what}s to split"


def _mend(what: str) -> str:
    if what == "block":
        return (
            "make block_um smaller along an axis on which more is annotated, or set test_fraction to 0 (all scores are "
            "then of voxels that chose epoch and threshold)"
        )
    return f"add {what}s, or use by: block, for which one volume is enough"
