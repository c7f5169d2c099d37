"""Any folder of images, at 64x64.

    python -m introvae_jax.main --config=configs/folder.py --config.data.path=DIR

png, jpeg, webp, bmp, gif and tiff, nested folders, grey or colour; other sizes need other channels, for instance
    --config.data.size=32 --config.model.channels="(32, 64, 128)"
The margin follows the KL of real images and beta the reconstruction error, so neither has to be searched
(docs/objectives.md). 64 pixels want an accelerator: about 2 s a step on two CPU cores.
"""

import ml_collections

from configs import default


def get_config() -> ml_collections.ConfigDict:
    config = default.get_config()
    config.batch_size = 32
    config.data.mirror = True
    config.objective.margin_offset = 3.0
    config.objective.auto_beta = 2.5
    return config
