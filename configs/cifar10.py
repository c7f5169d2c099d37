"""CIFAR-10 at 32x32, colour (argument: the objective, introvae without one).

    pip install '.[tfds-prepare]'
    python -m introvae_jax.prepare --source=tfds:cifar10 --name=cifar10 --resolution=32
    python -m introvae_jax.main --config=configs/cifar10.py
    python -m introvae_jax.main --config=configs/cifar10.py:soft_introvae

TFDS downloads it and needs TensorFlow for that, once. With your own copy as PNG files in a folder or an
archive no TensorFlow is needed. 50,000 train, 10,000 are held out; 0.15 GB, which live on the accelerator.
Networks as in Soft-IntroVAE's CIFAR-10 runs. With soft_introvae and age the settings are the published ones
(presets.py says how they translate); AGE's networks were others. IntroVAE's beta and margin are a start that
nobody has tuned.
"""

import ml_collections

from configs import default
from introvae_jax.objectives import presets


def get_config(argument: str = "introvae") -> ml_collections.ConfigDict:
    if argument not in ("introvae", *presets.CIFAR10):
        raise ValueError(f"cifar10.py:{argument}: one of introvae, {', '.join(presets.CIFAR10)}")
    config = default.get_config()
    config.steps = 300_000
    config.batch_size = 32
    config.data.source = "tfds"
    config.data.name = "cifar10/32"
    config.data.size = 32
    config.data.mirror = True
    config.data.cache = "device"
    config.model.channels = (64, 128, 256)
    config.model.z_dim = 128
    config.model.dtype = "bfloat16"
    if argument == "introvae":
        config.objective.beta = 4.0
        config.objective.margin = 80.0
        config.objective.warmup_steps = 5_000
    else:
        presets.CIFAR10[argument].apply(config, images=50_000)
        config.data.mirror = False  # as in both codes
        config.model.block_norm = "branch" if argument == "soft_introvae" else "sum"
        config.model.prior = "sphere" if argument == "age" else "normal"
    config.checkpoint.every = 5_000
    config.log.pictures_every = 5_000
    return config
