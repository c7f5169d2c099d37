"""CIFAR-10 at 32x32, colour.

    pip install '.[tfds-prepare]'
    python -m introvae_jax.prepare --source=tfds:cifar10 --name=cifar10 --resolution=32
    python -m introvae_jax.main --config=configs/cifar10.py

TFDS downloads it and needs TensorFlow for that, once. With your own copy as PNG files in a folder or an
archive no TensorFlow is needed. 50,000 train, 10,000 are held out; 0.15 GB, which live on the accelerator.
Networks as in Soft-IntroVAE's CIFAR-10 runs; beta and margin are a start that nobody has tuned.
"""

import ml_collections

from configs import default


def get_config() -> ml_collections.ConfigDict:
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
    config.objective.beta = 4.0
    config.objective.margin = 80.0
    config.objective.warmup_steps = 5_000
    config.checkpoint.every = 5_000
    config.log.pictures_every = 5_000
    return config
