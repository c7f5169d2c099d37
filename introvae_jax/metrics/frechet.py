"""Frechet distance between two sets of features, each taken as a Gaussian.

With features of Inception-v3 it is the FID (Heusel et al. 2017, arXiv 1706.08500); any other network's distance
must carry that network's name. All in float64.
"""

from collections.abc import Callable
from typing import Self

import numpy as np

from introvae_jax.metrics.base import SetMetric

TILE = 4096  # rows taken to float64 at a time
BUFFER = 1024  # rows added to the covariance at a time: an update costs the same for few rows and for many


class Moments:
    """Mean and covariance of rows that arrive in batches of any size.

    Each batch is centred on its own mean before it joins the rest (Chan, Golub and LeVeque 1979), so a mean that
    is large beside the spread costs no digits, and how the rows were split matters to rounding only.
    """

    def __init__(self) -> None:
        self.count = 0
        self._mean = np.zeros(0)  # [D]
        self._scatter = np.zeros((0, 0))  # sum of (row - mean)(row - mean)^T, [D, D]

    @classmethod
    def of(cls, count: int, mean: np.ndarray, covariance: np.ndarray) -> Self:
        """The moments of `count` rows known to have this mean [D] and covariance [D, D], as from a file.

        Raises ValueError for fewer than 2 rows, shapes that do not go together, and numbers that are not finite.
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
        """Takes in features [B, D], one row per image.

        Raises ValueError for another D than before and for features that are not finite.
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
        # The shift between the means is one more row, of weight n m / (n + m): one product instead of two.
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
    """Mean and covariance of features [B, D] that stream by. `value` is a `Moments`."""

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
    """|mean_a - mean_b|^2 + tr(A + B - 2 (A B)^(1/2)) with A and B the covariances; from 0 up.

    Raises ValueError for sets of fewer than 2 images and for features of different D.
    Source: Dowson and Landau 1982; Heusel et al. 2017, eq. 6.
    """
    if a.count < 2 or b.count < 2:
        raise ValueError(f"sets of {a.count} and {b.count} images: at least 2 are needed")
    if len(a.mean) != len(b.mean):
        raise ValueError(f"features of {len(a.mean)} and {len(b.mean)} numbers cannot be compared")
    # With A = F F^T and B = G G^T, tr (A B)^(1/2) is the sum of the singular values of F^T G. Unlike the roots of
    # the eigenvalues of a product they are right to rounding where they vanish: sets of fewer images than D.
    cross = np.linalg.svd(_factor(a.covariance).T @ _factor(b.covariance), compute_uv=False).sum()
    spread = np.trace(a.covariance) + np.trace(b.covariance) - 2 * cross
    return float(np.sum(np.square(a.mean - b.mean)) + max(spread, 0.0))


def _factor(covariance: np.ndarray) -> np.ndarray:
    """F [D, R] with F F^T = covariance, R its rank: eigenvalues that are rounding error, of any sign, are left out."""
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
