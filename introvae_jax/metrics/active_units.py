"""The number of latent dimensions that the encoder uses."""

import numpy as np

from introvae_jax.metrics.base import EncoderMetric, Rows


def active_units(mus: np.ndarray, threshold: float = 0.01) -> int:
    """Number of dimensions whose posterior mean varies over the data, with a variance above `threshold`; 0 to Z.

    mus: the encoder's means [N, Z]; use held-out images to measure generalisation.
    Raises ValueError for fewer than 2 images and means that are not finite.
    Source: Burda et al. 2016 (arXiv 1509.00519), section 5.2.
    """
    if mus.ndim != 2 or len(mus) < 2:
        raise ValueError(f"means {mus.shape}: must be [N, Z] with N of 2 or more")
    if not np.isfinite(mus).all():
        raise ValueError("means that are not finite")
    return int(np.sum(np.var(np.asarray(mus, np.float64), axis=0) > threshold))


def _reduce(rows: Rows, outside: Rows) -> dict[str, float]:
    return {"active_units": float(active_units(rows["mu"]))}


ACTIVE_UNITS = EncoderMetric(
    name="active_units", definition="of {z_dim} latent dimensions, those whose mu has a variance above 0.01", least=2,
    per_image=lambda batch: {"mu": batch.mu}, reduce=_reduce, lower_is_better=None, ranks=False,
)  # fmt: skip
