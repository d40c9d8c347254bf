"""The ISBI 2012 challenge's scores of membranes: against a plain Python loop, and of a whole stack of sections.

    python benchmarks/membrane_scores.py [--only PART ...] [--edge 512] [--sections 30] [--plain-edge 128] [--rounds 5]

Sections are drawn: cells of random places between membranes, predicted with noise and gaps. The loop of
plain_membranes.py takes one small section at one threshold, on one core; every measure must be the same. The stack is
scored at all thresholds on two cores, or on as many as there are.
"""

import argparse
import os
from functools import partial
from types import SimpleNamespace

import numpy as np
import pandas as pd
import plain_membranes
import timing
from numpy.typing import NDArray
from scipy import ndimage, spatial

from voxloom import membranes, section_scores, split, warping
from voxloom.volume import PROBABILITY

CELL_PIXELS = 24
"""Mean distance of the middles of two cells."""
THRESHOLD = section_scores.THRESHOLDS[5]
LEAST = 10
MOST_SECONDS = 60.0
SLACK_MIB = 16
"""Of the table, the drawn volumes' views and what NumPy keeps."""


def section(edge: int, seed: int) -> tuple[NDArray[np.uint8], NDArray[np.uint8]]:
    """Codes of an annotation (1 on membranes), and a prediction of them, as they are stored."""
    rng = np.random.default_rng(seed)
    middles = rng.random((max(4, (edge // CELL_PIXELS) ** 2), 2)) * edge
    places = np.stack(np.mgrid[:edge, :edge], axis=-1).reshape(-1, 2)
    _, cell = spatial.cKDTree(middles).query(places)
    cell = cell.reshape(edge, edge)
    codes = ndimage.maximum_filter(cell, 3) != ndimage.minimum_filter(cell, 3)
    weak = ndimage.gaussian_filter(rng.normal(size=codes.shape), 6)
    probability = ndimage.gaussian_filter(codes.astype(float), 1.2) * 1.4 + 1.5 * weak
    probability += ndimage.gaussian_filter(rng.normal(size=codes.shape), 1) * 0.35
    return codes.astype(np.uint8), (probability.clip(0, 1) * 255 + 0.5).astype(np.uint8)


def ours(truth: NDArray[np.bool_], interior: NDArray[np.float64]) -> dict[str, object]:
    """What plain_membranes.score returns, by the library."""
    proposal = interior > THRESHOLD
    objects = section_scores.objects_of(truth)
    thinned = membranes.contingency(membranes.thin_borders(proposal), objects)
    told = section_scores.information(thinned)
    plain = membranes.contingency(section_scores.objects_of(proposal), objects)
    kinds = warping.classify(warping.warp(truth, interior, threshold=THRESHOLD), proposal)
    return {
        "thinned": tuple(vars(section_scores.foreground_pairs(thinned)).values()),
        "information": (told.precision, told.recall),
        "rand": tuple(vars(section_scores.foreground_pairs(plain)).values()),
        "pixels": tuple(vars(section_scores.pixel_agreement(proposal, truth)).values()),
        **vars(warping.count_errors(kinds)),
    }


def is_same(one: dict[str, object], other: dict[str, object]) -> bool:
    """Counts must be equal, information to 1e-9: its sums are taken in another order."""
    told = [each.pop("information") for each in (one, other)]
    return one == other and bool(np.allclose(*told, rtol=1e-9, atol=1e-9))


def against_a_loop(options: argparse.Namespace) -> None:
    timing.pin(1)
    codes, stored = section(options.plain_edge, seed=0)
    truth, interior = codes == 0, 1 - stored / 255
    calls = {
        "ours": partial(ours, truth, interior),
        "loop": partial(plain_membranes.score, truth.tolist(), interior.tolist(), THRESHOLD),
    }
    same = is_same(calls["ours"](), calls["loop"]())
    seconds = timing.interleaved(calls, rounds=options.rounds)
    faster = timing.ratio(seconds["loop"], seconds["ours"])
    timing.record(
        f"membrane scores of a section of {options.plain_edge} × {options.plain_edge}, against a plain Python loop",
        target="S4.8",
        ours=round(float(np.median(seconds["ours"])), 5),
        peer=round(float(np.median(seconds["loop"])), 3),
        ratio=round(faster, 1),
        limit=f"at least {LEAST} times as fast",
        identical=same,
        holds=bool(faster >= LEAST and same),
        stage="evaluate",
    )


def a_stack(options: argparse.Namespace) -> None:
    threads = min(2, len(os.sched_getaffinity(0)))
    timing.pin(threads)
    drawn = [section(options.edge, seed) for seed in range(options.sections)]
    truth, prediction = (_held(np.stack([pair[place] for pair in drawn])) for place in range(2))
    shape = prediction.shape
    boxes = [[0, "v", "r", 0, "test", 0, shape[0], 0, shape[1], 0, shape[2], 0, 0, 0]]
    table = pd.DataFrame(boxes, columns=list(split.COLUMNS)).astype(split.COLUMNS)
    score = partial(membranes.score_sections, {"v": prediction}, {"v": truth}, table, fold=0, threads=threads)
    seconds = timing.interleaved({"ours": score}, rounds=max(1, options.rounds // 2))["ours"]
    peak = timing.peak_mib(score)
    most_mib = membranes.section_layout(shape, memory_mib=np.inf, threads=threads).mib + SLACK_MIB
    took = float(np.median(seconds))
    thresholds = len(section_scores.THRESHOLDS)
    timing.record(
        f"all membrane scores of {shape[0]} sections of {shape[1]} × {shape[2]} at {thresholds} thresholds",
        target="S4.8",
        ours=round(took, 2),
        peer=None,
        ratio=None,
        limit=f"at most {MOST_SECONDS:g} s, {most_mib:.0f} MiB; {threads} threads",
        peak_mib=round(peak, 1),
        holds=bool(took <= MOST_SECONDS and peak <= most_mib),
        stage="evaluate",
    )


def _held(values: NDArray[np.uint8]) -> SimpleNamespace:
    """A volume in memory that is read like a stored one."""

    class Held(SimpleNamespace):
        def __getitem__(self, index: object) -> NDArray[np.uint8]:
            return values[index].copy()

    return Held(shape=values.shape, dtype=values.dtype, spacing_um=(0.05, 0.004, 0.004), quantisation=PROBABILITY)


PARTS = {"loop": against_a_loop, "stack": a_stack}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", nargs="+", choices=PARTS, default=list(PARTS))
    parser.add_argument("--edge", type=int, default=512, help="of the stack's sections, in pixels")
    parser.add_argument("--sections", type=int, default=30)
    parser.add_argument("--plain-edge", type=int, default=128, help="of the section that the loop takes")
    parser.add_argument("--rounds", type=int, default=5)
    options = parser.parse_args()
    for part in sorted(options.only, key=list(PARTS)[::-1].index):  # pinned to two cores before it is to one
        PARTS[part](options)


if __name__ == "__main__":
    main()
