"""The variants of benchmarks/ablation.py: a base for each data set and single changes of it."""

from collections.abc import Mapping
from typing import Any

import ml_collections

from configs import avatars, digits


def _digits() -> ml_collections.ConfigDict:
    config = digits.get_config()
    config.steps, config.objective.warmup_steps = 1_200, 250
    return config


def _avatars() -> ml_collections.ConfigDict:
    """At 32 pixels: what two cores can train three times."""
    config = avatars.get_config("32")
    config.steps, config.objective.warmup_steps = 800, 200
    config.data.cache = "device"
    config.optim.learning_rate = 1e-3
    config.optim.ema_decay = 0.99
    config.objective.beta, config.objective.auto_beta = 2.0, 0.0
    config.objective.margin, config.objective.margin_offset = 70.0, 0.0
    return config


BASES = {"digits": _digits, "avatars": _avatars}

OBJECTIVES: Mapping[str, Mapping[str, Any]] = {
    "vae": {"objective.name": "vae"},
    "soft_introvae": {
        "objective.name": "soft_introvae", "objective.beta": 2.0, "objective.update_order": "alternating",
    },
}  # fmt: skip
CHANGES: Mapping[str, Mapping[str, Any]] = {
    "base": {},
    "alternating": {"objective.update_order": "alternating"},
    "hinge_sample": {"objective.hinge": "sample"},
    "alpha_d_0.25": {"objective.alpha_d": 0.25},
    "alpha_d_1": {"objective.alpha_d": 1.0},
    "alpha_0.5": {"objective.alpha": 0.5},
    "no_warmup": {"objective.warmup_steps": 0},
    "long_warmup": {"objective.warmup_steps": 600},
    "norm_group": {"model.norm": "group"},
    "norm_none": {"model.norm": "none"},
}
# Failing runs, for docs/troubleshooting.md.
SICK: Mapping[str, Mapping[str, Any]] = {
    "margin_10": {"objective.margin": 10.0},
    "margin_100": {"objective.margin": 100.0},
    "beta_0.5": {"objective.beta": 0.5},
    "beta_30": {"objective.beta": 30.0},
}
ALL = {**CHANGES, **OBJECTIVES, **SICK}


def config(on: str, name: str) -> ml_collections.ConfigDict:
    """The base of `on` with the change `name`."""
    base = BASES[on]()
    base.update_from_flattened_dict(ALL[name])
    return base
