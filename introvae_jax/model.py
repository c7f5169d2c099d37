"""The public API: a trained model on numpy images.

    model = introvae_jax.load("runs/digits")
    images = model.sample(16, seed=0)              # float32 [16, 32, 32, 1] in [0, 1]
    mu, logvar = model.encode(images)              # float32 [16, z_dim] each
    copies = model.reconstruct(images)

Images are independent of each other: BatchNorm uses the statistics stored with the checkpoint.

`load` raises UserError. Methods of a model raise `inputs.InvalidArgument`, a ValueError and a UserError, for invalid
arguments.

A model raises UserError in a forked process, where JAX would hang because its threads are missing. Start processes with
`multiprocessing.get_context("spawn")` and pass them the model, which can be pickled, or load it there.
"""

from collections.abc import Callable, Mapping, Sequence
import dataclasses
import functools
import os
from typing import Any, TypeVar

import jax
import numpy as np
import numpy.typing as npt

from introvae_jax import config as config_lib
from introvae_jax import inference, inputs, parallel, progress
from introvae_jax.checkpoints.checkpoint import Checkpoints
from introvae_jax.errors import UserError
from introvae_jax.experiment import build_networks, example_shape

T = TypeVar("T")
WEIGHTS = ("ema", "raw")
Variables = Mapping[str, Any]  # of a Flax module: {"params": ..., "batch_stats": ...}, or the tree under one of these
VARIABLES = ("encoder_variables", "decoder_variables", "decoder_rec_variables")


