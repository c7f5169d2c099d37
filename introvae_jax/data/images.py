"""Decodes images to uint8 arrays of a target size and number of channels, and encodes them.

Arrays are uint8 [H, W, C] with values from 0 to 255; C is 1 (grey) or 3 (RGB).
"""

from collections.abc import Iterator
import contextlib
import dataclasses
import errno
import io
import logging
import os
import pathlib
import re
import warnings

import numpy as np
from PIL import Image, ImageOps
from PIL.TiffImagePlugin import TiffImageFile

from introvae_jax.data import jpeg, tiff

CROPS = 'one of "center", "none", "WxH" (centred) or "WxH+X+Y" (from the left and the top), in pixels'
FILTERS = {
    "lanczos": Image.Resampling.LANCZOS,
    "bicubic": Image.Resampling.BICUBIC,
    "bilinear": Image.Resampling.BILINEAR,
    "box": Image.Resampling.BOX,
}
FORMATS = ("PNG", "JPEG", "WEBP", "BMP", "GIF", "TIFF")
FORMAT_WORDS = "png, jpeg, webp, bmp, gif or tiff"
SUFFIXES = (".png", ".jpg", ".jpeg", ".webp", ".bmp", ".gif", ".tif", ".tiff")
KEPT_FORMATS = ("PNG", "JPEG", "MPO")  # a prepared data set may hold their bytes unchanged
MAX_BYTES = 2**28
# Errors about one file; others (a failing disk, a server that does not respond) concern the machine.
OF_ONE_FILE = (errno.ENOENT, errno.EACCES, errno.EPERM, errno.ELOOP, errno.ENAMETOOLONG, errno.EISDIR, errno.ENOTDIR)
MAX_PIXELS = 2**26  # 8192 x 8192; an image that unpacks to more counts as a decompression bomb
MAX_SCANS = 500  # of a JPEG; decoding a scan takes as long as an image, and encoders write about ten

_PNG_16_BIT = b"\x89PNG" + b"\x10"  # the first bytes, and the depth in the header

logging.getLogger("PIL").setLevel(logging.CRITICAL)  # about damaged files, which BadImage reports
warnings.filterwarnings("ignore", module="PIL")  # about bombs, where MAX_PIXELS is stricter, and about EXIF data


class BadImage(Exception):
    """The image cannot be decoded; the message says why."""


@dataclasses.dataclass(frozen=True)
class Target:
    """The size and format to which images are converted.

    size: pixels per side. channels: 1 (grey) or 3 (RGB). crop: see CROPS. resize: one of FILTERS, all antialiased.
    """

    size: int
    channels: int
    crop: str = "center"
    resize: str = "lanczos"


@dataclasses.dataclass(frozen=True)
class Decoded:
    """A decoded image.

    array: uint8 [size, size, channels]. width, height: of the original, in pixels. changes: conversions other than
    cropping and shrinking ("L to RGB", ...). fits: True if the original file already holds exactly this array.
    """

    array: np.ndarray
    width: int
    height: int
    changes: tuple[str, ...]
    fits: bool


def read(path: str | os.PathLike[str]) -> bytes:
    """The content of a file. Raises BadImage if it is not a regular file, is too large or cannot be read."""
    path = pathlib.Path(path)
    try:
        if not path.is_file():
            raise BadImage("a broken link" if path.is_symlink() else "no regular file")
        if path.stat().st_size > MAX_BYTES:
            raise BadImage(f"more than {MAX_BYTES >> 20} MiB")
        return path.read_bytes()
    except OSError as error:
        if error.errno not in OF_ONE_FILE:
            raise
        raise BadImage(error.strerror or str(error)) from error


def decode(image: bytes | np.ndarray, target: Target) -> Decoded:
    """Decodes, crops, resizes and converts `image`, encoded or uint8 [H, W, C].

    Transparent pixels become white, EXIF rotation is applied, 16-bit values are scaled to 8 bits, and an animation is
    reduced to its first frame. Raises BadImage for damaged or truncated images and for anything that is not an image.
    """
    with _as_bad_image():
        file = _open(image)
        original = file.size
        picture, changes = _convert(file, "L" if target.channels == 1 else "RGB")
        if file.mode in ("RGB", "RGBA", "LA") and _has_16_bits(image, file):
            changes.append("16 bits to 8")  # which Pillow does silently
        picture = _crop(picture, target.crop)
    size = (target.size, target.size)
    if min(picture.size) < target.size:
        changes.append(f"enlarged from {picture.width}x{picture.height}")
    fits = not changes and original == picture.size == size and isinstance(image, bytes) and file.format in KEPT_FORMATS
    if picture.size != size:
        picture = picture.resize(size, FILTERS[target.resize])
    array = np.asarray(picture, np.uint8).reshape(*size, target.channels)
    return Decoded(array, *original, tuple(changes), fits)


def decode_whole(image: bytes | np.ndarray) -> np.ndarray:
    """Decodes `image` like `decode`, but to RGB of its original size: uint8 [H, W, 3]. Raises BadImage."""
    with _as_bad_image():
        return np.asarray(_convert(_open(image), "RGB")[0], np.uint8)


def encode(array: np.ndarray, encoding: str, quality: int) -> bytes:
    """Encodes uint8 [H, W, C] as "png", or as "jpeg" of `quality` (1 to 100)."""
    picture, file = Image.fromarray(array.squeeze(-1) if array.shape[-1] == 1 else array), io.BytesIO()
    if encoding == "png":
        picture.save(file, "PNG")
    else:
        picture.save(file, "JPEG", quality=quality)
    return file.getvalue()


