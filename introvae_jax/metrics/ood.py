"""Out-of-distribution detection: how well a score separates images of another kind from held-out images."""

import numpy as np

from introvae_jax.metrics.base import Encoded, EncoderMetric, Rows
from introvae_jax.metrics.likelihood import kl_to_prior


def auroc(inside: np.ndarray, outside: np.ndarray) -> float:
    """Probability that a score of `outside` [M] is larger than one of `inside` [N], ties counting half; in [0, 1].

    0.5 is chance; below 0.5 the score has the wrong sign. It is the area under the ROC curve. Raises ValueError for
    empty sets and for scores that are NaN.
    Source: Mann and Whitney 1947; Hanley and McNeil 1982.
    """
    inside, outside = np.sort(np.ravel(inside)), np.ravel(outside)
    if not (inside.size and outside.size):
        raise ValueError(f"{inside.size} scores inside and {outside.size} outside: both must have some")
    if np.isnan(inside).any() or np.isnan(outside).any():
        raise ValueError("scores that are NaN")
    below, below_or_tied = (np.searchsorted(inside, outside, side).sum() for side in ("left", "right"))
    return float((below + below_or_tied) / (2 * inside.size * outside.size))


def _per_image(batch: Encoded) -> dict[str, np.ndarray]:
    kl = kl_to_prior(batch.mu, batch.logvar)
    error = 0.5 * np.sum((np.float64(batch.reconstructions) - batch.x) ** 2, axis=(1, 2, 3))
    return {"kl": kl, "elbo": kl + batch.beta * error}


def _reduce(rows: Rows, outside: Rows) -> dict[str, float]:
    return {f"auroc_{name}": auroc(values, outside[name]) for name, values in rows.items()}


OOD = EncoderMetric(
    name="ood", images=("held_out", "outside"), per_image=_per_image, reduce=_reduce, lower_is_better=False,
    definition="how often an image from outside has the higher KL, or KL + beta AE (minus the ELBO), at z = mu; "
    "0.5 tells nothing",
    parts=("auroc",), normal_prior=True,
)  # fmt: skip
