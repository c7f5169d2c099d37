"""The registry of objectives. To add an objective, add its file and an entry to OBJECTIVES."""

from collections.abc import Mapping
import dataclasses
from typing import Any

from introvae_jax.objectives.age import AGE
from introvae_jax.objectives.base import Objective
from introvae_jax.objectives.introvae import IntroVAE
from introvae_jax.objectives.soft_introvae import SoftIntroVAE
from introvae_jax.objectives.vae import VAE

OBJECTIVES = {"introvae": IntroVAE, "vae": VAE, "soft_introvae": SoftIntroVAE, "age": AGE}
WARMUP = "vae"  # the objective of `config.objective.warmup_steps`


def kind(settings: Mapping[str, Any]) -> type[Objective]:
    """The class of the objective named in `settings` (`config.objective`); `Objective` if this version lacks it."""
    return OBJECTIVES.get(settings["name"], Objective)


def build(name: str, settings: Mapping[str, Any]) -> Objective:
    """Creates the objective `name` with its fields from `settings`. Raises KeyError for an unknown name."""
    cls = OBJECTIVES[name]
    return cls(**{field.name: settings[field.name] for field in dataclasses.fields(cls)})