def crop_box(crop: str, width: int, height: int) -> tuple[int, int, int, int]:
    """Left, top, right, bottom of `crop` in an image of this size. Raises ValueError if `crop` is none of CROPS."""
    if crop == "none":
        return 0, 0, width, height
    if crop == "center":
        crop = f"{min(width, height)}x{min(width, height)}"
    match = re.fullmatch(r"(\d+)x(\d+)(?:\+(\d+)\+(\d+))?", crop)
    if not match:
        raise ValueError(f"crop {crop!r}: must be {CROPS}")
    w, h = int(match[1]), int(match[2])
    left, top = ((width - w) // 2, (height - h) // 2) if match[3] is None else (int(match[3]), int(match[4]))
    return left, top, left + w, top + h


@contextlib.contextmanager
def _as_bad_image() -> Iterator[None]:
    """Turns every error about an image into BadImage."""
    try:
        yield
    except (BadImage, MemoryError):
        raise
    except Exception as error:  # Pillow raises many types for damaged files
        raise BadImage(_reason(error)) from error


def _open(image: bytes | np.ndarray) -> Image.Image:
    """Reads the header. Raises BadImage if decoding would take too much memory or time."""
    file = _undecoded(image)
    if file.width * file.height > MAX_PIXELS:
        raise BadImage(f"{file.width}x{file.height} pixels; more than {MAX_PIXELS / 1e6:.0f} million are refused")
    if not all(file.size):
        raise BadImage("no pixels")
    if isinstance(image, bytes) and file.format in ("JPEG", "MPO"):
        scans = jpeg.scans(image)
        if scans > MAX_SCANS or scans * file.width * file.height > 32 * MAX_PIXELS:
            raise BadImage(f"{scans} scans of {file.width}x{file.height} pixels, which take too long to decode")
    return file


def _has_16_bits(image: bytes | np.ndarray, file: Image.Image) -> bool:
    if isinstance(file, TiffImageFile):
        return max(file.tag_v2.get(tiff.BITS_PER_SAMPLE, (8,))) > 8
    return isinstance(image, bytes) and image[:4] + image[24:25] == _PNG_16_BIT


def _undecoded(image: bytes | np.ndarray) -> Image.Image:
    if isinstance(image, bytes):
        if not image:
            raise BadImage("empty")
        if image[:4] in tiff.MAGIC:
            try:
                tiff.require_bounded(image, MAX_PIXELS)
            except ValueError as error:
                raise BadImage(f"tiff {error}") from error
        return Image.open(io.BytesIO(image), formats=FORMATS)
    if image.dtype != np.uint8 or image.ndim != 3 or image.shape[2] not in (1, 3):
        raise BadImage(f"an array {image.dtype} {list(image.shape)}, not uint8 [height, width, 1 or 3]")
    return Image.fromarray(image.squeeze(-1) if image.shape[2] == 1 else image)


def _convert(file: Image.Image, mode: str) -> tuple[Image.Image, list[str]]:
    """Rotates the image upright and converts it to `mode` ("L" or "RGB"). Returns it with a list of the changes."""
    frames = "first page" if file.format == "TIFF" else "first frame of an animation"
    changes = [frames] if getattr(file, "is_animated", False) else []
    if isinstance(file, TiffImageFile) and file.tag_v2.get(tiff.ORIENTATION, 1) in range(2, 9):
        changes.append("rotated as its EXIF data say")  # which Pillow does while loading
    file.load()
    image = file
    try:
        if file.getexif().get(0x0112, 1) in range(2, 9):
            image = ImageOps.exif_transpose(file)
            changes.append("rotated as its EXIF data say")
    except Exception:  # Pillow raises many types for invalid EXIF data
        changes.append("unreadable EXIF data left out")
    source = image.mode
    if source.startswith("I"):
        values = np.asarray(image, np.float64)
        largest = 65535 if source != "I" or values.max() > 255 else 255
        image = Image.fromarray(np.uint8(np.clip(values / largest, 0, 1) * 255 + 0.5))
    if source == "F":
        raise BadImage("floating-point values, whose range is not known")
    if image.has_transparency_data:
        layer = image.convert("RGBA")
        image = Image.alpha_composite(Image.new("RGBA", layer.size, "white"), layer)
        if source == mode:
            changes.append("transparent colour to white")
    if source != mode:
        changes.append(f"{source} to {mode}")
    return image.convert(mode), changes


def _crop(image: Image.Image, crop: str) -> Image.Image:
    box = crop_box(crop, *image.size)
    if box[0] < 0 or box[1] < 0 or box[2] > image.width or box[3] > image.height:
        raise BadImage(f"{image.width}x{image.height}, too small for the crop {crop}")
    return image.crop(box)


def _reason(error: Exception) -> str:
    """A short reason why a file cannot be decoded."""
    if isinstance(error, Image.UnidentifiedImageError):
        return f"not a {FORMAT_WORDS} image"
    if isinstance(error, Image.DecompressionBombError):
        return f"more than {MAX_PIXELS / 1e6:.0f} million pixels are refused"
    if "decoder object" in str(error):
        return "a webp image that is cut short or damaged"
    return str(error).split("\n")[0] or type(error).__name__
