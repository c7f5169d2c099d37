"""A lower bound of log p(x) by importance sampling, in nats.

Model: z ~ N(0, I), x = D(z) + noise of variance 1/beta per pixel. Proposals: z ~ q(z|x) = N(mu, exp(logvar)), the
encoder. With this beta, the objective of a VAE, KL + beta AE, is minus the bound with one sample, up to constants.
Source: Burda et al. 2016 (arXiv 1509.00519), eq. 8. numpy, float64.
"""

from collections.abc import Iterable
import math

import numpy as np

from introvae_jax.metrics.base import Encoded, EncoderMetric

IMPORTANCE_SAMPLES = 100  # latents per image


def log_weights(
    x: np.ndarray, copies: np.ndarray, z: np.ndarray, mu: np.ndarray, logvar: np.ndarray, beta: float
) -> np.ndarray:
    """log p(x|z) + log p(z) - log q(z|x) with all constants, [B] in nats, for one sample of z per image.

    x, copies: images [B, ...] and decoded z, in the range of the density. z, mu, logvar: [B, Z].
    beta > 0: one over the noise variance per pixel. The mean over samples of z is the ELBO; `combine` is a tighter
    bound.
    Raises ValueError for inconsistent shapes and for beta <= 0.
    """
    if x.shape != copies.shape or len(x) != len(z) or not z.shape == mu.shape == logvar.shape:
        shapes = ", ".join(str(array.shape) for array in (x, copies, z, mu, logvar))
        raise ValueError(f"x, copies, z, mu, logvar have inconsistent shapes: {shapes}")
    if not beta > 0:
        raise ValueError(f"beta={beta}: must be positive")
    x, copies, z, mu, logvar = (np.asarray(array, np.float64) for array in (x, copies, z, mu, logvar))
    difference = (x - copies).reshape(len(x), -1)
    likelihood = _log_normal(difference, -math.log(beta))
    return likelihood + _log_normal(z, 0.0) - _log_normal(z - mu, logvar)


def combine(weights: Iterable[np.ndarray]) -> np.ndarray:
    """log of the mean of exp(weights) over K samples, [B] in nats. Its expectation rises with K to log p(x).

    weights: K arrays [B] of `log_weights`: an array [K, B], or an iterable, of which one array at a time is in memory.
    Raises ValueError if there are none.
    """
    total, count = np.full((), -np.inf), 0
    for one in weights:
        total, count = np.logaddexp(total, one), count + 1
    if not count:
        raise ValueError("no weights: at least 1 sample is needed")
    return total - math.log(count)


def bits_per_dim(nats: np.ndarray | float, dims: int) -> np.ndarray:
    """Bits per pixel and channel of images of 256 grey levels, from log densities `nats` over values in [0, 1].

    dims: H * W * C. A grey level is 1/256 of the range, hence the additional 8 bits. The value bounds the code length
    of the grey levels only if uniform noise of the width of a level was added to x (Theis et al. 2016, arXiv
    1511.01844, section 3.1).
    """
    return 8.0 - np.asarray(nats, np.float64) / (dims * math.log(2))


def kl_to_prior(mu: np.ndarray, logvar: np.ndarray) -> np.ndarray:
    """KL(N(mu, exp(logvar)) || N(0, I)) of mu, logvar [B, Z]: [B] in nats, the first term of eq. 11 of IntroVAE."""
    mu, logvar = np.asarray(mu, np.float64), np.asarray(logvar, np.float64)
    return 0.5 * np.sum(mu**2 + np.exp(logvar) - 1 - logvar, axis=1)


def _log_normal(difference: np.ndarray, logvar: np.ndarray | float) -> np.ndarray:
    """log N(difference; 0, exp(logvar)) summed over the last axis."""
    return -0.5 * np.sum(np.square(difference) * np.exp(-logvar) + logvar + math.log(2 * math.pi), axis=-1)


def _per_image(batch: Encoded) -> dict[str, np.ndarray]:
    weights, shape = [], (IMPORTANCE_SAMPLES, batch.mu.shape[1])
    each = (np.random.default_rng((batch.seed, batch.first + i)) for i in range(len(batch.x)))
    for eps in np.stack([rng.standard_normal(shape, np.float32) for rng in each], axis=1):
        z = batch.mu + np.exp(0.5 * batch.logvar) * eps
        weights.append(log_weights(batch.x, batch.decode(z), z, batch.mu, batch.logvar, batch.beta))
    bound = combine(weights)
    return {
        "elbo": np.mean(weights, axis=0),
        f"iw_bound_{IMPORTANCE_SAMPLES}": bound,
        "bits_per_dim": bits_per_dim(bound, batch.x[0].size),
    }


LIKELIHOOD = EncoderMetric(
    name="likelihood", default_count=1_000, per_image=_per_image,
    definition=f"nats, {IMPORTANCE_SAMPLES} importance samples, noise of variance 1/{{beta:g}} a value",
    lower_is_better={"elbo": False, f"iw_bound_{IMPORTANCE_SAMPLES}": False, "bits_per_dim": True},
    parts=("elbo", "iw_bound", "bits_per_dim", "nll"), normal_prior=True, seeded=True,
)  # fmt: skip