@dataclasses.dataclass(eq=False, repr=False)
class Model:
    """Encoder and decoder with fixed weights and BatchNorm statistics.

    Images in a batch do not influence each other. Models can be pickled. Two models are equal if all fields except
    batch_size are equal.

    config: nested dictionaries, as stored with the run. decoder_variables: for prior samples. decoder_rec_variables:
    for latents of real images; the two have different BatchNorm statistics. step: of the checkpoint. weights: "ema" or
    "raw".
    batch_size: images per network call, over all local devices; affects speed and memory only.
    data_identity: digest of the training images, "" if unknown.
    Raises InvalidArgument (a ValueError) unless batch_size is a whole number above 0.
    """

    config: Mapping[str, Any]
    encoder_variables: Variables
    decoder_variables: Variables
    decoder_rec_variables: Variables
    step: int
    weights: str
    batch_size: int = 64
    data_identity: str = ""

    def __post_init__(self) -> None:
        self.batch_size = inputs.whole_number("batch_size", self.batch_size)
        inference.require_own_process()
        self._encoder, self._decoder = build_networks(self.config)
        self._replicas = parallel.local_replicas()
        for name in VARIABLES:
            setattr(self, name, self._replicas.replicate(getattr(self, name)))

    @classmethod
    def create(
        cls, config: Mapping[str, Any], encoder: Variables, decoder: Variables, statistics: Mapping[str, Variables], *,
        step: int, weights: str, batch_size: int = 64, data_identity: str = "",
    ) -> "Model":  # fmt: skip
        """Creates a model from the parameters of both networks and their BatchNorm statistics.

        statistics: by kind of pass, "encoder", "decoder" and "decoder_rec"; empty for networks without BatchNorm.
        Raises InvalidArgument unless batch_size is a whole number above 0.
        """
        own, prior, rec = (
            {"params": params, "batch_stats": statistics.get(kind, {})}
            for kind, params in (("encoder", encoder), ("decoder", decoder), ("decoder_rec", decoder))
        )
        return cls(config, own, prior, rec, step, weights, batch_size, data_identity)

    @property
    def z_dim(self) -> int:
        """The number of latent dimensions."""
        return self.config["model"]["z_dim"]

    @property
    def image_shape(self) -> tuple[int, ...]:
        """(height, width, channels) of the model's images, or (2,) for points."""
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
        return plain | batch_size == others | batch_size and inference.same_arrays(variables, others_variables)

    __hash__ = None  # type: ignore[assignment]  # as for every class with __eq__ alone

    def __reduce__(self) -> tuple[Any, ...]:
        return Model, tuple(self._without_devices().values())

    def _without_devices(self) -> dict[str, Any]:
        """The fields by name, with numpy arrays in place of JAX arrays."""
        fields = {field.name: getattr(self, field.name) for field in dataclasses.fields(self)}
        return fields | {name: jax.device_get(fields[name]) for name in VARIABLES}

    def encode(self, images: inputs.Images) -> tuple[np.ndarray, np.ndarray]:
        """Encodes images or points. Returns mu and logvar, float32 [N, z_dim] each.

        images: an array or nested lists [N, H, W, C], uint8 or float in [0, 1]; or one Pillow image or a list of them,
        which are cropped, resized and converted like the training images; for a model of points, finite numbers [N, 2].
        Raises InvalidArgument (a ValueError) for another shape or type, values outside [0, 1], NaN or infinity.
        """
        if len(self.image_shape) == 1:
            x = inputs.points(images, self.image_shape)
        else:
            x = inputs.images(images, self.config["data"], self.image_shape)
        encode = functools.partial(inference.apply, self._encoder, self.encoder_variables)
        return self._in_batches(encode, x, "encoding")

    def decode(self, z: npt.ArrayLike, *, posterior: bool = False, clip: bool = True) -> np.ndarray:
        """Decodes latents [N, z_dim]. Returns images float32 [N, H, W, C] in [0, 1], or points float32 [N, 2].

        posterior: True if the latents come from images (`encode`), False if they come from the prior.
        clip: False returns the decoder's unclipped output, for likelihoods.
        Raises InvalidArgument (a ValueError) for latents of another shape, NaN or infinity.
        """
        return self._decode(inputs.latents(z, self.z_dim), posterior=posterior, clip=clip)

    def sample(self, num: int, seed: int = 0) -> np.ndarray:
        """Samples `num` images, one per seed from `seed` on. An image depends on its own seed only.

        Raises InvalidArgument (a ValueError) unless `num` is a whole number above 0 and all seeds are in [0, 2**32).
        """
        return self.decode(self.latents(inputs.seed_range(seed, num)))

    def reconstruct(self, images: inputs.Images) -> np.ndarray:
        """Returns decode(mu) of images, float32 [N, H, W, C] in [0, 1]. Arguments and errors as in `encode`."""
        return self._decode(self.encode(images)[0], posterior=True, clip=True)

    def latents(self, seeds: Sequence[int]) -> np.ndarray:
        """Prior samples, float32 [N, z_dim], one for each seed.

        Raises InvalidArgument (a ValueError) unless all seeds are whole numbers in [0, 2**32).
        """
        return self._in_batches(functools.partial(inference.normal, self.z_dim), inputs.seeds(seeds), "drawing latents")

    def _decode(self, z: np.ndarray, *, posterior: bool, clip: bool) -> np.ndarray:
        """Like `decode`, but also accepts non-finite latents, which a diverged encoder returns."""
        variables = self.decoder_rec_variables if posterior else self.decoder_variables
        images = self._in_batches(functools.partial(inference.apply, self._decoder, variables), z, "decoding")
        return np.clip(images, 0.0, 1.0) if clip and len(self.image_shape) == 3 else images

    def _in_batches(self, function: Callable[[jax.Array], T], x: np.ndarray, doing: str) -> T:
        return inference.in_batches(function, x, batch_size=self.batch_size, replicas=self._replicas, doing=doing)


def parse_step(step: int | str | None) -> int | str | None:
    """Parses a step: None for "latest", "best", or an int from a number or its digits. Raises UserError otherwise."""
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
    workdir: str | os.PathLike[str], *, step: int | str | None = None, weights: str = "ema", batch_size: int = 64
) -> Model:
    """Loads the model of a run.

    workdir: the run's work directory. step: a step, "latest" (the default), or "best", the checkpoint with the best
    score during training (`config.eval`). weights: "ema" (averaged, the default) or "raw". batch_size: images per
    network call.
    Raises UserError if there is no such checkpoint or it is damaged.
    """
    inference.require_own_process()
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
    shapes = (example_shape(config), (config["model"]["z_dim"],))
    encoder, decoder = map(inference.variable_shapes, build_networks(config), shapes)
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
