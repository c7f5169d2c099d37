"""What one training run is made of, built from its config: networks, optimizers, steps, statistics, pictures."""

from collections.abc import Iterator
import contextlib
import dataclasses
import importlib.metadata
import pathlib
from typing import Any

import jax
import ml_collections
import numpy as np

import introvae_jax
from introvae_jax import config as config_lib
from introvae_jax import model, objectives, pictures, plots
from introvae_jax.data import source
from introvae_jax.errors import warn
from introvae_jax.evaluation.scores import headlines
from introvae_jax.reporting import drawing
from introvae_jax.reporting.health import Facts
from introvae_jax.reporting.logging import NO_TERMS, Reporter
from introvae_jax.training import calibrate, feed, optimizer, parallel
from introvae_jax.training import state as state_lib
from introvae_jax.training import step as step_lib

MOST_SCORES = 6  # that have a panel among the curves
FACTS_IMAGES = 128  # behind the error of the mean image


@dataclasses.dataclass
class Run:
    """Everything that stays the same from step to step.

    workdir: where pictures go. splits: the images. replicas: the devices that the steps are mapped over.
    """

    config: ml_collections.ConfigDict
    workdir: pathlib.Path
    splits: source.Splits
    replicas: parallel.Replicas

    def __post_init__(self) -> None:
        config, self._warned = self.config, False
        self.networks = model.build_networks(config, self.replicas.axis_name)
        rate = optimizer.schedule(
            config.optim.schedule, learning_rate=config.optim.learning_rate, steps=config.steps,
            decay_steps=config.optim.decay_steps, decay_factor=config.optim.decay_factor,
        )  # fmt: skip
        options = {
            "beta1": config.optim.beta1, "beta2": config.optim.beta2,
            "epsilon": config.optim.epsilon, "clip_norm": config.optim.clip_norm,
        }  # fmt: skip
        self._rate = rate
        decoder_rate = optimizer.every(config.objective.decoder_updates, rate)
        self.optimizers = optimizer.create(rate, **options), optimizer.create(decoder_rate, **options)
        self.calibrate = calibrate.make_calibrator(*self.networks)
        count = config.checkpoint.calibration_batches * config.batch_size
        order = np.random.default_rng(config.seed).permutation(len(self.splits.train))  # they may be sorted by class
        rows = order[np.arange(count) % len(order)]
        self._calibration_rows = np.split(rows, config.checkpoint.calibration_batches)

    def learning_rate(self, step: int) -> float:
        """That of step `step`, counted from 1."""
        return float(self._rate(max(step - 1, 0)))

    def fresh_state(self) -> state_lib.State:
        shape = model.example_shape(self.config)
        return state_lib.create(jax.random.key(self.config.seed), *self.networks, self.optimizers, shape)

    def objective_at(self, step: int) -> tuple[str, float]:
        """The objective that follows `step` steps by name, and its beta: a plain VAE in the warm-up."""
        objective = self.config.objective
        if step < objective.warmup_steps:
            return "vae", objective.warmup_beta or objective.beta
        return objective.name, objective.beta

    def make_step(self, name: str, **changes: Any) -> feed.Step:
        """The step of the objective `name`, a pure function. changes: of the objective's settings; may be traced."""
        config = self.config
        objective = objectives.build(name, {**config.objective, **changes})
        return step_lib.make_step(
            *self.networks, objective, self.optimizers, self.replicas,
            update_order=config.objective.update_order, ema_decay=config.optim.ema_decay,
            mirror=config.data.mirror, global_batch=config.batch_size, dequantize=config.data.dequantize,
            decoder_updates=config.objective.decoder_updates,
        )  # fmt: skip

    def make_feed(self, start: int) -> feed.Feed:
        """The training images in their order, from the batch of step `start` + 1 on."""
        config = self.config
        return feed.create(
            config.data, self.splits.train, self.replicas,
            batch_size=config.batch_size, seed=config.seed, start=start,
        )  # fmt: skip

    def statistics(self, state: state_lib.State, *weights: str) -> dict[str, calibrate.Statistics]:
        """BatchNorm statistics under the `weights` named: "ema" (averaged), "raw" or both."""
        if self.config.model.norm != "batch":
            return {name: {} for name in weights}
        images = [self.splits.train[rows] for rows in self._calibration_rows]
        key = step_lib.draw_key(state, step_lib.CALIBRATION)
        params = {
            "ema": (state.encoder.ema, state.decoder.ema),
            "raw": (state.encoder.params, state.decoder.params),
        }
        return {name: self.calibrate(*params[name], images, key) for name in weights}

    def trained(self, state: state_lib.State, statistics: calibrate.Statistics) -> model.Model:
        """The model as it stands, with the averaged weights."""
        return model.Model.create(
            self.config, state.encoder.ema, state.decoder.ema, statistics,
            step=int(state.step), weights="ema", batch_size=min(64, self.config.batch_size),
        )  # fmt: skip

    def draw_pictures(self, state: state_lib.State, statistics: calibrate.Statistics, reporter: Reporter) -> None:
        """What drawing.py draws, with the averaged weights, as PNG and in TensorBoard."""
        step = int(state.step)
        for name, image in drawing.draw(self.trained(state, statistics), self.splits.test).items():
            with self._unless_unwritable():
                pictures.save(image, self.workdir / "pictures" / f"{name}_{step:07d}.png")
            reporter.picture(name, image, step)

    @contextlib.contextmanager
    def _unless_unwritable(self) -> Iterator[None]:
        """Training is worth more than its pictures: the first one that cannot be written is a warning."""
        try:
            yield
        except OSError as error:
            if not self._warned:
                warn(f"{error.filename or self.workdir}: {error.strerror or error}; trains on without this picture")
            self._warned = True

    def facts(self) -> Facts:
        """What the rules on a sick run need to know of it."""
        rows = np.concatenate(self._calibration_rows)[:FACTS_IMAGES]
        total = squares = 0.0
        for row in rows:  # one at a time: at 1024 pixels they are large
            image = self.splits.train[row[None]][0]
            x = image / np.float64(255) if image.dtype == np.uint8 else np.float64(image)
            total, squares = total + x, squares + x * x
        variance = squares / len(rows) - (total / len(rows)) ** 2
        return Facts(self.config.objective.to_dict(), constant_error=float(0.5 * variance.sum()))

    def record(self) -> dict[str, Any]:
        """What a checkpoint says about the run it belongs to."""
        packages = ("jax", "flax", "optax", "orbax-checkpoint", "grain")
        versions = {name: importlib.metadata.version(name) for name in packages}
        return {
            "config": config_lib.to_dict(self.config),
            "data_identity": self.splits.identity,
            "versions": {"introvae_jax": introvae_jax.__version__, **versions},
        }

    def draw_curves(self) -> None:
        """curves.png of everything in metrics.jsonl."""
        records = pictures.read_records(self.workdir / "metrics.jsonl")
        objective = self.config.objective
        margin = objective.margin if objective.name == "introvae" and not objective.margin_offset else None
        scored = dict.fromkeys(name for record in records if "loss_rec" not in record for name in record)
        shown = [name for name in headlines(scored) if name not in NO_TERMS][:MOST_SCORES]
        with self._unless_unwritable():
            plots.curves(records, self.workdir / "curves.png", margin, shown)

    def advice_on_memory(self) -> str:
        """What to try when a device has too little of it."""
        config = self.config
        return (
            f"out of memory with {config.batch_size // self.replicas.count} images of {config.data.size} pixels on "
            f"each {self.replicas.local[0].device_kind}. --config.model.remat=True "
            "or a smaller --config.batch_size take less (docs/memory.md)"
        )

    def advice_on_non_finite(self) -> str:
        """What to try after numbers ran away."""
        optim = self.config.optim
        return (
            "A lower --config.optim.learning_rate, --config.optim.clip_norm or more "
            f"--config.objective.warmup_steps helps, in a new --workdir (now {optim.learning_rate:g}, "
            f"{optim.clip_norm:g}, {self.config.objective.warmup_steps})"
        )
