"""Sheets of images as picture files."""

import math
import os
import pathlib

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from introvae_jax import disk

FORMATS = {".png": "PNG", ".jpg": "JPEG", ".jpeg": "JPEG", ".webp": "WEBP"}  # of single pictures, by suffix
QUALITY = 95  # of JPEG and WebP
MOST_PIXELS = {"PNG": 65_535, "JPEG": 65_535, "WEBP": 16_383}  # per side; JPEG and WebP cannot hold more
READABLE = 128  # pixels per side; smaller images of a sheet are enlarged
SHEET_SIDE = 2048  # pixels per side; a sheet is not enlarged beyond this
GAP = 2  # pixels between the images of a sheet
HEADER = 16  # pixels for the names of the columns
FRAME_MS = 100  # duration of a frame of an animation


def to_uint8(images: np.ndarray) -> np.ndarray:
    """Float images in [0, 1] -> uint8, rounded to the nearest value."""
    return (np.clip(images, 0.0, 1.0) * 255.0 + 0.5).astype(np.uint8)


def factor(num: int, columns: int, height: int, width: int) -> int:
    """The integer factor by which the images of a sheet are enlarged, at least 1.

    The smallest factor that gives images READABLE pixels per side, limited so that the sheet has at most SHEET_SIDE
    pixels per side.
    """
    largest = max(columns * width, math.ceil(num / columns) * height)
    return max(1, min(math.ceil(READABLE / max(height, width)), SHEET_SIDE // largest))


def sheet_size(num: int, columns: int, height: int, width: int) -> tuple[int, int]:
    """Width and height in pixels of the picture that `grid` makes."""
    times, rows = factor(num, columns, height, width), math.ceil(num / columns)
    return columns * (times * width + GAP) - GAP, rows * (times * height + GAP) - GAP


def square(num: int) -> int:
    """The number of columns that makes a sheet as square as possible."""
    return math.ceil(math.sqrt(num))


def grid(images: np.ndarray, columns: int | None = None) -> Image.Image:
    """A sheet of images [N, H, W, C] in [0, 1], row by row. columns: by default as square as possible.

    Small images are enlarged by `factor`, each pixel to a square.
    """
    num, height, width, channels = images.shape
    columns = columns or square(num)
    times = factor(num, columns, height, width)
    full_width, full_height = sheet_size(num, columns, height, width)
    canvas = np.full((full_height, full_width, channels), 255, np.uint8)
    height, width = times * height, times * width
    for i, image in enumerate(to_uint8(images)):
        top, left = (i // columns) * (height + GAP), (i % columns) * (width + GAP)
        canvas[top : top + height, left : left + width] = enlarged(image, times)
    return to_image(canvas)


def enlarged(image: np.ndarray, times: int) -> np.ndarray:
    """An image [H, W, C] with each pixel as a square of `times` x `times`."""
    return image.repeat(times, axis=0).repeat(times, axis=1)


def to_image(array: np.ndarray) -> Image.Image:
    """Converts uint8 [H, W, 1 or 3] to a grey or colour image."""
    return Image.fromarray(array[..., 0] if array.shape[-1] == 1 else array)


def pairs(images: np.ndarray, reconstructions: np.ndarray, columns: int = 6) -> Image.Image:
    """A sheet with each image to the left of its reconstruction, `columns` pairs per row, and a header."""
    columns = min(columns, len(images))
    interleaved = np.stack([images, reconstructions], axis=1).reshape(-1, *images.shape[1:])
    sheet = grid(interleaved, columns=2 * columns)
    titled = Image.new(sheet.mode, (sheet.width, sheet.height + HEADER), "white")
    titled.paste(sheet, (0, HEADER))
    draw, font = ImageDraw.Draw(titled), ImageFont.load_default()
    left, right = "original ", "| reconstruction"
    pair = (sheet.width + GAP) // columns
    room = pair // 2 > max(draw.textlength(part, font=font) for part in (left, right))
    for i in range(columns if room else 1):
        bar = i * pair + pair // 2 - GAP if room else draw.textlength(left, font=font)
        draw.text((bar - draw.textlength(left, font=font), 2), left + right, fill="black", font=font)
    return titled


def save(image: Image.Image, path: str | os.PathLike[str]) -> None:
    """Writes a picture in the format of its suffix, one of FORMATS. Creates missing folders."""
    with disk.atomic_write(path) as temporary:
        image.save(temporary, format=FORMATS[pathlib.PurePath(path).suffix.lower()], quality=QUALITY)


def save_animation(images: np.ndarray, path: str | os.PathLike[str]) -> None:
    """Writes images [N, H, W, C] in [0, 1] as a looping GIF. Small images are enlarged as in a sheet of one image."""
    times = factor(1, 1, *images.shape[1:3])
    first, *others = [to_image(enlarged(image, times)) for image in to_uint8(images)]
    with disk.atomic_write(path) as temporary:
        first.save(temporary, format="GIF", save_all=True, append_images=others, duration=FRAME_MS, loop=0)
