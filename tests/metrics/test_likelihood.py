"""The bound of log p(x) on a linear decoder, where p(x) and the posterior are Gaussians in closed form."""

import math

import numpy as np
import pytest
from scipy import stats

from introvae_jax.metrics import likelihood

BETA, DIMS, LATENTS, BATCH = 4.0, 6, 3, 5
RNG = np.random.default_rng(0)
# Orthogonal columns: the posterior's covariance is diagonal, as the encoder's.
MATRIX = np.linalg.qr(RNG.standard_normal((DIMS, LATENTS)))[0] * [0.5, 1.0, 1.5]
OFFSET = RNG.standard_normal(DIMS)
X = OFFSET + RNG.standard_normal((BATCH, LATENTS)) @ MATRIX.T + RNG.standard_normal((BATCH, DIMS)) / BETA**0.5
EXACT = stats.multivariate_normal(OFFSET, MATRIX @ MATRIX.T + np.eye(DIMS) / BETA).logpdf(X)


def posterior():
    precision = 1 + BETA * np.square(MATRIX).sum(axis=0)
    mu = BETA * (X - OFFSET) @ MATRIX / precision
    return mu, np.tile(-np.log(precision), (BATCH, 1))


def rough():
    mu, logvar = posterior()
    return 0.7 * mu, logvar + 0.8


def weights(encoder, num, seed=1):
    mu, logvar = encoder
    for eps in np.random.default_rng(seed).standard_normal((num, BATCH, LATENTS)):
        z = mu + np.exp(logvar / 2) * eps
        yield likelihood.log_weights(X, OFFSET + z @ MATRIX.T, z, mu, logvar, BETA)


def test_with_the_true_posterior_one_sample_is_exact():
    np.testing.assert_allclose(likelihood.combine(weights(posterior(), 1)), EXACT, rtol=1e-12)


def test_the_bound_rises_with_samples_to_the_exact_value():
    few = {k: np.mean([likelihood.combine(weights(rough(), k, seed)) for seed in range(300)]) for k in (1, 5, 25)}
    assert few[1] + 0.2 < few[5] < few[25] < EXACT.mean() + 0.05
    np.testing.assert_allclose(likelihood.combine(weights(rough(), 40_000)), EXACT, atol=0.05)


def test_the_mean_of_one_sample_is_the_elbo():
    # log p(x) - KL(q || posterior), between two diagonal Gaussians.
    (mu, logvar), (true_mu, true_logvar) = rough(), posterior()
    ratio = np.exp(logvar - true_logvar)
    kl = 0.5 * np.sum(ratio + (mu - true_mu) ** 2 / np.exp(true_logvar) - 1 - np.log(ratio), axis=-1)
    found = np.mean(list(weights(rough(), 40_000)), axis=0)
    np.testing.assert_allclose(found, EXACT - kl, atol=0.05)


def test_weights_by_scipys_densities():
    rng = np.random.default_rng(2)
    x, copies = rng.uniform(size=(2, 4, 3, 3, 2))
    z, mu, logvar = rng.standard_normal((3, 4, 5))
    expected = (
        stats.norm(copies, 0.1).logpdf(x).sum(axis=(1, 2, 3))
        + stats.norm(0, 1).logpdf(z).sum(axis=1)
        - stats.norm(mu, np.exp(logvar / 2)).logpdf(z).sum(axis=1)
    )
    np.testing.assert_allclose(likelihood.log_weights(x, copies, z, mu, logvar, beta=100.0), expected, rtol=1e-12)


def test_combining_is_the_log_of_a_mean_without_overflow():
    some = np.array([[-1e5, 700.0, -3.0], [-1e5 + 1, 710.0, -np.inf]])
    expected = [-1e5 + math.log((1 + math.e) / 2), 710 + math.log((1 + math.exp(-10)) / 2), -3 - math.log(2)]
    np.testing.assert_allclose(likelihood.combine(some), expected, rtol=1e-14)
    np.testing.assert_allclose(likelihood.combine(iter(some)), expected, rtol=1e-14)


def test_noise_over_all_levels_takes_eight_bits():
    # Density 1 on [0, 1] is the uniform distribution over 256 levels; density 2, half the range, is a bit less.
    assert likelihood.bits_per_dim(0.0, 12) == 8
    assert likelihood.bits_per_dim(12 * math.log(2), 12) == pytest.approx(7)


def test_wrong_arguments_are_refused():
    z = np.zeros((2, 3))
    x = np.zeros((2, 4))
    with pytest.raises(ValueError, match="have inconsistent shapes"):
        likelihood.log_weights(x, x[:1], z, z, z, 1.0)
    with pytest.raises(ValueError, match="have inconsistent shapes"):
        likelihood.log_weights(x, x, z, z, z[:, :1], 1.0)
    with pytest.raises(ValueError, match=r"beta=0\.0"):
        likelihood.log_weights(x, x, z, z, z, 0.0)
    with pytest.raises(ValueError, match="no weights"):
        likelihood.combine([])
