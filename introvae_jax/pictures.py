"""Grids of images as PNG files, and the records that curves are plotted from."""

import math
import os
from typing import Any

import numpy as np
from PIL import Image

from introvae_jax import disk
from introvae_jax.reporting import records


def to_uint8(images: np.ndarray) -> np.ndarray:
    """Float images in [0, 1] -> uint8, rounded to the nearest value."""
    return np.uint8(np.clip(images, 0.0, 1.0) * 255.0 + 0.5)


def grid(images: np.ndarray, columns: int | None = None, gap: int = 2) -> Image.Image:
    """One picture of images [N, H, W, C] in [0, 1], row by row; as square as can be without `columns`."""
    num, height, width, channels = images.shape
    columns = columns or math.ceil(math.sqrt(num))
    rows = math.ceil(num / columns)
    canvas = np.full((rows * (height + gap) - gap, columns * (width + gap) - gap, channels), 255, np.uint8)
    for i, image in enumerate(to_uint8(images)):
        top, left = (i // columns) * (height + gap), (i % columns) * (width + gap)
        canvas[top : top + height, left : left + width] = image
    return to_image(canvas)


def to_image(array: np.ndarray) -> Image.Image:
    """uint8 [H, W, 1 or 3] as a grey or colour image."""
    return Image.fromarray(array[..., 0] if array.shape[-1] == 1 else array)


def pairs(images: np.ndarray, reconstructions: np.ndarray, columns: int = 6) -> Image.Image:
    """Each image beside its reconstruction, `columns` pairs a row."""
    interleaved = np.stack([images, reconstructions], axis=1).reshape(-1, *images.shape[1:])
    return grid(interleaved, columns=2 * min(columns, len(images)))


def save(image: Image.Image, path: str | os.PathLike) -> None:
    """Writes a PNG, folders on the way included."""
    with disk.whole_file(path) as temporary:
        image.save(temporary, format="PNG")


def read_records(path: str | os.PathLike) -> list[dict[str, Any]]:
    """The records of a metrics.jsonl, without damaged lines and a last one cut short."""
    return records.read(disk.place(path), records.is_metrics)[0]
