"""Precision, the share of realistic generated images, and recall, the share of covered real images.

Source: Kynkaanniemi et al. 2019 (arXiv 1904.06991), eq. 1 and 2, there with VGG-16 features.
"""

from collections.abc import Callable, Iterator

import numpy as np

from introvae_jax.metrics.accumulators import RowMatrix, Rows
from introvae_jax.metrics.base import SetMetric

ROUNDING = 1e-12  # relative: squared distances are computed by matrix products, so ties are not exact


def precision_recall(real: RowMatrix, fake: RowMatrix, *, neighbours: int = 3, tile: int = 2048) -> dict[str, float]:
    """Share of fake points on the manifold of the real set ("precision") and the reverse ("recall"), both in [0, 1].

    real [N, D], fake [M, D]: features, in memory or in a file. The manifold of a set is the union of closed balls
    around its points; the radius is the distance to the k-th nearest neighbour in the set, k = `neighbours`, without
    the point itself. tile: rows per block; the memory is that of a few float64 arrays [tile, tile] and [tile, D].
    Raises ValueError for sets of `neighbours` points or fewer, of different D, or not finite.
    """
    if real.ndim != 2 or fake.ndim != 2 or real.shape[1] != fake.shape[1]:
        raise ValueError(f"features {real.shape} and {fake.shape}: must be [N, D] and [M, D]")
    if not 1 <= neighbours < min(len(real), len(fake)):
        raise ValueError(f"sets of {len(real)} and {len(fake)} points have no {neighbours} neighbours for each")
    centre = np.asarray(sum(rows.sum(axis=0) for _, rows in _tiles(real, tile, 0.0)) / len(real))
    if not np.isfinite(centre).all():
        raise ValueError("real features that are not finite")
    real_reach, fake_reach = (_reach(points, neighbours, tile, centre) for points in (real, fake))
    real_hit, fake_hit = np.zeros(len(real), bool), np.zeros(len(fake), bool)
    for here, a in _tiles(fake, tile, centre):
        for there, b in _tiles(real, tile, centre):
            gaps = _squared_distances(a, b)
            fake_hit[here] |= np.any(gaps <= real_reach[there], axis=1)
            real_hit[there] |= np.any(gaps <= fake_reach[here, None], axis=0)
    return {"precision": float(fake_hit.mean()), "recall": float(real_hit.mean())}


def _reach(points: RowMatrix, neighbours: int, tile: int, centre: np.ndarray) -> np.ndarray:
    """Squared distance of each point to its k-th neighbour, rounded up so that points on the sphere are inside."""
    reach = np.empty(len(points))
    for here, a in _tiles(points, tile, centre):
        nearest = np.full((len(a), neighbours), np.inf)
        for there, b in _tiles(points, tile, centre):
            gaps = _squared_distances(a, b)
            if here == there:
                np.fill_diagonal(gaps, np.inf)
            gaps = np.partition(gaps, neighbours - 1, axis=1)[:, :neighbours] if neighbours < len(b) else gaps
            nearest = np.sort(np.concatenate([nearest, gaps], axis=1), axis=1)[:, :neighbours]
        reach[here] = nearest[:, -1] + ROUNDING * (nearest[:, -1] + np.sum(np.square(a), axis=1))
    if not np.isfinite(reach).all():
        raise ValueError("features that are not finite")
    return reach


def _tiles(points: RowMatrix, tile: int, centre: np.ndarray | float) -> Iterator[tuple[slice, np.ndarray]]:
    """Yields rows in float64 minus `centre`: smaller squares lose less precision in the subtraction."""
    for start in range(0, len(points), tile):
        rows = slice(start, min(start + tile, len(points)))
        yield rows, np.asarray(points[rows], np.float64) - centre


def _squared_distances(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    gaps = a @ (-2 * b.T)
    gaps += np.sum(np.square(a), axis=1)[:, None]
    gaps += np.sum(np.square(b), axis=1)
    return np.maximum(gaps, 0, out=gaps)


def _named(prefix: str) -> Callable[[RowMatrix, RowMatrix], dict[str, float]]:
    return lambda real, generated: {f"{prefix}{k}{{}}": v for k, v in precision_recall(real, generated).items()}


_NEIGHBOURS = "3 nearest neighbours"
PRECISION_RECALL = SetMetric(
    name="precision_recall", features="inception", definition=_NEIGHBOURS, default_count=50_000, least=4,
    accumulator=Rows, compute=_named(""), lower_is_better=False, parts=("precision", "recall"),
)  # fmt: skip
ALEXNET_PRECISION_RECALL = SetMetric(
    name="alexnet_precision_recall", features="alexnet", definition=_NEIGHBOURS, default_count=50_000, least=4,
    accumulator=Rows, compute=_named("alexnet_"), lower_is_better=False,
)  # fmt: skip
