"""The reconstruction term of a loss: a fixed weight, or one that follows the reconstruction error."""

import math

import jax
import jax.numpy as jnp

from introvae_jax.objectives.base import Terms

ROUNDING = 1 / (12 * 255**2)  # mean squared error of 8-bit rounding: what no reconstruction needs to beat


def reconstruction_term(
    loss_rec: jax.Array, x: jax.Array, z: jax.Array, beta: float, auto_beta: float
) -> tuple[jax.Array, Terms]:
    """The term, and its weight by name if that is automatic: scalars.

    loss_rec: half the squared error summed over an image, averaged over the global batch. x: images [B, ...], z:
    latents [B, Z], both for their shapes. beta: the weight if auto_beta is 0.

    Otherwise the term is auto_beta * Z * log(loss_rec), whose gradient is that of beta * loss_rec with
    beta = auto_beta * Z / loss_rec. It is the Gaussian likelihood with the best variance (sigma-VAE, Rybkin et al.
    2020, arXiv 2006.13202, section 4) of 2 * auto_beta * Z values instead of all of an image's, whose errors are not
    independent. At its optimum for a linear decoder, every latent in use adds half a nat of noise to
    beta * loss_rec: with auto_beta = 0.5 the error is that noise alone, above it the share of the noise falls.
    """
    if auto_beta == 0:
        return beta * loss_rec, {}
    floor = 0.5 * ROUNDING * math.prod(x.shape[1:])
    nats = auto_beta * z.shape[-1]
    return nats * jnp.log(loss_rec + floor), {"beta": nats / (loss_rec + floor)}
