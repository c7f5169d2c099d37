"""Reads pickled containers of numpy arrays without running anything in them."""

import io
from typing import Any

import numpy as np

from introvae_jax.torch_weights import unpickler


def read(content: bytes) -> Any:
    """Returns the containers of a pickle; its arrays are placeholders for `as_float32`.

    Raises `unpickler.Refused` if it asks for anything but containers and arrays, `unpickler.DAMAGE` if it is damaged.
    """
    functions = {
        "numpy.core.multiarray._reconstruct": lambda *arguments: unpickler.Object("array", arguments),
        "numpy.dtype": lambda *arguments: unpickler.Object("dtype", arguments),
    }
    rules = unpickler.Rules(functions, lambda module, name: False, frozenset({"numpy.ndarray"}), _no_persistent)
    return unpickler.load(io.BytesIO(content), rules, max_bytes=len(content) + 1)


def as_float32(placeholder: Any) -> np.ndarray:
    """The array that a placeholder describes. Raises ValueError unless it is a row-major array of float32."""
    match placeholder:
        case unpickler.Object(kind="array", state=(1, tuple() as shape, dtype, False, bytes() as numbers)):
            match dtype:
                case unpickler.Object(kind="dtype", arguments=("f4", *_), state=(_, "<", *_)):
                    return np.frombuffer(numbers, "<f4").reshape(shape)
    raise ValueError("something else than an array of float32")


def _no_persistent(_: Any) -> Any:
    raise unpickler.Refused("an object outside the file")
