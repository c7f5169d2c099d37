"""Fully connected encoder and decoder for 2-D densities (Daniel and Tamar 2021, arXiv 2012.13253, appendix).

Points are float32 [B, 2]. The interface is that of nets/residual.py. There is no batch normalisation.
"""

from collections.abc import Mapping
from typing import Any

from flax import linen as nn
import jax
import jax.numpy as jnp

from introvae_jax.nets import layers

POINT_DIM = 2


class Perceptron(nn.Module):
    """`depth` hidden layers of `width` units with ReLU, then `features` outputs."""

    width: int
    depth: int
    features: int

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        for i in range(self.depth):
            x = nn.relu(nn.Dense(self.width, kernel_init=layers.kernel_init, name=f"hidden_{i}")(x))
        return nn.Dense(self.features, kernel_init=layers.kernel_init, name="output")(x)


class Encoder(nn.Module):
    """q(z|x): points [B, 2] -> mu and logvar, each [B, z_dim]."""

    width: int
    depth: int
    z_dim: int
    axis_name: str | None = None  # unused; part of the interface

    @nn.compact
    def __call__(self, x: jax.Array, use_running_average: bool = False) -> tuple[jax.Array, jax.Array]:
        mu, logvar = jnp.split(Perceptron(self.width, self.depth, 2 * self.z_dim, name="layers")(x), 2, axis=-1)
        return mu, logvar


class Decoder(nn.Module):
    """p(x|z): latents [B, z_dim] -> points [B, 2]."""

    width: int
    depth: int
    z_dim: int
    axis_name: str | None = None

    @nn.compact
    def __call__(self, z: jax.Array, use_running_average: bool = False) -> jax.Array:
        return Perceptron(self.width, self.depth, POINT_DIM, name="layers")(z)


def build(model: Mapping[str, Any], data: Mapping[str, Any], axis_name: str | None) -> tuple[Encoder, Decoder]:
    """Encoder and decoder from the values of `config.model`."""
    options = {"width": model["width"], "depth": model["depth"], "z_dim": model["z_dim"]}
    return Encoder(**options, axis_name=axis_name), Decoder(**options, axis_name=axis_name)
