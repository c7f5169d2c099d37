"""The residual encoder and decoder of IntroVAE (Huang et al. 2018, section 4.1 and table 6).

Images are NHWC float32, nominally in [0, 1]. A network for `size` x `size` images has log2(size / 4) channel counts,
one for each halving of the resolution down to 4x4.
"""

from collections.abc import Mapping
from typing import Any

from flax import linen as nn
import jax
import jax.numpy as jnp
from jax.typing import DTypeLike

from introvae_jax.nets import layers

BLOCK_NORMS = ("sum", "branch")


class Block(nn.Module):
    """Residual block: conv - norm - LeakyReLU - conv, plus the input, then LeakyReLU.

    norm_of: input of the second norm: "sum" (of branch and input, IntroVAE) or "branch" (Soft-IntroVAE).
    expand: True applies a 1x1 convolution to the input even if the channel counts are equal.
    """

    features: int
    norm: str
    norm_of: str
    axis_name: str | None
    dtype: DTypeLike
    expand: bool

    @nn.compact
    def __call__(self, x: jax.Array, use_running_average: bool) -> jax.Array:
        norm = lambda name: layers.Norm(self.norm, self.axis_name, name=name)  # noqa: E731
        identity = x
        if self.expand or x.shape[-1] != self.features:
            identity = layers.conv(self.features, 1, self.dtype, name="expand")(x)
        y = layers.conv(self.features, 3, self.dtype, name="conv1")(x)
        y = layers.leaky_relu(norm("norm1")(y, use_running_average))
        y = layers.conv(self.features, 3, self.dtype, name="conv2")(y)
        if self.norm_of == "branch":
            return layers.leaky_relu(norm("norm2")(y, use_running_average) + identity)
        return layers.leaky_relu(norm("norm2")(y + identity, use_running_average))


class Residual(nn.Module):
    """Base class of encoder and decoder.

    channels: channel counts from the full resolution down.
    norm: "batch" (moments of the batch, over `axis_name` too), "group" or "none".
    block_norm: input of a block's second norm, one of BLOCK_NORMS.
    expand_equal: True adds 1x1 convolutions to the blocks between two stages of equal channel counts, as in the
    released IntroVAE code (presets.py).
    sphere: True for latents on the unit sphere, as in AGE: the decoder projects its input, and the encoder is
    deterministic (logvar is minus infinity).
    dtype: of the computation of convolutions; parameters and outputs are float32.
    remat: recompute each block in the backward pass instead of storing its activations.
    """

    channels: tuple[int, ...]
    z_dim: int
    norm: str = "batch"
    block_norm: str = "sum"
    expand_equal: bool = False
    sphere: bool = False
    axis_name: str | None = None
    dtype: DTypeLike = jnp.float32
    remat: bool = False

    def block(self, features: int, size: int, *, between: bool) -> nn.Module:
        """The block at `size` x `size`. between: True if it leads from one of `channels` to the next."""
        cls = nn.remat(Block, static_argnums=(2,)) if self.remat else Block
        return cls(
            features, self.norm, self.block_norm, self.axis_name, self.dtype,
            expand=between and self.expand_equal, name=f"block_{size}",
        )  # fmt: skip


class Encoder(Residual):
    """q(z|x): images [B, S, S, C] -> mu and logvar, each float32 [B, z_dim]."""

    @nn.compact
    def __call__(self, x: jax.Array, use_running_average: bool = False) -> tuple[jax.Array, jax.Array]:
        x = layers.conv(self.channels[0], 5, self.dtype, name="stem")(x.astype(self.dtype))
        x = layers.Norm(self.norm, self.axis_name, name="stem_norm")(x, use_running_average)
        x = layers.average_pool(layers.leaky_relu(x))
        for features in self.channels[1:]:
            x = self.block(features, x.shape[1], between=True)(x, use_running_average)
            x = layers.average_pool(x)
        x = self.block(self.channels[-1], x.shape[1], between=False)(x, use_running_average)
        x = x.reshape(x.shape[0], -1)
        features = self.z_dim if self.sphere else 2 * self.z_dim
        dense = nn.Dense(features, dtype=self.dtype, kernel_init=layers.kernel_init, name="moments")
        moments = dense(x).astype(jnp.float32)
        if self.sphere:
            return layers.on_sphere(moments), jnp.full_like(moments, -jnp.inf)
        mu, logvar = jnp.split(moments, 2, axis=-1)
        return mu, logvar


class Decoder(Residual):
    """p(x|z): latents [B, z_dim] -> images float32 [B, S, S, image_channels], no output activation."""

    image_channels: int = 3

    @nn.compact
    def __call__(self, z: jax.Array, use_running_average: bool = False) -> jax.Array:
        z = layers.on_sphere(z) if self.sphere else z
        features = self.channels[-1]
        dense = nn.Dense(4 * 4 * features, dtype=self.dtype, kernel_init=layers.kernel_init, name="project")
        x = nn.relu(dense(z.astype(self.dtype))).reshape(-1, 4, 4, features)
        for stage, features in enumerate(reversed(self.channels)):
            x = self.block(features, x.shape[1], between=stage > 0)(x, use_running_average)
            x = layers.upsample(x)
        x = self.block(self.channels[0], x.shape[1], between=False)(x, use_running_average)
        x = layers.conv(self.image_channels, 5, self.dtype, use_bias=True, name="predict")(x)
        return x.astype(jnp.float32)


def build(model: Mapping[str, Any], data: Mapping[str, Any], axis_name: str | None) -> tuple[Encoder, Decoder]:
    """Encoder and decoder from the values of `config.model` and `config.data`."""
    options = {
        "channels": tuple(model["channels"]), "z_dim": model["z_dim"], "norm": model["norm"],
        "block_norm": model["block_norm"], "expand_equal": model["expand_equal"], "sphere": model["prior"] == "sphere",
        "dtype": jnp.dtype(model["dtype"]), "remat": model["remat"], "axis_name": axis_name,
    }  # fmt: skip
    return Encoder(**options), Decoder(**options, image_channels=data["channels"])
