"""Frechet distance between Gaussians fitted to two sets of features, in float64.

With features of Inception-v3 it is the FID (Heusel et al. 2017, arXiv 1706.08500). With features of another network,
its name must include that network's name.
"""

from collections.abc import Callable
from typing import Self

import numpy as np

from introvae_jax.metrics.base import SetMetric

TILE = 4096  # rows converted to float64 at a time
BUFFER = 1024  # rows added to the covariance at a time; the cost of an update hardly depends on the number of rows


class Moments:
    """Mean and covariance of rows that arrive in batches of any size.

    Each batch is centred on its own mean before it is merged (Chan, Golub and LeVeque 1979), so a mean that is large
    compared to the standard deviation costs no precision, and the split into batches affects rounding only.
    """

    def __init__(self) -> None:
        self.count = 0
        self._mean = np.zeros(0)  # [D]
        self._scatter = np.zeros((0, 0))  # sum of (row - mean)(row - mean)^T, [D, D]

    @classmethod
    def of(cls, count: int, mean: np.ndarray, covariance: np.ndarray) -> Self:
        """Creates the moments of `count` rows from their mean [D] and covariance [D, D], for instance from a file.

        Raises ValueError for fewer than 2 rows, inconsistent shapes, and numbers that are not finite.
        """
        mean, covariance = np.array(mean, np.float64), np.array(covariance, np.float64)
        if count < 2 or mean.ndim != 1 or covariance.shape != mean.shape * 2:
            raise ValueError(f"moments of {count} rows, mean {mean.shape}, covariance {covariance.shape}: no such set")
        if not (np.isfinite(mean).all() and np.isfinite(covariance).all()):
            raise ValueError("moments that are not finite")
        moments = cls()
        moments.count, moments._mean, moments._scatter = int(count), mean, covariance * (count - 1)
        return moments

    def add(self, features: np.ndarray) -> None:
        """Adds features [B, D], one row per image.

        Raises ValueError if D changes and for features that are not finite.
        """
        if features.ndim != 2 or (self.count and features.shape[1] != len(self._mean)):
            raise ValueError(f"features {features.shape}, expected [B, {'D' if not self.count else len(self._mean)}]")
        for start in range(0, len(features), TILE):
            self._add(np.asarray(features[start : start + TILE], np.float64))

    def _add(self, rows: np.ndarray) -> None:
        if not np.isfinite(rows).all():
            raise ValueError("features that are not finite")
        mean, total = rows.mean(axis=0), self.count + len(rows)
        if not self.count:
            self._mean, self._scatter = np.zeros_like(mean), np.zeros((len(mean), len(mean)))
        step = mean - self._mean
        # The difference of the means is one more row, with weight n m / (n + m): one matrix product instead of two.
        weighted = np.vstack([rows - mean, step * np.sqrt(self.count * len(rows) / total)])
        self._scatter += weighted.T @ weighted
        self._mean = self._mean + step * (len(rows) / total)
        self.count = total

    @property
    def mean(self) -> np.ndarray:
        """[D]. Raises ValueError before the first row."""
        if not self.count:
            raise ValueError("moments of 0 images")
        return self._mean

    @property
    def covariance(self) -> np.ndarray:
        """[D, D], with divisor N - 1. Raises ValueError for fewer than 2 rows."""
        if self.count < 2:
            raise ValueError(f"moments of {self.count} images: at least 2 are needed")
        return self._scatter / (self.count - 1)


class MomentsAccumulator:
    """Accumulates the mean and covariance of features [B, D]. `value` returns a `Moments`."""

    def __init__(self) -> None:
        self._moments = Moments()
        self._waiting: list[np.ndarray] = []

    def add(self, rows: np.ndarray) -> None:
        self._waiting.append(rows)
        if sum(map(len, self._waiting)) >= BUFFER:
            self._flush()

    @property
    def value(self) -> Moments:
        self._flush()
        return self._moments

    def _flush(self) -> None:
        if self._waiting:
            self._moments.add(np.concatenate(self._waiting))
            self._waiting = []


def distance(a: Moments, b: Moments) -> float:
    """|mean_a - mean_b|^2 + tr(A + B - 2 (A B)^(1/2)) with A and B the covariances; at least 0.

    Raises ValueError for sets of fewer than 2 images and for features of different D.
    Source: Dowson and Landau 1982; Heusel et al. 2017, eq. 6.
    """
    if a.count < 2 or b.count < 2:
        raise ValueError(f"sets of {a.count} and {b.count} images: at least 2 are needed")
    if len(a.mean) != len(b.mean):
        raise ValueError(f"features of {len(a.mean)} and {len(b.mean)} numbers cannot be compared")
    # With A = F F^T and B = G G^T, tr (A B)^(1/2) is the sum of the singular values of F^T G. Unlike square roots of
    # the eigenvalues of A B, they are accurate near 0, which matters for sets of fewer images than D.
    cross = np.linalg.svd(_factor(a.covariance).T @ _factor(b.covariance), compute_uv=False).sum()
    spread = np.trace(a.covariance) + np.trace(b.covariance) - 2 * cross
    return float(np.sum(np.square(a.mean - b.mean)) + max(spread, 0.0))


def _factor(covariance: np.ndarray) -> np.ndarray:
    """F [D, R] with F F^T = covariance and R its rank. Eigenvalues within rounding error of 0 are omitted."""
    values, vectors = np.linalg.eigh(covariance)
    real = values > values[-1] * len(values) * np.finfo(np.float64).eps
    return vectors[:, real] * np.sqrt(values[real])


def _named(name: str) -> Callable[[Moments, Moments], dict[str, float]]:
    return lambda real, generated: {f"{name}{{}}": distance(real, generated)}


FID = SetMetric(
    name="fid", features="inception", definition="Gaussians of pool features", default_count=50_000,
    accumulator=MomentsAccumulator, compute=_named("fid"), lower_is_better=True,
)  # fmt: skip
ALEXNET_FRECHET = SetMetric(
    name="alexnet_frechet", features="alexnet", definition="Gaussians of the last convolution", default_count=50_000,
    accumulator=MomentsAccumulator, compute=_named("alexnet_frechet"), lower_is_better=True,
)  # fmt: skip
