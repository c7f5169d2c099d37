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

    Otherwise the term is auto_beta * N / 2 * log(MSE) for N values an image, whose gradient is that of beta * loss_rec
    with beta = auto_beta / MSE. auto_beta = 1 is the Gaussian likelihood with the best variance (sigma-VAE, Rybkin et
    al. 2020, arXiv 2006.13202, section 4). Below 1 it is that of auto_beta * N values: errors of neighbouring pixels
    are not independent.
    """
    if auto_beta == 0:
        return beta * loss_rec, {}
    values = math.prod(x.shape[1:])
    squared_error = 2 / values * loss_rec + ROUNDING
    return auto_beta * values / 2 * jnp.log(squared_error), {"beta": auto_beta / squared_error}
