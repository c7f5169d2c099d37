"""AUROC: pair by pair, closed form for two Gaussians, and its ends."""

import math

import numpy as np
import pytest

from introvae_jax.metrics.ood import auroc


@pytest.mark.parametrize("levels", [3, 10, 10**9])
def test_every_pair_with_ties_as_halves(levels):
    rng = np.random.default_rng(levels)
    inside, outside = rng.integers(0, levels, 40), rng.integers(0, levels, 31) + levels // 4
    pairs = [(o > i) + 0.5 * (o == i) for o in outside for i in inside]
    assert auroc(inside, outside) == pytest.approx(np.mean(pairs), rel=1e-14)
    assert auroc(outside, inside) == pytest.approx(1 - np.mean(pairs), rel=1e-14)


def test_two_gaussians():
    # The difference of two unit normals has deviation sqrt 2: P = Phi(shift / sqrt 2).
    inside, outside = np.random.default_rng(0).standard_normal((2, 100_000))
    assert auroc(inside, outside + 1) == pytest.approx(0.5 * (1 + math.erf(0.5)), abs=0.004)


def test_the_ends():
    scores = np.arange(5.0)
    assert auroc(scores, scores + 5) == 1
    assert auroc(scores + 5, scores) == 0
    assert auroc(scores, scores) == 0.5
    assert auroc(scores, [np.inf]) == 1


def test_no_scores_are_refused():
    with pytest.raises(ValueError, match="0 scores inside and 2 outside"):
        auroc([], [1, 2])
    with pytest.raises(ValueError, match="NaN"):
        auroc([1, 2], [1, np.nan])
