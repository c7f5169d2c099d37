"""PNG files that a run leaves behind: grids of images and the plot of its curves."""

from collections.abc import Sequence
import json
import math
import os
import pathlib
from typing import Any

import numpy as np
from PIL import Image

from introvae_jax import disk


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
    """The records of a metrics.jsonl; a last line cut short by a kill is left out."""
    records = []
    with pathlib.Path(path).open(encoding="utf-8") as lines:
        for line in lines:
            if line.endswith("\n"):
                records.append(json.loads(line))
    return records


def curves(records: Sequence[dict[str, Any]], path: str | os.PathLike, margin: float | None) -> None:
    """Plots losses and adversarial health over steps into a PNG. margin: drawn as a line, if any."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    panels = {
        "KL to the prior (nats)": ("kl_real", "kl_rec", "kl_fake"),
        "reconstruction (half squared error)": ("loss_rec",),
        "share of the hinge that is active": ("hinge_rec_active", "hinge_fake_active"),
        "gradient norm": ("grad_norm_encoder", "grad_norm_decoder"),
    }
    figure = Figure(figsize=(11, 7), layout="constrained")
    FigureCanvasAgg(figure)
    for axes, (title, names) in zip(figure.subplots(2, 2).flat, panels.items(), strict=True):
        for name in names:
            points = [(r["step"], r[name]) for r in records if name in r]
            if points:
                axes.plot(*zip(*points, strict=True), label=name)
        if title.startswith("KL") and margin is not None:
            axes.axhline(margin, color="grey", linestyle=":", label="margin")
        if title.startswith(("gradient", "reconstruction")):
            axes.set_yscale("log")
        axes.set(title=title, xlabel="step")
        if axes.lines:
            axes.legend()
    with disk.whole_file(path) as temporary:
        figure.savefig(temporary, format="png", dpi=100)
