"""Drawn faces, no download, at any size from 16 to 1024 (argument: the resolution, 64 without one).

    pip install '.[avatars]'
    python -m introvae_jax.prepare --source=avatars --name=avatars --resolution=64
    python -m introvae_jax.main --config=configs/avatars.py

10,000 faces, the same ones for everybody, in a style under CC0 (--source=avatars:STYLE for another), drawn in
half a minute at 64. About 30 MB at 64, 0.5 GB at 1024. They stand in for CelebA-HQ where there is no network: same
pipeline, same sizes, simpler pictures. The margin follows the KL of real images and beta the reconstruction error
(docs/objectives.md). docs/speed.md shows what 205 s on a GPU give at 256, with
    --config.batch_size=32 --config.model.channels="(32,64,128,256,256,256)" --config.model.z_dim=256
    --config.model.dtype=bfloat16 --config.optim.learning_rate=3e-4 --config.objective.warmup_steps=600
    --config.objective.auto_beta=1.155
"""

import ml_collections

from configs import default


def get_config(argument: str = "64") -> ml_collections.ConfigDict:
    if argument not in [str(2**k) for k in range(4, 11)]:
        raise ValueError(f"avatars.py:{argument}: the resolution is a power of two from 16 to 1024")
    size = int(argument)
    stages = size.bit_length() - 3

    config = default.get_config()
    config.steps = 20_000
    config.batch_size = 16
    config.data.source = "tfds"
    config.data.name = f"avatars/{size}"
    config.data.size = size
    config.data.mirror = True
    config.model.channels = tuple(min(16 * 2**k, 512) for k in range(stages))
    config.model.z_dim = 128
    config.model.remat = size == 1024
    config.objective.margin_offset = 3.0
    config.objective.auto_beta = 2.5
    config.optim.learning_rate = 5e-4
    config.eval.metrics = ("swd1000", "reconstruction")  # once eval.every is set; no download
    config.log.pictures_every = 2_000
    return config
