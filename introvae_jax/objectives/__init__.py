"""The registry of objectives. To add an objective, add its file and an entry to OBJECTIVES."""

from collections.abc import Mapping
import dataclasses
from typing import Any

from introvae_jax.objectives.age import AGE
from introvae_jax.objectives.base import Objective
from introvae_jax.objectives.introvae import IntroVAE
from introvae_jax.objectives.soft_introvae import SoftIntroVAE
from introvae_jax.objectives.vae import VAE

OBJECTIVES: dict[str, type[Objective]] = {
    "introvae": IntroVAE, "vae": VAE, "soft_introvae": SoftIntroVAE, "age": AGE,
}  # fmt: skip
WARMUP = "vae"  # the objective of `config.objective.warmup_steps`


def kind(settings: Mapping[str, Any]) -> type[Objective]:
    """The class of the objective named in `settings` (`config.objective`); `Objective` if this version lacks it."""
    return OBJECTIVES.get(settings["name"], Objective)


def build(name: str, settings: Mapping[str, Any]) -> Objective:
    """Creates the objective `name` with its fields from `settings`.

    Raises KeyError for an unknown name and for a setting that is missing, unless the field has a default.
    """
    cls: Any = OBJECTIVES[name]  # a dataclass, which the type Objective does not say
    optional = {field.name for field in dataclasses.fields(cls) if field.default is not dataclasses.MISSING}
    names = [field.name for field in dataclasses.fields(cls) if field.name in settings or field.name not in optional]
    return cls(**{name: settings[name] for name in names})
