"""Kernel distance between two sets of features: KID where the features are Inception-v3's.

Source: Binkowski et al. 2018 (arXiv 1801.01401), section 4. Subsets are drawn as in torch-fidelity, with the generated
images as its first input and the real images as its second, so that the values are equal.
"""

from collections.abc import Callable

import numpy as np

from introvae_jax.metrics.accumulators import RowMatrix, Rows
from introvae_jax.metrics.base import SetMetric


def kernel_distance(
    real: RowMatrix, fake: RowMatrix, *, subsets: int = 100, subset_size: int = 1000, seed: int = 2020
) -> dict[str, float]:
    """Squared maximum mean discrepancy, "mean" and "std" over random subsets of both sets. Unbiased, so it may be < 0.

    real [N, D], fake [M, D]: features, in memory or in a file; the rows of a subset are read when they are needed.
    Raises ValueError for sets of fewer rows than `subset_size`, of different D, or not finite.
    """
    if real.ndim != 2 or fake.ndim != 2 or real.shape[1] != fake.shape[1]:
        raise ValueError(f"features {real.shape} and {fake.shape}: must be [N, D] and [M, D]")
    if not 2 <= subset_size <= min(len(real), len(fake)):
        raise ValueError(
            f"subsets of {subset_size} cannot be drawn from {len(real)} real and {len(fake)} generated images; "
            "2 are needed, and each image is drawn at most once"
        )
    if subsets < 1:
        raise ValueError(f"{subsets} subsets: at least 1 is needed")
    rng = np.random.RandomState(seed)
    values = []
    for _ in range(subsets):
        drawn = []
        for features in (fake, real):  # this order is part of the definition
            drawn.append(np.asarray(features[rng.choice(len(features), subset_size, replace=False)], np.float64))
        values.append(squared_mmd(*drawn))
    return {"mean": float(np.mean(values)), "std": float(np.std(values))}


def squared_mmd(a: np.ndarray, b: np.ndarray) -> float:
    """Unbiased squared maximum mean discrepancy of a and b, both [M, D] float64, under the cubic kernel.

    Raises ValueError for features that are not finite.
    Source: Gretton et al. 2012, eq. 3.
    """
    if not (np.isfinite(a).all() and np.isfinite(b).all()):
        raise ValueError("features that are not finite")
    within = sum(np.sum(k) - np.trace(k) for k in (_cubic(a, a), _cubic(b, b)))
    return float(within / (len(a) * (len(a) - 1)) - 2 * np.mean(_cubic(a, b)))


def _cubic(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """(x . y / D + 1)^3 for each pair of rows."""
    k = a @ b.T / a.shape[1] + 1
    return k * k * k


def _named(name: str) -> Callable[[RowMatrix, RowMatrix], dict[str, float]]:
    def compute(real: RowMatrix, generated: RowMatrix) -> dict[str, float]:
        found = kernel_distance(real, generated)
        return {f"{name}{{}}": found["mean"], f"{name}{{}}_std": found["std"]}

    return compute


_SUBSETS = "100 subsets of 1,000, cubic kernel, seed 2020"
KID = SetMetric(
    name="kid", features="inception", definition=_SUBSETS, default_count=50_000, least=1000,
    accumulator=Rows, compute=_named("kid"), lower_is_better=True, details=("kid*_std",),
)  # fmt: skip
ALEXNET_KERNEL = SetMetric(
    name="alexnet_kernel", features="alexnet", definition=_SUBSETS, default_count=50_000, least=1000,
    accumulator=Rows, compute=_named("alexnet_kernel"), lower_is_better=True, details=("alexnet_kernel*_std",),
)  # fmt: skip
