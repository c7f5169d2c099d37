"""Drawn faces of any resolution, without a download: DiceBear's CC0 styles, one face for each seed."""

from collections.abc import Sequence
import dataclasses
import functools
import importlib.resources
import importlib.util
import io
import json
from typing import Any

import numpy as np
from PIL import Image

from introvae_jax.data.readers.base import digest
from introvae_jax.errors import UserError, install

STYLES = ("lorelei", "notionists", "open-peeps", "pixel-art")  # all CC0 1.0
DEFAULT_STYLE, DEFAULT_NUMBER = "open-peeps", 10_000
BACKGROUNDS = (
    "b6e3f4", "c0aede", "d1d4f9", "ffd5dc", "ffdfbf", "c3e8bd", "f4c7ab", "a9d6d0", "f3e6a5", "d8d8d8",
)  # fmt: skip


@dataclasses.dataclass(frozen=True)
class Avatars:
    """Faces by style and seed; a `base.Reader`."""

    size: int
    names: Sequence[str]
    fingerprint: str
    splits: None = None
    skipped: tuple[tuple[str, str], ...] = ()

    def read(self, index: int) -> np.ndarray:
        import dicebear
        import resvg_py

        style, _, seed = self.names[index].partition("/")
        options = {"seed": seed, "size": self.size, "backgroundColor": list(BACKGROUNDS)}
        drawing = dicebear.Avatar(_style(style), options).to_string()
        picture = resvg_py.svg_to_bytes(svg_string=drawing, background="#ffffff", skip_system_fonts=True)
        return np.asarray(Image.open(io.BytesIO(picture)).convert("RGB"))


def open_avatars(style: str, size: int, number: int) -> Avatars:
    """`number` faces of one style, "" for the default one. Raises UserError for an unknown style."""
    style = style or DEFAULT_STYLE
    if style not in STYLES:
        raise UserError(f"avatars:{style}: no such style; choose from {', '.join(STYLES)}")
    if any(importlib.util.find_spec(module) is None for module in ("dicebear", "dicebear_styles", "resvg_py")):
        raise UserError(f"avatars are drawn by packages that are missing: {install('avatars')}")
    names = [f"{style}/{i:06d}" for i in range(number or DEFAULT_NUMBER)]
    return Avatars(size, names, digest([*names, str(size)]))


@functools.cache
def _style(name: str) -> Any:
    import dicebear

    text = importlib.resources.files("dicebear_styles").joinpath(f"{name}.json").read_text(encoding="utf-8")
    return dicebear.Style(json.loads(text))
