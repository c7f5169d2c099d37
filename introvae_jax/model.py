"""The public API: a trained model on numpy images.

    model = introvae_jax.load("runs/digits")
    images = model.sample(16, seed=0)              # float32 [16, 32, 32, 1] in [0, 1]
    mu, logvar = model.encode(images)              # float32 [16, z_dim] each
    copies = model.reconstruct(images)

Each image is treated by itself: BatchNorm uses the statistics stored with the checkpoint.

`load` raises UserError. Methods of a model raise `inputs.InvalidArgument` for arguments that they cannot take, which is
a ValueError and a UserError.

JAX has threads, which a forked process lacks: using a model there would hang, so it raises UserError. Start processes
with `multiprocessing.get_context("spawn")` and pass them the model (it can be pickled) or load it there.
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

from introvae_jax import config as config_lib
from introvae_jax import inputs, parallel, progress
from introvae_jax.checkpoints.checkpoint import Checkpoints
from introvae_jax.errors import UserError
from introvae_jax.experiment import build_networks, example_shape

WEIGHTS = ("ema", "raw")
VARIABLES = ("encoder_variables", "decoder_variables", "decoder_rec_variables")


@dataclasses.dataclass(eq=False, repr=False)
class Model:
    """Encoder and decoder with fixed weights and BatchNorm statistics: every image is treated by itself.

    Models can be pickled. Two are equal if all but their batch_size is equal.

    config: nested dictionaries, as stored with the run. decoder_variables hold the BatchNorm statistics of
    samples of the prior, decoder_rec_variables those of latents of real images: they differ, and each use
    takes its own. step: of the checkpoint. weights: "ema" or "raw".
    batch_size: images that go through a network at once, over all local devices; changes speed and memory only.
    data_identity: of the images that it was trained on, "" if they are not known.
    Raises InvalidArgument (a ValueError) for a batch_size that is no whole number above 0.
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
        self.batch_size = inputs.whole_number("batch_size", self.batch_size)
        _require_own_process()
        self._encoder, self._decoder = build_networks(self.config)
        self._replicas = parallel.local_replicas()
        for name in VARIABLES:
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

    def __repr__(self) -> str:
        shape = "x".join(map(str, self.image_shape))
        return f"Model({shape}, z_dim={self.z_dim}, step={self.step}, weights={self.weights!r})"

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, Model):
            return NotImplemented
        plain, others = self._without_devices(), other._without_devices()
        batch_size = {"batch_size": None}
        variables, others_variables = ([fields.pop(name) for name in VARIABLES] for fields in (plain, others))
        return plain | batch_size == others | batch_size and _same_arrays(variables, others_variables)

    __hash__ = None

    def __reduce__(self) -> tuple[Any, ...]:
        return Model, tuple(self._without_devices().values())

    def _without_devices(self) -> dict[str, Any]:
        """The fields by name, arrays as numpy arrays."""
        fields = {field.name: getattr(self, field.name) for field in dataclasses.fields(self)}
        return fields | {name: jax.device_get(fields[name]) for name in VARIABLES}

    def encode(self, images: Any) -> tuple[np.ndarray, np.ndarray]:
        """mu and logvar, float32 [N, z_dim], of images or points.

        images: an array or nested lists [N, H, W, C], uint8 or float in [0, 1]; Pillow images, one or a list, which are
        cropped, resized and converted as the training images are; or, for a model of points, finite numbers [N, 2].
        Raises InvalidArgument (a ValueError) for another shape or type, values outside [0, 1], NaN or infinity.
        """
        if len(self.image_shape) == 1:
            x = inputs.points(images, self.image_shape)
        else:
            x = inputs.images(images, self.config["data"], self.image_shape)
        return self._in_batches(functools.partial(_apply, self._encoder, self.encoder_variables), x, "encoding")

    def decode(self, z: Any, *, posterior: bool = False, clip: bool = True) -> np.ndarray:
        """Images float32 [N, H, W, C], clipped to [0, 1], or points [N, 2], of latents [N, z_dim].

        posterior: whether the latents come from images (`encode`) rather than from the prior.
        clip: False for the decoder's own output, which a likelihood is about.
        Raises InvalidArgument (a ValueError) for latents of another shape, NaN or infinity.
        """
        return self._decode(inputs.latents(z, self.z_dim), posterior=posterior, clip=clip)

    def sample(self, num: int, seed: int = 0) -> np.ndarray:
        """`num` images of the seeds `seed`, `seed` + 1, ...: an image depends on its own seed alone.

        Raises InvalidArgument (a ValueError) unless `num` is a whole number above 0 and all seeds are in [0, 2**32).
        """
        return self.decode(self.latents(inputs.seed_range(seed, num)))

    def reconstruct(self, images: Any) -> np.ndarray:
        """decode(mu) of images: float32 [N, H, W, C] in [0, 1]. Takes and raises what `encode` does."""
        return self._decode(self.encode(images)[0], posterior=True, clip=True)

    def latents(self, seeds: Sequence[int]) -> np.ndarray:
        """Prior samples, float32 [N, z_dim], one for each seed.

        Raises InvalidArgument (a ValueError) for a seed that is no whole number in [0, 2**32).
        """
        return self._in_batches(functools.partial(_normal, self.z_dim), inputs.seeds(seeds), "drawing latents")

    def _decode(self, z: np.ndarray, *, posterior: bool, clip: bool) -> np.ndarray:
        """As `decode`, also of what a diverged encoder gave."""
        variables = self.decoder_rec_variables if posterior else self.decoder_variables
        images = self._in_batches(functools.partial(_apply, self._decoder, variables), z, "decoding")
        return np.clip(images, 0.0, 1.0) if clip and len(self.image_shape) == 3 else images

    def _in_batches(self, function: Callable[[Any], Any], x: np.ndarray, doing: str) -> Any:
        """`function` over slices of one size (the last is padded), so that one compiled program serves all."""
        _require_own_process()
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
    return network.apply(variables, x, use_running_average=True)


