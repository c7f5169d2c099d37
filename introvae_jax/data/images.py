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
FORMATS = ("PNG", "JPEG", "WEBP")
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
        with Image.open(path, formats=FORMATS) as file:
            image = ImageOps.exif_transpose(file)
            image.load()
        image, conversion = _convert(image, "L" if channels == 1 else "RGB")
    except Exception as error:  # on damaged files Pillow raises whatever its parsers run into
        raise BadImage(_reason(error)) from error
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
    if source.startswith("I"):
        values = np.asarray(image, np.float64)
        largest = 65535 if source != "I" or values.max() > 255 else 255
        image = Image.fromarray(np.uint8(np.clip(values / largest, 0, 1) * 255 + 0.5))
    transparent = image.has_transparency_data
    if transparent:
        layer = image.convert("RGBA")
        image = Image.alpha_composite(Image.new("RGBA", layer.size, "white"), layer)
    if source == mode:
        return image.convert(mode), "transparent colour to white" if transparent else ""
    return image.convert(mode), f"{source} to {mode}"


def _reason(error: Exception) -> str:
    """What is wrong with a file, in few words."""
    text = str(error)
    if "cannot identify" in text:
        return "not an image"
    return text.split("\n")[0] or type(error).__name__
