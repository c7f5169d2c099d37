"""BatchNorm statistics for sampling and encoding, measured afresh for given weights.

Running averages lag the weights, mix the distributions of real and generated images, and do not belong
to the averaged weights at all. So none are kept: when a checkpoint or a picture is due, the moments of a
few forward passes are averaged. As the step normalises each kind of pass by itself, each has statistics of
its own: the encoder's on real images, the decoder's on samples of the prior, and the decoder's on the latents
of real images. With one set for both of the decoder's, the digits' reconstructions lose 2 dB (docs/digits.md).
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

# Collections "batch_stats" by kind of pass: "encoder", "decoder" (of the prior) and "decoder_rec" (of real images).
Statistics = dict[str, PyTree]


class Calibration:
    """The statistics of a run, measured on `config.checkpoint.calibration_batches` batches of training images.

    rows: numbers of these images, [batches, B]; the same at every checkpoint.
    """

    def __init__(self, config: ml_collections.ConfigDict, networks: tuple[nn.Module, nn.Module], train: Source):
        self._train, self._has_batch_norm = train, config.model.norm == "batch"
        self._calibrate = make_calibrator(*networks)
        shape = config.checkpoint.calibration_batches, config.batch_size
        order = np.random.default_rng(config.seed).permutation(len(train))  # images may be sorted by class
        self.rows = order[np.arange(shape[0] * shape[1]) % len(order)].reshape(shape)

    def statistics(self, state: State, *weights: str) -> dict[str, Statistics]:
        """BatchNorm statistics under the `weights` named: "ema" (averaged), "raw" or both."""
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
    """A function (encoder params, decoder params, batches of uint8 images, key) -> statistics.

    One pass of each kind for each batch [B, S, S, C]; empty collections where the networks have no BatchNorm.
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
    """Moments of equally large batches -> moments of their union: the variance gains that of the means."""
    stacked = jax.tree.map(lambda *leaves: np.stack(leaves).astype(np.float64), *passes)

    def union(node: PyTree) -> PyTree:
        if "mean" in node and "var" in node:
            mean, var = node["mean"], node["var"]
            return {"mean": np.float32(mean.mean(0)), "var": np.float32(var.mean(0) + mean.var(0))}
        return {name: union(child) for name, child in node.items()}

    return union(stacked)
