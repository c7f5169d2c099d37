"""BatchNorm statistics for sampling and encoding, measured afresh for given weights.

Running averages lag the weights, mix the distributions of real and generated images, and do not belong
to the averaged weights at all. So none are kept: when a checkpoint or a picture is due, the moments of a
few forward passes are averaged, the decoder's on samples of the prior, the encoder's on real images.
"""

from collections.abc import Callable, Sequence
from typing import Any

from flax import linen as nn
import jax
import jax.numpy as jnp
import numpy as np

Statistics = dict[str, Any]  # {"encoder": collection "batch_stats", "decoder": the same}


def make_calibrator(encoder: nn.Module, decoder: nn.Module) -> Callable[..., Statistics]:
    """A function (encoder params, decoder params, batches of uint8 images, key) -> statistics.

    One forward pass for each batch [B, S, S, C]; empty collections where the networks have no BatchNorm.
    """
    encoder, decoder = encoder.clone(axis_name=None), decoder.clone(axis_name=None)

    @jax.jit
    def moments(params_e: Any, params_d: Any, images: jax.Array, key: jax.Array) -> Statistics:
        z = jax.random.normal(key, (images.shape[0], decoder.z_dim))
        x = images.astype(jnp.float32) / 255.0
        _, of_encoder = encoder.apply({"params": params_e}, x, mutable="batch_stats")
        _, of_decoder = decoder.apply({"params": params_d}, z, mutable="batch_stats")
        return {"encoder": of_encoder.get("batch_stats", {}), "decoder": of_decoder.get("batch_stats", {})}

    def calibrate(params_e: Any, params_d: Any, batches: Sequence[np.ndarray], key: jax.Array) -> Statistics:
        keys = jax.random.split(key, len(batches))
        passes = [moments(params_e, params_d, x, k) for x, k in zip(batches, keys, strict=True)]
        return pool(jax.device_get(passes))

    return calibrate


def pool(passes: Sequence[Statistics]) -> Statistics:
    """Moments of equally large batches -> moments of their union: the variance gains that of the means."""
    stacked = jax.tree.map(lambda *leaves: np.stack(leaves).astype(np.float64), *passes)

    def union(node: Any) -> Any:
        if "mean" in node and "var" in node:
            mean, var = node["mean"], node["var"]
            return {"mean": np.float32(mean.mean(0)), "var": np.float32(var.mean(0) + mean.var(0))}
        return {name: union(child) for name, child in node.items()}

    return union(stacked)
