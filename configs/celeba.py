"""CelebA, aligned faces, at 64 or 128 (argument: the resolution, 64 without one).

    python -m introvae_jax.prepare --source=img_align_celeba.zip --name=celeb_a --resolution=64 --crop=178x178
    python -m introvae_jax.main --config=configs/celeba.py

The source is the official zip of 202,599 images of 178x218, or the folder it unpacks to; the square in the
middle is kept. 182,637 train; held out are the official test images, the last 19,962. About 2 GB at 64 and
6 GB at 128. At 128 the settings are the paper's for CelebA-HQ, at 64 the same with beta scaled by the number
of pixels; nobody has tuned them for CelebA.
"""

import ml_collections

from configs import default
from introvae_jax.objectives import presets

CHANNELS = {64: (32, 64, 128, 256), 128: (32, 64, 128, 256, 512)}


def get_config(argument: str = "64") -> ml_collections.ConfigDict:
    if argument not in ("64", "128"):
        raise ValueError(f"celeba.py:{argument}: the resolution is 64 or 128")
    size, settings = int(argument), presets.celebahq("128", "paper")

    config = default.get_config()
    config.steps = 500_000
    config.data.source = "tfds"
    config.data.name = f"celeb_a/{size}"
    config.data.size = size
    config.data.mirror = True
    config.model.channels = CHANNELS[size]
    config.model.dtype = "bfloat16"
    settings.apply(config, images=182_637)
    config.objective.beta *= (128 / size) ** 2
    config.checkpoint.every = 5_000
    config.log.pictures_every = 5_000
    return config
