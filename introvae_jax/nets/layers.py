"""Layers shared by the networks. Arrays are NHWC; statistics are float32 of shape [C]."""

from flax import linen as nn
import jax
import jax.numpy as jnp
from jax.typing import DTypeLike

NORMS = ("batch", "group", "none")
GROUP_SIZE = 8  # channels per group of norm="group"

# Uniform in +-1/sqrt(fan_in), the initialisation of the released model.
kernel_init = nn.initializers.variance_scaling(1 / 3, "fan_in", "uniform")


def _deviations(x: jax.Array, mean: jax.Array) -> jax.Array:
    """Subtracts a mean of shape [C] or [B, C] from x [B, ..., C], in float32."""
    return x.astype(jnp.float32) - _spread(mean, x.shape)


def _spread(v: jax.Array, shape: tuple[int, ...]) -> jax.Array:
    """Broadcasts v of shape [C] or [B, C] to `shape`, [B, ..., C]."""
    return jax.lax.broadcast_in_dim(v, shape, (len(shape) - 1,) if v.ndim == 1 else (0, len(shape) - 1))


def moments(x: jax.Array, axes: tuple[int, ...]) -> tuple[jax.Array, jax.Array]:
    """Mean and biased variance over `axes`, in float32.

    The variance is the mean of squared deviations. The alternative, the mean of squares minus the squared mean, loses
    digits where the mean is large, and so does its gradient, a difference of two large terms.
    """
    mean = jnp.mean(x.astype(jnp.float32), axes)
    # The derivative with respect to this mean is exactly zero.
    return mean, jnp.mean(jnp.square(_deviations(x, jax.lax.stop_gradient(mean))), axes)


def normalize(x: jax.Array, mean: jax.Array, gain: jax.Array, bias: jax.Array) -> jax.Array:
    """(x - mean) * gain + bias for x [B, ..., C]; the other arguments have shape [C] or [B, C].

    Computed in float32, returned in x's dtype. Computed as x * gain + (bias - mean * gain), so that the backward pass
    stores only x and not the deviations.
    """
    shift = bias - mean * gain
    return (x.astype(jnp.float32) * _spread(gain, x.shape) + _spread(shift, x.shape)).astype(x.dtype)


class BatchNorm(nn.Module):
    """Batch normalisation (Ioffe and Szegedy 2015, arXiv 1502.03167) without running averages.

    By default it normalises with the moments of the batch, over `axis_name` too, and writes them to the collection
    "batch_stats" if that is mutable. With `use_running_average=True` it normalises with the moments in "batch_stats".
    `training/calibrate.py` computes the stored moments from the written ones.

    Moments have rank 1 on purpose: with keepdims, the differentiated and the plain forward pass become different
    programs, and XLA no longer merges the two loss computations of the step.
    """

    axis_name: str | None = None
    epsilon: float = 1e-5

    @nn.compact
    def __call__(self, x: jax.Array, use_running_average: bool = False) -> jax.Array:
        channels = x.shape[-1]
        scale = self.param("scale", nn.initializers.ones, (channels,))
        bias = self.param("bias", nn.initializers.zeros, (channels,))
        if use_running_average:
            mean: jax.Array = self.get_variable("batch_stats", "mean")
            var: jax.Array = self.get_variable("batch_stats", "var")
        else:
            mean, var = self._moments(x)
            if self.is_mutable_collection("batch_stats"):
                self.put_variable("batch_stats", "mean", mean)
                self.put_variable("batch_stats", "var", var)
        return normalize(x, mean, scale * jax.lax.rsqrt(var + self.epsilon), bias)

    def _moments(self, x: jax.Array) -> tuple[jax.Array, jax.Array]:
        """Mean and variance of the global batch, each [C].

        Devices combine their moments in one all-reduce, because the next layer waits for every all-reduce: the variance
        is the mean of the devices' variances plus the variance of their means.
        """
        mean, var = moments(x, tuple(range(x.ndim - 1)))
        if self.axis_name is None:
            return mean, var
        whole, var, mean_sq = jax.lax.pmean((mean, var, mean * mean), self.axis_name)
        return whole, var + jnp.maximum(mean_sq - whole * whole, 0.0)


class GroupNorm(nn.Module):
    """Group normalisation (Wu and He 2018, arXiv 1803.08494) over groups of GROUP_SIZE channels.

    Moments have no singleton axes, for the same reason as in BatchNorm. The moments of a group are computed from those
    of its channels.
    """

    epsilon: float = 1e-5

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        channels = x.shape[-1]
        scale = self.param("scale", nn.initializers.ones, (channels,))
        bias = self.param("bias", nn.initializers.zeros, (channels,))
        means, variances = (v.reshape(x.shape[0], -1, GROUP_SIZE) for v in moments(x, tuple(range(1, x.ndim - 1))))
        mean = jnp.mean(means, 2)
        deviations = means - jax.lax.broadcast_in_dim(mean, means.shape, (0, 1))
        var = jnp.mean(variances + jnp.square(deviations), 2)
        mean, inverse_std = (jnp.repeat(v, GROUP_SIZE, axis=1) for v in (mean, jax.lax.rsqrt(var + self.epsilon)))
        return normalize(x, mean, scale[None] * inverse_std, bias[None])


class Norm(nn.Module):
    """The normalisation named by `kind`, one of NORMS."""

    kind: str
    axis_name: str | None = None

    @nn.compact
    def __call__(self, x: jax.Array, use_running_average: bool = False) -> jax.Array:
        if self.kind == "batch":
            return BatchNorm(self.axis_name)(x, use_running_average)
        return GroupNorm()(x) if self.kind == "group" else x


def conv(features: int, size: int, dtype: DTypeLike, use_bias: bool = False, name: str | None = None) -> nn.Conv:
    """A stride-1 convolution with a `size` x `size` kernel that keeps height and width."""
    return nn.Conv(
        features, (size, size), padding="SAME", use_bias=use_bias, dtype=dtype,
        kernel_init=kernel_init, name=name,
    )  # fmt: skip


def on_sphere(z: jax.Array) -> jax.Array:
    """Scales latents [B, Z] to unit length."""
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
    """Nearest-neighbour upsampling by 2: [B, H, W, C] -> [B, 2H, 2W, C]."""
    batch, height, width, channels = x.shape
    x = jnp.broadcast_to(x[:, :, None, :, None, :], (batch, height, 2, width, 2, channels))
    return x.reshape(batch, 2 * height, 2 * width, channels)
