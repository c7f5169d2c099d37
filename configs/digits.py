"""The embedded digits at 32x32, grey: the quick start.

    python -m introvae_jax.main --config=configs/digits.py

About five minutes on two CPU cores; docs/digits.md tells how the settings were found, and
benchmarks/digits_quality.py scores what comes out.
"""

import ml_collections

from configs import default


def get_config() -> ml_collections.ConfigDict:
    config = default.get_config()
    config.steps = 4_500
    config.batch_size = 16
    config.data.source = "digits"
    config.data.size = 32
    config.data.channels = 1
    config.model.channels = (16, 32, 64)
    config.model.z_dim = 32
    config.objective.beta = 3.0
    config.objective.margin = 25.0
    config.objective.alpha_d = 0.5
    config.objective.update_order = "simultaneous"
    config.objective.warmup_steps = 500
    config.optim.learning_rate = 1e-3
    config.optim.ema_decay = 0.99
    config.log.every = 100
    config.log.pictures_every = 900
    config.checkpoint.every = 450
    return config
