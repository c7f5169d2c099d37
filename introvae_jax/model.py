"""The public API: a trained model on numpy images.

    model = introvae_jax.load("runs/digits")
    images = model.sample(16, seed=0)              # float32 [16, 32, 32, 1] in [0, 1]
    mu, logvar = model.encode(images)              # float32 [16, z_dim] each
    copies = model.reconstruct(images)

Each image is treated by itself: BatchNorm uses the statistics stored with the checkpoint.
"""

from collections.abc import Callable, Mapping, Sequence
import dataclasses
import functools
import os
from typing import Any

from flax import linen as nn
import jax
import jax.numpy as jnp
import numpy as np

from introvae_jax import progress
from introvae_jax.checkpoints.checkpoint import Checkpoints
from introvae_jax.errors import UserError
from introvae_jax.nets import mlp, residual
from introvae_jax.training import parallel

WEIGHTS = ("ema", "raw")


def example_shape(config: Mapping[str, Any]) -> tuple[int, ...]:
    """Shape of what a model takes and gives: (height, width, channels), or (2,) for points."""
    data = config["data"]
    if config["model"]["network"] == "mlp":
        return (mlp.POINT_DIM,)
    return data["size"], data["size"], data["channels"]


def build_networks(config: Mapping[str, Any], axis_name: str | None = None) -> tuple[nn.Module, nn.Module]:
    """The encoder and the decoder that `config` describes."""
    model, data = config["model"], config["data"]
    if model["network"] == "mlp":
        options = {"width": model["width"], "depth": model["depth"], "z_dim": model["z_dim"]}
        return mlp.Encoder(**options, axis_name=axis_name), mlp.Decoder(**options, axis_name=axis_name)
    options = {
        "channels": tuple(model["channels"]), "z_dim": model["z_dim"], "norm": model["norm"],
        "block_norm": model["block_norm"], "expand_equal": model["expand_equal"], "sphere": model["prior"] == "sphere",
        "dtype": jnp.dtype(model["dtype"]), "remat": model["remat"], "axis_name": axis_name,
    }  # fmt: skip
    return residual.Encoder(**options), residual.Decoder(**options, image_channels=data["channels"])


