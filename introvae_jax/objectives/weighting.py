"""The reconstruction term of a loss: a fixed weight, or one that follows the reconstruction error."""

from collections.abc import Mapping
import math
from typing import Any

import jax
import jax.numpy as jnp

from introvae_jax.objectives.base import Terms

ROUNDING = 1 / (12 * 255**2)  # mean squared error of 8-bit rounding; keeps the weight finite at an error of 0


def key(settings: Mapping[str, Any]) -> str:
    """The key of config.objective that sets the weight of the reconstruction term."""
    return "auto_beta" if settings.get("auto_beta") else "beta"


def reconstruction_term(loss_rec: jax.Array, x: jax.Array, beta: float, auto_beta: float) -> tuple[jax.Array, Terms]:
    """The term, a scalar, and the weight under the name "beta" if it is automatic.

    loss_rec: half the squared error summed over an image, averaged over the global batch. x: images [B, H, W, C] in
    [0, 1], for their shape. beta: the weight where auto_beta is 0.

    Otherwise the term is nats * log(loss_rec), nats = auto_beta * sqrt(N), for N values an image. Its gradient is that
    of beta * loss_rec with beta = nats / loss_rec: the weighted error stays at that many nats. With nats = N / 2 this
    is the Gaussian likelihood with the best variance (sigma-VAE, Rybkin et al. 2020, arXiv 2006.13202, section 4), for
    N independent errors. Those of an image are not independent; the root is measured (docs/objectives.md).
    """
    if auto_beta == 0:
        return beta * loss_rec, {}
    values = math.prod(x.shape[1:])
    nats, error = auto_beta * math.sqrt(values), loss_rec + 0.5 * ROUNDING * values
    return nats * jnp.log(error), {"beta": nats / error}
