"""FFHQ (Flickr faces) at 128, 256 or 1024 (argument: the resolution, 256 without one).

    python -m introvae_jax.prepare --source=SOURCE --name=ffhq --resolution=256
    python -m introvae_jax.main --config=configs/ffhq.py

SOURCE is images1024x1024 (the folder, or a zip of it), thumbnails128x128, or any folder of its PNGs. The
first 60,000 images train, the last 10,000 are held out, as its authors say. About 2 GB at 128, 7 GB at 256,
90 GB at 1024. The settings are the paper's for CelebA-HQ at the same size; nobody has tuned them for FFHQ.
"""

import ml_collections

from configs import celebahq


def get_config(argument: str = "256") -> ml_collections.ConfigDict:
    config = celebahq.get_config(argument)
    config.data.name = f"ffhq/{config.data.size}"
    return config
