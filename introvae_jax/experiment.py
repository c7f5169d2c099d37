"""Builds the computation that a config describes: networks, optimizers, the initial state and the training step.

Training, planning, conversion and benchmarks all use this module. It reads no files and no images.
"""

from collections.abc import Callable, Mapping
from typing import Any

from flax import linen as nn
import jax
import jax.numpy as jnp
import ml_collections

from introvae_jax import objectives
from introvae_jax.nets import NETWORKS, mlp
from introvae_jax.objectives.base import Terms
from introvae_jax.parallel import Replicas
from introvae_jax.training import optimizer
from introvae_jax.training import state as state_lib
from introvae_jax.training import step as step_lib
from introvae_jax.training.state import State


class Experiment:
    """The computation that `config` describes, on the devices of `replicas`.

    networks: encoder and decoder. optimizers: of the encoder and of the decoder.
    """

    def __init__(self, config: ml_collections.ConfigDict, replicas: Replicas):
        self.config, self.replicas = config, replicas
        self.networks = build_networks(config, replicas.axis_name)
        optim = config.optim
        self._rate = optimizer.schedule(
            optim.schedule, learning_rate=optim.learning_rate, steps=config.steps,
            decay_steps=optim.decay_steps, decay_factor=optim.decay_factor,
        )  # fmt: skip
        decoder_rate = optimizer.every(config.objective.decoder_updates, self._rate)
        self.optimizers = tuple(
            optimizer.create(
                rate, beta1=optim.beta1, beta2=optim.beta2, epsilon=optim.epsilon, clip_norm=optim.clip_norm
            )
            for rate in (self._rate, decoder_rate)
        )

    def learning_rate(self, step: int) -> float:
        """The learning rate of step `step`, counted from 1."""
        return float(self._rate(max(step - 1, 0)))

    def init_state(self) -> State:
        """Creates the initial state, which depends on `config.seed` only."""
        shape = example_shape(self.config)
        return state_lib.create(jax.random.key(self.config.seed), *self.networks, self.optimizers, shape)

    @property
    def phases(self) -> list[tuple[str, float]]:
        """Objective and beta of each phase: the warm-up, if there is one, and the main phase."""
        return list(dict.fromkeys(self.phase_at(step) for step in (0, self.config.objective.warmup_steps)))

    def phase_at(self, step: int) -> tuple[str, float]:
        """Objective and beta of the phase after `step` steps: a plain VAE during the warm-up."""
        objective = self.config.objective
        if step < objective.warmup_steps:
            return objectives.WARMUP, objective.warmup_beta or objective.beta
        return objective.name, objective.beta

    def make_step(self, name: str, **changes: Any) -> Callable[[State, jax.Array], tuple[State, Terms]]:
        """Returns the training step of the objective `name`, a pure function (training/step.py).

        changes: settings of the objective that differ from the config, for instance beta; may be traced values.
        """
        config = self.config
        return step_lib.make_step(
            *self.networks, objectives.build(name, {**config.objective, **changes}), self.optimizers, self.replicas,
            update_order=config.objective.update_order, ema_decay=config.optim.ema_decay,
            mirror=config.data.mirror, global_batch=config.batch_size, dequantize=config.data.dequantize,
            decoder_updates=config.objective.decoder_updates,
        )  # fmt: skip


def example_shape(config: Mapping[str, Any]) -> tuple[int, ...]:
    """Shape of one example: (height, width, channels), or (2,) for points."""
    data = config["data"]
    if NETWORKS[config["model"]["network"]].of_points:
        return (mlp.POINT_DIM,)
    return data["size"], data["size"], data["channels"]


def batch_shape(config: Mapping[str, Any]) -> jax.ShapeDtypeStruct:
    """Shape and dtype of the global batch of a step: images as uint8, or points as float32."""
    dtype = jnp.float32 if config["data"]["source"] == "density" else jnp.uint8
    return jax.ShapeDtypeStruct((config["batch_size"], *example_shape(config)), dtype)


def build_networks(config: Mapping[str, Any], axis_name: str | None = None) -> tuple[nn.Module, nn.Module]:
    """Builds the encoder and the decoder that `config` describes."""
    model = config["model"]
    return NETWORKS[model["network"]].build(model, config["data"], axis_name)
