"""Small images."""

import pathlib

import numpy as np
from PIL import Image


def blobs(count, seed, height=32, width=32, channels=3):
    """Smooth images, uint8 [count, height, width, channels]."""
    rng = np.random.default_rng(seed)
    corners = rng.integers(0, 256, (count, 4, 4, channels), dtype=np.uint8)
    smooth = [Image.fromarray(c.squeeze(-1) if channels == 1 else c).resize((width, height), 3) for c in corners]
    return np.stack([np.asarray(image).reshape(height, width, channels) for image in smooth])


def write(folder, images):
    """The folder, with the images as PNGs in it."""
    pathlib.Path(folder).mkdir(parents=True)
    for i, image in enumerate(images):
        Image.fromarray(image.squeeze(-1) if image.shape[-1] == 1 else image).save(folder / f"{i:04d}.png")
    return folder
