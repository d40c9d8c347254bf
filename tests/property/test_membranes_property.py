"""The challenge's scores obey their definitions: a loop nobody can doubt gives the same for any section."""

import itertools
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from scipy import ndimage

from voxloom import border_thinning, section_scores, warping
from voxloom.partitions import contingency

BENCHMARKS = Path(__file__).resolve().parents[2] / "benchmarks"


@pytest.fixture
def plain(monkeypatch):
    monkeypatch.syspath_prepend(BENCHMARKS)
    import plain_membranes

    return plain_membranes


@st.composite
def sections(draw):
    """A truth of blobs or noise, and a proposal of few values that has something of it."""
    shape = draw(st.tuples(st.integers(1, 12), st.integers(1, 12)))
    rng = np.random.default_rng(draw(st.integers(0, 2**32)))
    truth = rng.random(shape) < draw(st.sampled_from([0.5, 0.8, 0.95]))
    noise = rng.random(shape) * draw(st.sampled_from([0.3, 1.0, 2.0]))
    values = np.round(np.clip(truth * 0.6 + noise - 0.1, 0, 1) * 10) / 10
    return truth, values, draw(st.sampled_from(section_scores.THRESHOLDS))


def pairs_one_by_one(proposal, truth):
    """Both pixels of every ordered pair inside true objects, a pixel with itself as well."""
    inside = [(int(t), int(p)) for t, p in zip(truth.flat, proposal.flat, strict=True) if t]
    found = [0, 0, 0]
    for (i, a), (j, b) in itertools.product(enumerate(inside), repeat=2):
        is_true = a[0] == b[0]
        is_proposed = i == j or (a[1] == b[1] != 0)
        if is_true and is_proposed:
            found[0] += 1
        elif is_proposed:
            found[1] += 1
        elif is_true:
            found[2] += 1
    return found


@settings(deadline=None, max_examples=60)
@given(
    shape=st.tuples(st.integers(1, 6), st.integers(1, 6)),
    seed=st.integers(0, 2**32),
    truths=st.integers(1, 4),
    proposals=st.integers(0, 4),
)
def test_rand_counts_are_those_of_pairs_looked_at_one_by_one(shape, seed, truths, proposals):
    rng = np.random.default_rng(seed)
    truth, proposal = rng.integers(0, truths + 1, shape), rng.integers(0, proposals + 1, shape)
    pairs = section_scores.foreground_pairs(contingency(proposal, truth))
    assert [pairs.tp, pairs.fp, pairs.fn] == pairs_one_by_one(proposal, truth)


@settings(deadline=None, max_examples=60)
@given(shape=st.tuples(st.integers(2, 6), st.integers(1, 6)), seed=st.integers(0, 2**32), numbers=st.integers(1, 4))
def test_standard_rand_counts_are_those_of_different_pixels(shape, seed, numbers):
    rng = np.random.default_rng(seed)
    truth, proposal = rng.integers(0, numbers, shape), rng.integers(0, numbers, shape)
    pairs = section_scores.all_pairs(contingency(proposal + 1, truth + 1))
    together = [
        (a[0] == b[0], a[1] == b[1])
        for a, b in itertools.combinations([*zip(truth.flat, proposal.flat, strict=True)], 2)
    ]
    assert [pairs.tp, pairs.fp, pairs.fn] == [
        together.count(kind) for kind in ((True, True), (False, True), (True, False))
    ]


@settings(deadline=None, max_examples=150, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(section=sections())
def test_every_measure_is_that_of_the_plain_loop(plain, section):
    truth, values, threshold = section
    proposal = values > threshold
    np.testing.assert_array_equal(border_thinning.thin_borders(proposal), plain.thin(proposal.tolist()))
    warped = warping.warp(truth, values, threshold=threshold)
    np.testing.assert_array_equal(warped, plain.warp(truth.tolist(), values.tolist(), threshold))
    kinds = warping.classify(warped, proposal)
    np.testing.assert_array_equal(kinds, plain.classify(warped.tolist(), proposal.tolist()))
    expected = plain.score(truth.tolist(), values.tolist(), threshold) if truth.any() else None
    if expected is not None:
        errors = warping.count_errors(kinds)
        assert vars(errors) == {name: expected[name] for name in vars(errors)}
        table = contingency(border_thinning.thin_borders(proposal), section_scores.objects_of(truth))
        score = section_scores.information(table)
        np.testing.assert_allclose((score.precision, score.recall), expected["information"], rtol=1e-9, atol=1e-12)


@settings(deadline=None, max_examples=100)
@given(section=sections())
def test_warping_keeps_the_number_of_objects_and_of_holes(section):
    truth, values, threshold = section
    warped = warping.warp(truth, values, threshold=threshold)
    before, after = np.pad(truth, 1), np.pad(warped, 1)
    assert count_pieces(before, corners=False) == count_pieces(after, corners=False)
    assert count_pieces(~before, corners=True) == count_pieces(~after, corners=True)


def count_pieces(mask, *, corners):
    return ndimage.label(mask, np.ones((3, 3)) if corners else None)[1]


@settings(deadline=None, max_examples=100)
@given(section=sections())
def test_a_perfect_proposal_scores_one_and_leaves_nothing_to_warp(section):
    truth, _, threshold = section
    objects = section_scores.objects_of(truth)
    pairs = section_scores.foreground_pairs(contingency(border_thinning.thin_borders(truth), objects))
    if truth.any():
        assert pairs.f_score == 1
        if objects.max() > 1:
            table = contingency(border_thinning.thin_borders(truth), objects)
            np.testing.assert_allclose(section_scores.information(table).f_score, 1)
    np.testing.assert_array_equal(warping.warp(truth, truth.astype(float), threshold=threshold), truth)


@settings(deadline=None, max_examples=60)
@given(section=sections(), seed=st.integers(0, 2**32))
def test_scores_ignore_how_objects_are_numbered(section, seed):
    truth, values, threshold = section
    objects, proposed = section_scores.objects_of(truth), section_scores.objects_of(values > threshold)
    rng = np.random.default_rng(seed)
    renumbered = [np.append(0, rng.permutation(int(labels.max())) + 1)[labels] for labels in (objects, proposed)]
    one, other = contingency(proposed, objects), contingency(renumbered[1], renumbered[0])
    assert section_scores.foreground_pairs(one) == section_scores.foreground_pairs(other)
    if truth.any():
        np.testing.assert_allclose(section_scores.information(one).f_score, section_scores.information(other).f_score)
