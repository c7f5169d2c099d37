"""The sources of `config.data.source`: random access to decoded images, split into training and test.

Images are uint8 [N, S, S, C] with values from 0 to 255; points of a 2-D density are float32 [N, 2].
"""

from collections.abc import Callable, Mapping
import dataclasses
from typing import Any, Protocol

import numpy as np

from introvae_jax import hashes
from introvae_jax.data import arrayrecord, densities, digits, folder, images


class Source(Protocol):
    """Decoded images, or points, by index."""

    def __len__(self) -> int: ...

    def __getitem__(self, indices: np.ndarray) -> np.ndarray:
        """Images uint8 [len(indices), S, S, C], or points float32 [len(indices), 2]."""


@dataclasses.dataclass(frozen=True)
class Splits:
    """The two splits, disjoint and fixed: the same image is always in the same split.

    identity: a digest of the images, by which a resumed run detects changes.
    """

    train: Source
    test: Source
    identity: str


def target_of(data: Mapping[str, Any]) -> images.Target:
    """The size and format to which `config.data` converts every image."""
    return images.Target(data["size"], data["channels"], data["crop"], data["resize"])


def _digits(_: Mapping[str, Any]) -> Splits:
    arrays = digits.load()[0]
    test = digits.is_test()
    return Splits(arrays[~test], arrays[test], hashes.sha256(arrays.tobytes())[:16])


def _folder(data: Mapping[str, Any]) -> Splits:
    limits = {"test_fraction": data["test_fraction"], "cache_gib": data["cache_gib"]}
    return Splits(*folder.open_splits(data["path"], target_of(data), **limits))


def _tfds(data: Mapping[str, Any]) -> Splits:
    cache_gib = 0 if data["cache"] == "device" else data["cache_gib"]  # the device holds all images
    limits = {"test_fraction": data["test_fraction"], "cache_gib": cache_gib}
    return Splits(*arrayrecord.open_splits(data["path"], data["name"], target_of(data), **limits))


def _density(data: Mapping[str, Any]) -> Splits:
    return Splits(*densities.open_splits(data["name"]))


SOURCES: dict[str, Callable[[Mapping[str, Any]], Splits]] = {
    "digits": _digits, "folder": _folder, "tfds": _tfds, "density": _density,
}  # fmt: skip


def open_splits(data: Mapping[str, Any]) -> Splits:
    """Opens the training and test images of `config.data`. Raises UserError if there are none."""
    return SOURCES[data["source"]](data)
