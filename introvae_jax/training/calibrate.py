"""BatchNorm statistics for sampling and encoding, measured with fixed weights.

Running averages are not used: they lag behind the weights, mix the distributions of real and generated images, and do
not match the averaged (EMA) weights. Instead, each checkpoint and each picture averages the moments of a few forward
passes. The training step normalises each kind of pass separately, so each kind has its own statistics: the encoder on
real images, the decoder on prior samples, and the decoder on latents of real images. One shared set for the two kinds
of decoder passes costs 2 dB in the reconstructions of the digits (docs/digits.md).
"""

from collections.abc import Callable, Sequence

from flax import linen as nn
import jax
import jax.numpy as jnp
import ml_collections
import numpy as np

from introvae_jax.data.source import Source
from introvae_jax.objectives import terms
from introvae_jax.training.state import State
from introvae_jax.training.step import CALIBRATION, draw_key
from introvae_jax.trees import PyTree

# "batch_stats" collections by kind of pass: "encoder", "decoder" (prior samples), "decoder_rec" (latents of images).
Statistics = dict[str, PyTree]


class Calibration:
    """Measures the statistics of a run on `config.checkpoint.calibration_batches` batches of training images.

    rows: indices of these images, [batches, B]; the same at every checkpoint.
    """

    def __init__(self, config: ml_collections.ConfigDict, networks: tuple[nn.Module, nn.Module], train: Source):
        self._train, self._has_batch_norm = train, config.model.norm == "batch"
        self._calibrate = make_calibrator(*networks)
        shape = config.checkpoint.calibration_batches, config.batch_size
        order = np.random.default_rng(config.seed).permutation(len(train))  # images may be sorted by class
        self.rows = order[np.arange(shape[0] * shape[1]) % len(order)].reshape(shape)

    def statistics(self, state: State, *weights: str) -> dict[str, Statistics]:
        """BatchNorm statistics by kind of weights. weights: "ema" (averaged), "raw" or both."""
        if not self._has_batch_norm:
            return {name: {} for name in weights}
        images = [self._train[rows] for rows in self.rows]
        params = {
            "ema": (state.encoder.ema, state.decoder.ema),
            "raw": (state.encoder.params, state.decoder.params),
        }
        key = draw_key(state, CALIBRATION)
        return {name: self._calibrate(*params[name], images, key) for name in weights}


def make_calibrator(encoder: nn.Module, decoder: nn.Module) -> Callable[..., Statistics]:
    """Returns a function (encoder params, decoder params, batches of uint8 images, key) -> statistics.

    The function makes one pass of each kind for each batch [B, S, S, C]. Collections are empty for networks without
    BatchNorm.
    """
    encoder, decoder = encoder.clone(axis_name=None), decoder.clone(axis_name=None)

    @jax.jit
    def moments(params_e: PyTree, params_d: PyTree, images: jax.Array, key: jax.Array) -> Statistics:
        key_prior, key_eps = jax.random.split(key)
        x = images.astype(jnp.float32) / 255.0
        zp, eps = (jax.random.normal(k, (images.shape[0], decoder.z_dim)) for k in (key_prior, key_eps))
        (mu, logvar), of_encoder = encoder.apply({"params": params_e}, x, mutable="batch_stats")
        passes = {"decoder": zp, "decoder_rec": terms.reparameterize(mu, logvar, eps)}
        reported = {
            name: decoder.apply({"params": params_d}, z, mutable="batch_stats")[1] for name, z in passes.items()
        }
        return {name: kind.get("batch_stats", {}) for name, kind in {"encoder": of_encoder, **reported}.items()}

    def calibrate(params_e: PyTree, params_d: PyTree, batches: Sequence[np.ndarray], key: jax.Array) -> Statistics:
        keys = jax.random.split(key, len(batches))
        passes = [moments(params_e, params_d, x, k) for x, k in zip(batches, keys, strict=True)]
        return pool(jax.device_get(passes))

    return calibrate


def pool(passes: Sequence[Statistics]) -> Statistics:
    """Pools the moments of batches of one size: mean of the means; mean of the variances + variance of the means."""
    stacked = jax.tree.map(lambda *leaves: np.stack(leaves).astype(np.float64), *passes)

    def union(node: PyTree) -> PyTree:
        if "mean" in node and "var" in node:
            mean, var = node["mean"], node["var"]
            return {"mean": np.float32(mean.mean(0)), "var": np.float32(var.mean(0) + mean.var(0))}
        return {name: union(child) for name, child in node.items()}

    return union(stacked)
