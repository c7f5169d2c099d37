"""One image file -> one uint8 array of the wanted size and channels."""

import os

import numpy as np
from PIL import Image, ImageOps

CROPS = ("center", "none")
FILTERS = {
    "lanczos": Image.Resampling.LANCZOS,
    "bicubic": Image.Resampling.BICUBIC,
    "bilinear": Image.Resampling.BILINEAR,
    "box": Image.Resampling.BOX,
}
SUFFIXES = (".png", ".jpg", ".jpeg", ".webp")


class BadImage(Exception):
    """The file holds no image that can be decoded; the message says why."""


def read(
    path: str | os.PathLike, *, size: int, channels: int, crop: str = "center", resize: str = "lanczos"
) -> tuple[np.ndarray, str]:
    """Decodes, crops, resizes and converts the image at `path`.

    size: pixels of both sides. channels: 1 (grey) or 3 (RGB). crop: one of CROPS. resize: one of FILTERS.
    Transparent pixels are laid over white, EXIF rotation is applied, 16-bit values are scaled to 8.
    Returns uint8 [size, size, channels] and the conversion that was needed, "" if none.
    Raises BadImage for anything that is no whole image.
    """
    try:
        with Image.open(path) as file:
            image = ImageOps.exif_transpose(file)
            image.load()
    except (OSError, SyntaxError, ValueError, EOFError, Image.DecompressionBombError) as error:
        raise BadImage(_reason(error)) from error
    image, conversion = _convert(image, "L" if channels == 1 else "RGB")
    if crop == "center":
        side = min(image.size)
        left, top = (image.width - side) // 2, (image.height - side) // 2
        image = image.crop((left, top, left + side, top + side))
    if image.size != (size, size):
        image = image.resize((size, size), FILTERS[resize])
    return np.asarray(image, np.uint8).reshape(size, size, channels), conversion


def _convert(image: Image.Image, mode: str) -> tuple[Image.Image, str]:
    """The image in `mode` ("L" or "RGB"), and a word on how it got there."""
    source = image.mode
    if image.mode.startswith("I") or image.mode == "F":
        values = np.asarray(image, np.float64) / (65535 if _is_16_bit(image) else 255)
        image = Image.fromarray(np.uint8(np.clip(values, 0, 1) * 255 + 0.5))
    if image.has_transparency_data:
        layer = image.convert("RGBA")
        image = Image.alpha_composite(Image.new("RGBA", layer.size, "white"), layer)
    if source == mode:
        return image, ""
    return image.convert(mode), f"{source} to {mode}"


def _is_16_bit(image: Image.Image) -> bool:
    """Whether an integer image uses the 16-bit range."""
    return image.mode.startswith("I") and image.getextrema()[1] > 255


def _reason(error: Exception) -> str:
    """What is wrong with a file, in few words."""
    text = str(error)
    if "cannot identify" in text:
        return "not an image"
    return text.split("\n")[0] or type(error).__name__
