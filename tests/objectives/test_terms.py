"""The terms against closed forms worked out by hand and against sampling."""

import jax
import jax.numpy as jnp
import numpy as np

from introvae_jax.objectives import terms


def test_kl_of_hand_made_moments():
    mu = jnp.array([[0.0, 0.0], [1.0, -2.0], [0.0, 0.0]])
    logvar = jnp.array([[0.0, 0.0], [0.0, 0.0], [np.log(4.0), 0.0]])
    # (1 + 4) / 2, and (4 - 1 - log 4) / 2.
    np.testing.assert_allclose(terms.kl(mu, logvar), [0.0, 2.5, 1.5 - np.log(2.0)], rtol=1e-6, atol=1e-7)


def test_kl_is_the_expected_log_ratio_of_densities():
    mu, logvar = jnp.array([[0.7, -0.3]]), jnp.array([[0.4, -1.1]])
    z = mu + jnp.exp(logvar / 2) * jax.random.normal(jax.random.key(0), (400_000, 2))
    log_q = jax.scipy.stats.norm.logpdf(z, mu, jnp.exp(logvar / 2)).sum(-1)
    log_p = jax.scipy.stats.norm.logpdf(z).sum(-1)
    np.testing.assert_allclose(jnp.mean(log_q - log_p), terms.kl(mu, logvar)[0], atol=0.01)


def test_kl_is_per_example_and_not_negative():
    mu, logvar = jax.random.normal(jax.random.key(0), (2, 50, 7))
    kl = terms.kl(mu, logvar)
    assert kl.shape == (50,)
    assert float(kl.min()) > 0


def test_reconstruction_is_half_the_sum_over_pixels():
    x = jnp.zeros((2, 4, 4, 3))
    xr = jnp.stack([jnp.full((4, 4, 3), 0.5), jnp.full((4, 4, 3), -1.0)])
    np.testing.assert_allclose(terms.reconstruction(x, xr), [0.5 * 48 * 0.25, 0.5 * 48])


def test_reparameterize_has_the_moments_it_was_given():
    eps = jax.random.normal(jax.random.key(0), (200_000, 1))
    z = terms.reparameterize(jnp.array([[3.0]]), jnp.array([[np.log(0.25)]]), eps)
    np.testing.assert_allclose([z.mean(), z.std()], [3.0, 0.5], atol=0.01)
