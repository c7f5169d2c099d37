"""The reconstruction term of a loss: a fixed weight, or one that follows the reconstruction error."""

import math

import jax
import jax.numpy as jnp

from introvae_jax.objectives.base import Terms

ROUNDING = 1 / (12 * 255**2)  # mean squared error of 8-bit rounding; keeps the weight finite at an error of 0


def reconstruction_term(loss_rec: jax.Array, x: jax.Array, beta: float, auto_beta: float) -> tuple[jax.Array, Terms]:
    """The term, a scalar, and the weight under the name "beta" if it is automatic.

    loss_rec: half the squared error summed over an image, averaged over the global batch. x: images [B, H, W, C] in
    [0, 1], for their shape. beta: the weight where auto_beta is 0.

    Otherwise the term is auto_beta * log(loss_rec). Its gradient is that of beta * loss_rec with
    beta = auto_beta / loss_rec: the weighted error is auto_beta nats at all times. With half the number of an image's
    values for auto_beta this is the Gaussian likelihood with the best variance (sigma-VAE, Rybkin et al. 2020, arXiv
    2006.13202, section 4); fewer nats count fewer values, as errors of an image are far from independent.
    """
    if auto_beta == 0:
        return beta * loss_rec, {}
    error = loss_rec + 0.5 * ROUNDING * math.prod(x.shape[1:])
    return auto_beta * jnp.log(error), {"beta": auto_beta / error}
