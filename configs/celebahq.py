"""CelebA-HQ at 128, 256 or 1024 with the settings of the paper (argument: the resolution, 256 without one).

    python -m introvae_jax.prepare --source=SOURCE --name=celeb_a_hq --resolution=256
    python -m introvae_jax.main --config=configs/celebahq.py
    python -m introvae_jax.main --config=configs/celebahq.py:1024
    python -m introvae_jax.main --config=configs/celebahq.py:256,released

SOURCE is your copy of the 30,000 images, in any form: CelebAMask-HQ/CelebA-HQ-img, a folder or zip of 256px
images, data1024x1024.tar, ProGAN's TFRecords or HDF5. 29,000 train and 1,000 are held out. As PNG they take
about 0.8 GB at 128, 3 GB at 256 and 42 GB at 1024; the last is quicker to read with --format=jpeg.
The second argument chooses the settings: "paper", "released", those of the authors' code, or at 256
"soft_introvae", with Soft-IntroVAE's objective, blocks and channels. Published FID at 256: 5.19. Wants
accelerators: at 1024 the paper's authors used four for a batch of 12.
"""

import ml_collections

from configs import default
from introvae_jax.objectives import presets

CHANNELS = {
    128: (32, 64, 128, 256, 512),
    256: (32, 64, 128, 256, 512, 512),
    1024: (16, 32, 64, 128, 256, 512, 512, 512),
}
SOFT_CHANNELS = (64, 128, 256, 512, 512, 512)


def get_config(argument: str = "256") -> ml_collections.ConfigDict:
    resolution, _, preset = argument.partition(",")
    settings = presets.celebahq(resolution, preset or "paper")
    size = int(resolution)

    config = default.get_config()
    config.steps = 500_000
    config.data.source = "tfds"
    config.data.name = f"celeb_a_hq/{size}"
    config.data.size = size
    config.data.mirror = True
    config.data.test_fraction = 1 / 30
    config.data.cache_gib = 8.0
    config.model.channels = CHANNELS[size]
    config.model.dtype = "bfloat16"
    config.model.remat = size == 1024
    if preset == "soft_introvae":
        config.model.channels, config.model.block_norm = SOFT_CHANNELS, "branch"
    settings.apply(config, images=29_000)
    config.checkpoint.every = 5_000
    config.log.pictures_every = 5_000
    return config