@functools.partial(jax.jit, static_argnums=0)
def _normal(z_dim: int, seeds: jax.Array) -> jax.Array:
    return jax.vmap(lambda seed: jax.random.normal(jax.random.key(seed), (z_dim,)))(seeds)


def _same_arrays(a: Any, b: Any) -> bool:
    """Whether two trees of arrays have the same paths and the same values."""
    if jax.tree.structure(a) != jax.tree.structure(b):
        return False
    return all(
        np.array_equal(x, y, equal_nan=True) for x, y in zip(jax.tree.leaves(a), jax.tree.leaves(b), strict=True)
    )


@functools.cache
def _process_of_models() -> int:
    """The process that made the first model: JAX's threads are there, and not in a fork of it."""
    return os.getpid()


def _require_own_process() -> None:
    """Raises UserError in a fork of a process that has models, where JAX would wait for threads forever."""
    if os.getpid() != _process_of_models():
        raise UserError(
            "a model is used in a forked process, where JAX hangs: start the process with "
            'multiprocessing.get_context("spawn"), or load the model only in the new process'
        )


def parse_step(step: Any) -> int | str | None:
    """None for "latest", "best", or a number, also one in digits. Raises UserError for anything else."""
    if step is None or step == "latest":
        return None
    if step == "best":
        return step
    if isinstance(step, str):
        step = int(step) if step.isdecimal() and len(step) < 20 else step
    if not isinstance(step, int | np.integer):
        raise UserError(f"--step={step}: must be latest, best or a number")
    return int(step)


def load(
    workdir: str | os.PathLike, *, step: int | str | None = None, weights: str = "ema", batch_size: int = 64
) -> Model:
    """The model of a run, ready to sample.

    workdir: the run's work directory. step: of the checkpoint; "latest" (as without one), or "best", the one that
    scored best while training (`config.eval`). weights: "ema" (averaged, the default) or "raw". batch_size: images
    that go through a network at once.
    Raises UserError if there is no such checkpoint or it is damaged.
    """
    _require_own_process()
    if weights not in WEIGHTS:
        raise UserError(f"weights = {weights!r}: must be one of {', '.join(WEIGHTS)}")
    batch_size = inputs.whole_number("batch_size", batch_size)
    with progress.phase(f"opening {workdir}"):
        checkpoints = Checkpoints(workdir)
        steps = checkpoints.steps()
    if not steps:
        raise UserError(f"{workdir}: no checkpoint yet")
    step = parse_step(step)
    if step == "best":
        step = checkpoints.best()
        if step is None:
            raise UserError(f"{workdir}: no checkpoint was scored while training (config.eval.every)")
    if step is not None and step not in steps:
        raise UserError(f"{workdir}: no checkpoint of step {step}; there are {', '.join(map(str, steps))}")
    step = steps[-1] if step is None else step

    place = checkpoints.directory / str(step)
    stored = checkpoints.restore_run(step)
    config = config_lib.complete_stored(stored["config"], place)
    encoder, decoder = _shapes(config)
    field = "ema" if weights == "ema" else "params"
    template = {"encoder": {field: encoder["params"]}, "decoder": {field: decoder["params"]}}
    kinds = {"encoder": encoder.get("batch_stats", {}), "decoder": decoder.get("batch_stats", {})}
    with progress.phase(f"loading the checkpoint of step {step}"):
        players, statistics = checkpoints.restore_model(step, template, {weights: kinds})
        checkpoints.close()
    found = statistics.get(weights, {})
    found.setdefault("decoder_rec", found.get("decoder", {}))  # older checkpoints have one set for both
    return Model.create(
        config, players["encoder"][field], players["decoder"][field], found,
        step=step, weights=weights, batch_size=batch_size, data_identity=stored["data_identity"],
    )  # fmt: skip


def _shapes(config: Mapping[str, Any]) -> list[Any]:
    """Shapes of the variables of the encoder and of the decoder; nothing is allocated."""
    encoder, decoder = build_networks(config)
    inputs_of = ((encoder, example_shape(config)), (decoder, (decoder.z_dim,)))
    return [
        jax.eval_shape(network.init, jax.random.key(0), jax.ShapeDtypeStruct((1, *shape), jnp.float32))
        for network, shape in inputs_of
    ]
