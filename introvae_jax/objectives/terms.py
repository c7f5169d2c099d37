"""The terms of the objectives. Every function returns one value per example, [B], except `reparameterize`.

An example is an image [H, W, C] or, for 2-D densities, a point [2]: x is [B, ...].
"""

import jax
import jax.numpy as jnp
import numpy as np

Array = jax.Array | np.ndarray


def kl(mu: Array, logvar: Array) -> jax.Array:
    """KL(N(mu, exp(logvar)) || N(0, I)) in nats, summed over the latent dimensions.

    mu, logvar: [B, Z]. Returns [B], at least 0 up to rounding.
    Source: Kingma and Welling 2014 (arXiv 1312.6114), appendix B; IntroVAE eq. 8 without its sum over examples.
    """
    return 0.5 * jnp.sum(jnp.square(mu) + jnp.exp(logvar) - 1.0 - logvar, axis=-1)


def reconstruction(x: Array, xr: Array) -> jax.Array:
    """Half the squared error, summed over pixels and channels.

    x, xr: images [B, H, W, C] in the same range. Returns [B].
    Source: IntroVAE eq. 9. The released code drops the factor 1/2.
    """
    return 0.5 * jnp.sum(jnp.square(xr - x), axis=tuple(range(1, x.ndim)))


def absolute_error(x: jax.Array, xr: jax.Array) -> jax.Array:
    """Absolute error, averaged over pixels and channels.

    x, xr: images [B, H, W, C] in the same range. Returns [B].
    Source: AGE (Ulyanov et al. 2018) section 3.3, where images are in [-1, 1]: half the weight there.
    """
    return jnp.mean(jnp.abs(xr - x), axis=tuple(range(1, x.ndim)))


def cosine(a: jax.Array, b: jax.Array) -> jax.Array:
    """Cosine of the angle between latents a and b, both [B, Z]. Returns [B]."""
    return jnp.sum(a * b, axis=-1) / (jnp.linalg.norm(a, axis=-1) * jnp.linalg.norm(b, axis=-1))


def reparameterize(mu: jax.Array, logvar: jax.Array, eps: jax.Array) -> jax.Array:
    """A sample of N(mu, exp(logvar)) from standard normal noise `eps`; all [B, Z]."""
    return mu + jnp.exp(0.5 * logvar) * eps
