"""Checks and converts what users pass to a model: images, points, latents, seeds and counts."""

from collections.abc import Mapping, Sequence
import io
import operator
from typing import Any, SupportsIndex

import jax.numpy as jnp
import numpy as np
import numpy.typing as npt
from PIL import Image, ImageOps

from introvae_jax.data import images as images_lib
from introvae_jax.data import source
from introvae_jax.errors import UserError

Images = npt.ArrayLike | Image.Image | Sequence[Image.Image]  # arrays, nested lists, or Pillow images
ROUNDING = 1e-5  # float images may exceed [0, 1] by this rounding error
PNG_MODES = ("1", "L", "LA", "P", "RGB", "RGBA", "I", "I;16")  # of Pillow; PNG files hold no others
SEEDS = 2**32


class InvalidArgument(UserError, ValueError):
    """An argument that a model cannot take. Programs catch it as ValueError; commands show it as one line."""


def whole_number(name: str, value: SupportsIndex) -> int:
    """Returns `value` as an int, 1 or more. Raises InvalidArgument for anything else."""
    try:
        number = operator.index(value)
    except TypeError:
        number = 0
    if number < 1:
        raise InvalidArgument(f"{name} = {value!r}: must be a whole number, 1 or more")
    return number


def seeds(values: Sequence[int]) -> np.ndarray:
    """Returns seeds as uint32 [N]. Raises InvalidArgument unless they are whole numbers from 0 to 2**32 - 1."""
    if np.ndim(values) != 1:
        raise InvalidArgument(f"seeds = {values!r}: must be a sequence of whole numbers")
    if len(values) == 0:
        raise InvalidArgument("no seeds: at least one is needed")
    for seed in values:
        if not isinstance(seed, int | np.integer) or not 0 <= seed < SEEDS:
            raise InvalidArgument(f"seed {seed}: must be at least 0 and below 2**32, a whole number")
    return np.asarray(values, np.uint32)


def seed_range(first: int, num: int) -> range:
    """The seeds first, ..., first + num - 1. Raises InvalidArgument if one of them is not a valid seed."""
    num, first = whole_number("num", num), int(seeds([first])[0])
    seeds([first + num - 1])
    return range(first, first + num)


def latents(z: npt.ArrayLike, z_dim: int) -> np.ndarray:
    """Returns latents as float32 [N, z_dim]. Raises InvalidArgument for another shape or type, NaN or infinity."""
    return _finite("latents", _numbers("latents", z), (z_dim,))


def points(values: Images, shape: tuple[int, ...]) -> np.ndarray:
    """Returns points as float32 [N, 2]. Raises InvalidArgument for another shape or type, NaN or infinity."""
    return _finite("points", _numbers("points", values), shape)


def images(values: Images, data: Mapping[str, Any], shape: tuple[int, ...]) -> np.ndarray:
    """Returns images as float32 [N, H, W, C] in [0, 1].

    values: an array or nested lists [N, H, W, C], uint8 or float in [0, 1]; or one or several Pillow images, which
    are cropped, resized and converted like the training images. data: `config.data`. shape: (H, W, C).
    Raises InvalidArgument for another shape or type, values outside the range, NaN or infinity.
    """
    if isinstance(values, Image.Image):
        values = [values]
    if isinstance(values, list | tuple) and any(isinstance(value, Image.Image) for value in values):
        values = [_from_pillow(value, source.target_of(data)) for value in values]
    array = _numbers("images", values)
    if array.dtype == np.uint8:
        return _finite("images", array, shape) / np.float32(255)
    if not jnp.issubdtype(array.dtype, jnp.floating):
        raise InvalidArgument(f"images of type {array.dtype}: this model takes uint8, or floats in [0, 1]")
    array = _finite("images", array, shape)
    low, high = array.min(), array.max()
    if low < -ROUNDING or high > 1 + ROUNDING:
        raise InvalidArgument(
            f"images with values from {low:.6g} to {high:.6g}: floats must be in [0, 1]; divide values from 0 to 255 "
            "by 255, or pass uint8"
        )
    return array


def _numbers(what: str, values: Any) -> np.ndarray:
    """Returns `values` as an array of real numbers, without changing their dtype."""
    try:
        array = np.asarray(values)
    except (TypeError, ValueError) as error:  # lists of different lengths
        raise InvalidArgument(f"{what}: not an array of one shape ({error})") from error
    if not jnp.issubdtype(array.dtype, jnp.number) or np.iscomplexobj(array):
        raise InvalidArgument(f"{what} of type {array.dtype}: must be real numbers")
    return array


def _finite(what: str, array: np.ndarray, shape: tuple[int, ...]) -> np.ndarray:
    """Returns float32 [N, *shape] with N at least 1. Raises InvalidArgument for anything else."""
    if array.shape[1:] != shape or array.ndim != 1 + len(shape):
        expected = ", ".join(map(str, shape))
        raise InvalidArgument(f"{what} of shape {array.shape}: this model takes (N, {expected})")
    if len(array) == 0:
        raise InvalidArgument(f"no {what}: at least one is needed")
    with np.errstate(over="ignore"):
        array = array.astype(np.float32)
    if not np.isfinite(array).all():
        raise InvalidArgument(f"{what} with NaN or infinite values (as float32): all must be finite")
    return array


def _from_pillow(image: Any, target: images_lib.Target) -> np.ndarray:
    """Converts a Pillow image as `images_lib.decode` converts the same image from a file."""
    if not isinstance(image, Image.Image):
        raise InvalidArgument(f"a list of Pillow images contains a {type(image).__name__}: all must be Pillow images")
    file = io.BytesIO()
    try:
        upright = ImageOps.exif_transpose(image)
        upright = upright if upright.mode in PNG_MODES else upright.convert("RGB")
        upright.save(file, "PNG", compress_level=0)
        return images_lib.decode(file.getvalue(), target).array
    except (OSError, ValueError, images_lib.BadImage) as error:
        raise InvalidArgument(f"a Pillow image {image.mode} {image.size}: {error}") from error
