"""Divergences between samples of a 2-D model and the true density, from histograms on a square grid, in nats.

A finite sample of the true density does not score 0: compare every value with the noise floor, the score of as many
true points. The `legacy_` metrics are those of Soft-IntroVAE's released code, only for comparison with its tables:
their histograms contain densities instead of probabilities, their sums are divided by the number of rows, empty cells
count as 1e-14, and the arguments of their JSD are swapped.
"""

from typing import NamedTuple

import numpy as np

BINS = 100  # cells per side
LEGACY_POINTS, LEGACY_EPSILON = 5_000, 1e-14


class Scores(NamedTuple):
    """Metrics of a set of samples; see the functions of the same names."""

    kl: float
    jsd: float
    legacy_kl: float
    legacy_jsd: float


def scores(truth: np.ndarray, points: np.ndarray, reach: float, seed: int = 0) -> Scores:
    """Computes all metrics. truth: true points [M, 2], several millions to represent the density. points: [N, 2].

    reach: the grid covers the square from -reach to reach; the rest of the plane counts as one more cell.
    seed: of the selection of points for the legacy metrics, which use LEGACY_POINTS of each set.
    """
    p, counts = cell_counts(truth, reach), cell_counts(points, reach)
    rng = np.random.default_rng(seed)
    true, found = (rng.choice(some, LEGACY_POINTS, replace=False) for some in (truth, points))
    return Scores(kl(p, counts), jsd(p, counts), legacy_kl(true, found, reach), legacy_jsd(true, found, reach))


def cell_counts(points: np.ndarray, reach: float, bins: int = BINS) -> np.ndarray:
    """The number of points [N, 2] in each cell, [bins * bins + 1]; the last cell is the rest of the plane."""
    edges = np.linspace(-reach, reach, bins + 1)
    inside, _, _ = np.histogram2d(points[:, 0], points[:, 1], bins=(edges, edges))
    return np.append(inside.ravel(), len(points) - inside.sum())


def kl(true_counts: np.ndarray, counts: np.ndarray) -> float:
    """KL(truth || model) of the distributions over cells, in nats.

    Each of the model's K cells gains 1/K of a point (Perks 1947), so that empty cells have a finite logarithm.
    """
    p, q = true_counts / true_counts.sum(), (counts + 1 / counts.size) / (counts.sum() + 1)
    return float(np.sum(_times_log(p, p) - _times_log(p, q)))


def jsd(true_counts: np.ndarray, counts: np.ndarray) -> float:
    """Jensen-Shannon divergence of the distributions over cells, in nats, from 0 to log 2 (Lin 1991)."""
    p, q = true_counts / true_counts.sum(), counts / counts.sum()
    m = 0.5 * (p + q)
    return float(np.sum(0.5 * (_times_log(p, p) + _times_log(q, q)) - _times_log(m, m)))


def legacy_kl(true_points: np.ndarray, points: np.ndarray, reach: float) -> float:
    """The "KL" of Soft-IntroVAE's 2-D tables; two sets of true points score 0.5 to 18."""
    p, q = (_legacy_histogram(some, reach) for some in (true_points, points))
    return float(np.sum(_times_log(p, p) - p * np.log(q + LEGACY_EPSILON)) / len(p))


def legacy_jsd(true_points: np.ndarray, points: np.ndarray, reach: float) -> float:
    """The "JSD" of Soft-IntroVAE's 2-D tables: the mean of KL(m || p) and KL(m || q)."""
    p, q = (_legacy_histogram(some, reach) for some in (true_points, points))
    m = 0.5 * (p + q)
    sums = [np.sum(_times_log(m, m) - m * np.log(one + LEGACY_EPSILON)) for one in (p, q)]
    return float(0.5 * sum(sums) / len(p))


def _legacy_histogram(points: np.ndarray, reach: float) -> np.ndarray:
    edges = np.linspace(-reach, reach, BINS + 1)
    return np.histogram2d(points[:, 0], points[:, 1], bins=(edges, edges), density=True)[0]


def _times_log(weights: np.ndarray, values: np.ndarray) -> np.ndarray:
    """weights * log(values), or 0 if the weight is 0."""
    return weights * np.log(np.where(weights > 0, values, 1.0))
