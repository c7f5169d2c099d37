"""The embedded digits at 32x32, grey: the quick start (argument: the objective, introvae without one).

    python -m introvae_jax.main --config=configs/digits.py
    python -m introvae_jax.main --config=configs/digits.py:soft_introvae

About five minutes on two CPU cores; docs/digits.md tells how the settings were found, and
benchmarks/digits_quality.py scores what comes out. AGE's settings are its published ones, and no more than a
start: after hundreds of steps its digits are no digits yet.
"""

import ml_collections

from configs import default
from introvae_jax import objectives


def get_config(argument: str = "introvae") -> ml_collections.ConfigDict:
    if argument not in objectives.OBJECTIVES:
        raise ValueError(f"digits.py:{argument}: one of {', '.join(objectives.OBJECTIVES)}")
    config = default.get_config()
    config.objective.name = argument
    config.steps = 4_500
    config.batch_size = 16
    config.data.source = "digits"
    config.data.size = 32
    config.data.channels = 1
    config.model.channels = (16, 32, 64)
    config.model.z_dim = 32
    config.objective.beta = 3.0
    config.objective.margin = 25.0
    config.objective.update_order = "simultaneous"
    config.objective.warmup_steps = 500
    if argument == "soft_introvae":
        config.objective.beta = 2.0
        config.objective.beta_neg = 128.0
        config.objective.update_order = "alternating"
    if argument == "age":
        config.model.prior = "sphere"
        config.objective.update_order = "alternating"
        config.objective.warmup_steps = 0
        config.objective.decoder_updates = 2
        config.objective.match_z = 1_000 / config.model.z_dim
        config.optim.beta1 = 0.5
    config.optim.learning_rate = 1e-3
    config.optim.ema_decay = 0.99
    config.eval.metrics = ("swd1000", "reconstruction")  # once eval.every is set; no download
    config.log.every = 100
    config.log.pictures_every = 900
    config.checkpoint.every = 450
    return config