@dataclasses.dataclass
class Model:
    """Encoder and decoder with fixed weights and BatchNorm statistics: every image is treated by itself.

    config: nested dictionaries, as stored with the run. decoder_variables hold the BatchNorm statistics of
    samples of the prior, decoder_rec_variables those of latents of real images: they differ, and each use
    takes its own. step: of the checkpoint. weights: "ema" or "raw".
    batch_size: images that go through a network at once, over all local devices; changes speed and memory only.
    data_identity: of the images that it was trained on, "" if they are not known.
    """

    config: Mapping[str, Any]
    encoder_variables: Any
    decoder_variables: Any
    decoder_rec_variables: Any
    step: int
    weights: str
    batch_size: int = 64
    data_identity: str = ""

    def __post_init__(self) -> None:
        self._encoder, self._decoder = build_networks(self.config)
        self._replicas = parallel.local_replicas()
        for name in ("encoder_variables", "decoder_variables", "decoder_rec_variables"):
            setattr(self, name, self._replicas.replicate(getattr(self, name)))

    @classmethod
    def create(
        cls, config: Mapping[str, Any], encoder: Any, decoder: Any, statistics: Mapping[str, Any], **options: Any
    ) -> "Model":
        """From the parameters of both networks and their statistics, {} where there is no BatchNorm."""
        variables = (
            {"params": params, "batch_stats": statistics.get(kind, {})}
            for kind, params in (("encoder", encoder), ("decoder", decoder), ("decoder_rec", decoder))
        )
        return cls(config, *variables, **options)

    @property
    def z_dim(self) -> int:
        return self.config["model"]["z_dim"]

    @property
    def image_shape(self) -> tuple[int, ...]:
        """(height, width, channels) of its images, (2,) of points."""
        return example_shape(self.config)

    def encode(self, images: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """mu and logvar, float32 [N, z_dim], of images [N, H, W, C], uint8 or float in [0, 1]."""
        images = np.asarray(images)
        if images.shape[1:] != self.image_shape:
            raise ValueError(f"images of shape {images.shape}: this model takes (N, {self.image_shape})")
        if images.dtype == np.uint8:
            images = images / np.float32(255)
        elif not np.issubdtype(images.dtype, np.floating):
            raise ValueError(f"images of type {images.dtype}: this model takes uint8, or floats in [0, 1]")
        encode = functools.partial(_apply, self._encoder, self.encoder_variables)
        return self._in_batches(encode, images.astype(np.float32), "encoding")

    def decode(self, z: np.ndarray, *, posterior: bool = False, clip: bool = True) -> np.ndarray:
        """Images float32 [N, H, W, C], clipped to [0, 1], or points [N, 2], of latents [N, z_dim].

        posterior: whether the latents come from images (`encode`) rather than from the prior.
        clip: False for the decoder's own output, which a likelihood is about.
        """
        variables = self.decoder_rec_variables if posterior else self.decoder_variables
        decode = functools.partial(_apply, self._decoder, variables)
        images = self._in_batches(decode, np.asarray(z, np.float32), "decoding")
        return np.clip(images, 0.0, 1.0) if clip and len(self.image_shape) == 3 else images

    def sample(self, num: int, seed: int = 0) -> np.ndarray:
        """`num` images of the seeds `seed`, `seed` + 1, ...: an image depends on its own seed alone."""
        return self.decode(self.latents(np.arange(seed, seed + num)))

    def reconstruct(self, images: np.ndarray) -> np.ndarray:
        """decode(mu) of images as in `encode`: float32 [N, H, W, C] in [0, 1]."""
        return self.decode(self.encode(images)[0], posterior=True)

    def latents(self, seeds: Sequence[int]) -> np.ndarray:
        """Prior samples, float32 [N, z_dim], one for each seed. Raises UserError for a seed outside [0, 2**32)."""
        for seed in seeds:
            if not 0 <= seed < 2**32:
                raise UserError(f"seed {seed}: must be at least 0 and below 2**32")
        return np.asarray(_normal(jnp.asarray(seeds, jnp.uint32), self.z_dim))

    def _in_batches(self, function: Callable[[Any], Any], x: np.ndarray, doing: str) -> Any:
        """`function` over slices of one size (the last is padded), so that one compiled program serves all."""
        if len(x) == 0:
            raise ValueError("no images: one or more are needed")
        outputs = []
        with progress.phase(doing, len(x), "images") as batches:
            for start in range(0, len(x), self.batch_size):
                part = x[start : start + self.batch_size]
                padding = ((0, self.batch_size - len(part)),) + ((0, 0),) * (x.ndim - 1)
                result = jax.device_get(function(self._replicas.spread(np.pad(part, padding))))
                outputs.append(result)
                batches.advance(len(part))
        return jax.tree.map(lambda *leaves: np.concatenate(leaves)[: len(x)], *outputs)


@functools.partial(jax.jit, static_argnums=0)
def _apply(network: nn.Module, variables: Any, x: jax.Array) -> Any:
    """Compiled once for all models of one shape."""
    return network.apply(variables, x, stored=True)


@functools.partial(jax.jit, static_argnums=1)
def _normal(seeds: jax.Array, z_dim: int) -> jax.Array:
    return jax.vmap(lambda seed: jax.random.normal(jax.random.key(seed), (z_dim,)))(seeds)


def slerp(z0: np.ndarray, z1: np.ndarray, num: int) -> np.ndarray:
    """`num` latents on the great-circle path from z0 to z1, both [Z], ends included: float32 [num, Z].

    The length goes linearly from one to the other. Source: Shoemake 1985; White 2016 (arXiv 1609.04468).
    """
    t = np.linspace(0.0, 1.0, num)[:, None]
    length0, length1 = np.linalg.norm(z0), np.linalg.norm(z1)
    unit0, unit1 = z0 / max(length0, 1e-12), z1 / max(length1, 1e-12)
    angle = np.arccos(np.clip(unit0 @ unit1, -1.0, 1.0))
    if np.sin(angle) < 1e-6:
        return np.float32((1 - t) * z0 + t * z1)
    direction = (np.sin((1 - t) * angle) * unit0 + np.sin(t * angle) * unit1) / np.sin(angle)
    return np.float32(direction * ((1 - t) * length0 + t * length1))


def parse_step(text: str) -> int | str | None:
    """A flag's "latest", "best" or number, as `load` takes it. Raises UserError for anything else."""
    if text in ("latest", "best"):
        return None if text == "latest" else text
    if not text.isdecimal():
        raise UserError(f"--step={text}: must be latest, best or a number")
    return int(text)


def load(
    workdir: str | os.PathLike, *, step: int | str | None = None, weights: str = "ema", batch_size: int = 64
) -> Model:
    """The model of a run, ready to sample.

    workdir: the run's work directory. step: of the checkpoint, the latest without one, or "best", the one that
    scored best while training (`config.eval`). weights: "ema" (averaged, the default) or "raw". batch_size: images
    that go through a network at once.
    Raises UserError if there is no such checkpoint or it is damaged.
    """
    if weights not in WEIGHTS:
        raise UserError(f"weights = {weights!r}: must be one of {', '.join(WEIGHTS)}")
    with progress.phase(f"opening {workdir}"):
        checkpoints = Checkpoints(workdir)
        steps = checkpoints.steps()
    if not steps:
        raise UserError(f"{workdir}: no checkpoint yet")
    if step == "best":
        step = checkpoints.best()
        if step is None:
            raise UserError(f"{workdir}: no checkpoint was scored while training (config.eval.every)")
    if step is not None and step not in steps:
        raise UserError(f"{workdir}: no checkpoint of step {step}; there are {', '.join(map(str, steps))}")
    step = steps[-1] if step is None else step

    stored = checkpoints.restore_run(step)
    config = stored["config"]
    encoder, decoder = build_networks(config)
    field = "ema" if weights == "ema" else "params"
    inputs = {
        "encoder": (encoder, jnp.zeros((1, *example_shape(config)))),
        "decoder": (decoder, jnp.zeros((1, decoder.z_dim))),
    }
    template = {
        name: {field: jax.eval_shape(net.init, jax.random.key(0), x)["params"]} for name, (net, x) in inputs.items()
    }
    with progress.phase(f"loading the checkpoint of step {step}"):
        players, statistics = checkpoints.restore_model(step, template)
        checkpoints.close()
    return Model.create(
        config, players["encoder"][field], players["decoder"][field], statistics[weights],
        step=step, weights=weights, batch_size=batch_size, data_identity=stored["data_identity"],
    )  # fmt: skip
