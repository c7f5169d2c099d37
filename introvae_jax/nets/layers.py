"""Layers shared by the networks. Arrays are NHWC; statistics are float32 of shape [C]."""

from typing import Any

from flax import linen as nn
import jax
import jax.numpy as jnp

NORMS = ("batch", "group", "none")
GROUP_SIZE = 8  # channels per group of norm="group"

# Uniform in +-1/sqrt(fan_in): what the released model was initialised with.
kernel_init = nn.initializers.variance_scaling(1 / 3, "fan_in", "uniform")


def scale_shift(x: jax.Array, scale: jax.Array, shift: jax.Array) -> jax.Array:
    """x * scale + shift in float32, for x [B, H, W, C] and scale, shift of shape [C] or [B, C]; in x's type."""
    axes = (x.ndim - 1,) if scale.ndim == 1 else (0, x.ndim - 1)
    scale, shift = (jax.lax.broadcast_in_dim(v, x.shape, axes) for v in (scale, shift))
    return (x.astype(jnp.float32) * scale + shift).astype(x.dtype)


class BatchNorm(nn.Module):
    """Batch normalisation (Ioffe and Szegedy 2015, arXiv 1502.03167) that keeps no running average.

    By default it normalises with the moments of the batch at hand, taken over `axis_name` too, and
    reports them in the collection "batch_stats" whenever that is mutable. With `stored=True` it
    normalises with the moments found there. How reported moments become stored ones is decided in
    one place, `training/calibrate.py`.

    Moments stay rank-1 on purpose: with keepdims the differentiated and the plain forward pass
    become different programs, and XLA no longer merges the step's two loss computations.
    """

    axis_name: str | None = None
    epsilon: float = 1e-5

    @nn.compact
    def __call__(self, x: jax.Array, stored: bool = False) -> jax.Array:
        channels = x.shape[-1]
        scale = self.param("scale", nn.initializers.ones, (channels,))
        bias = self.param("bias", nn.initializers.zeros, (channels,))
        if stored:
            mean = self.get_variable("batch_stats", "mean")
            var = self.get_variable("batch_stats", "var")
        else:
            axes = tuple(range(x.ndim - 1))
            xf = x.astype(jnp.float32)
            mean, mean_sq = jnp.mean(xf, axes), jnp.mean(xf * xf, axes)
            if self.axis_name is not None:
                mean, mean_sq = jax.lax.pmean((mean, mean_sq), self.axis_name)
            var = jnp.maximum(mean_sq - mean * mean, 0.0)
            if self.is_mutable_collection("batch_stats"):
                self.put_variable("batch_stats", "mean", mean)
                self.put_variable("batch_stats", "var", var)
        gain = scale * jax.lax.rsqrt(var + self.epsilon)
        return scale_shift(x, gain, bias - mean * gain)


class GroupNorm(nn.Module):
    """Group normalisation (Wu and He 2018, arXiv 1803.08494) over groups of GROUP_SIZE channels.

    Moments keep no singleton axes, for the reason given at BatchNorm.
    """

    epsilon: float = 1e-5

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        channels = x.shape[-1]
        scale = self.param("scale", nn.initializers.ones, (channels,))
        bias = self.param("bias", nn.initializers.zeros, (channels,))
        groups = x.astype(jnp.float32).reshape(x.shape[0], -1, channels // GROUP_SIZE, GROUP_SIZE)
        mean, mean_sq = jnp.mean(groups, (1, 3)), jnp.mean(groups * groups, (1, 3))
        inverse_std = jax.lax.rsqrt(jnp.maximum(mean_sq - mean * mean, 0.0) + self.epsilon)
        mean, inverse_std = (jnp.repeat(v, GROUP_SIZE, axis=1) for v in (mean, inverse_std))
        gain = scale[None] * inverse_std
        return scale_shift(x, gain, bias[None] - mean * gain)


class Norm(nn.Module):
    """The normalisation named by `kind`, one of NORMS."""

    kind: str
    axis_name: str | None = None

    @nn.compact
    def __call__(self, x: jax.Array, stored: bool = False) -> jax.Array:
        if self.kind == "batch":
            return BatchNorm(self.axis_name)(x, stored)
        return GroupNorm()(x) if self.kind == "group" else x


def conv(features: int, size: int, dtype: Any, use_bias: bool = False, name: str | None = None) -> nn.Conv:
    """A stride-1 convolution with a `size` x `size` kernel that keeps height and width."""
    return nn.Conv(
        features, (size, size), padding="SAME", use_bias=use_bias, dtype=dtype,
        kernel_init=kernel_init, name=name,
    )  # fmt: skip


def on_sphere(z: jax.Array) -> jax.Array:
    """Latents [B, Z] at unit length."""
    return z * jax.lax.rsqrt(jnp.sum(jnp.square(z), axis=-1, keepdims=True) + 1e-12)


def leaky_relu(x: jax.Array) -> jax.Array:
    """max(x, 0.2 x), the activation of every convolution."""
    return jnp.where(x >= 0, x, 0.2 * x)


def average_pool(x: jax.Array) -> jax.Array:
    """Mean of each 2x2 square: [B, H, W, C] -> [B, H/2, W/2, C]."""
    batch, height, width, channels = x.shape
    x = x.reshape(batch, height // 2, 2, width // 2, 2, channels)
    return 0.25 * (x[:, :, 0, :, 0] + x[:, :, 0, :, 1] + x[:, :, 1, :, 0] + x[:, :, 1, :, 1])


def upsample(x: jax.Array) -> jax.Array:
    """Nearest neighbour, twice the size: [B, H, W, C] -> [B, 2H, 2W, C]."""
    batch, height, width, channels = x.shape
    x = jnp.broadcast_to(x[:, :, None, :, None, :], (batch, height, 2, width, 2, channels))
    return x.reshape(batch, 2 * height, 2 * width, channels)
