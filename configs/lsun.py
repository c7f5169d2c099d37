"""LSUN bedrooms or churches at 256 (argument: bedroom or church, bedroom without one).

    python -m introvae_jax.prepare --source=bedroom_train_lmdb --name=lsun_bedroom --resolution=256 --format=jpeg
    python -m introvae_jax.prepare --source=church_outdoor_train_lmdb --name=lsun_church --resolution=256 --format=jpeg
    python -m introvae_jax.main --config=configs/lsun.py:church

The source is the folder that the official zip unpacks to; it is read without TensorFlow. (tfds:lsun/bedroom
works too, where TFDS can prepare it.) 3,033,042 bedrooms take about 95 GB as JPEG, 126,227 churches 4 GB;
without --format=jpeg four times that. 5 % are held out. The settings are the paper's for 256x256 faces.
"""

import ml_collections

from configs import celebahq


def get_config(argument: str = "bedroom") -> ml_collections.ConfigDict:
    if argument not in ("bedroom", "church"):
        raise ValueError(f"lsun.py:{argument}: bedroom or church")
    config = celebahq.get_config("256")
    config.data.name = f"lsun_{argument}/256"
    config.data.cache_gib = 0.0  # larger than memory
    return config
