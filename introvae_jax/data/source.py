"""Where images come from: random access to decoded uint8 images, split once into training and test."""

from collections.abc import Callable, Mapping
import dataclasses
import hashlib
from typing import Any, Protocol

import numpy as np

from introvae_jax.data import digits, folder


class Source(Protocol):
    """Decoded images by index."""

    def __len__(self) -> int: ...

    def __getitem__(self, indices: np.ndarray) -> np.ndarray:
        """Images uint8 [len(indices), S, S, C]."""


@dataclasses.dataclass(frozen=True)
class Splits:
    """Disjoint and fixed: the same image is always in the same split.

    identity: a digest of what the images are, by which a resumed run knows that it sees the same ones.
    """

    train: Source
    test: Source
    identity: str


def _digits(data: Mapping[str, Any]) -> Splits:
    images, _ = digits.load()
    test = digits.is_test()
    return Splits(images[~test], images[test], hashlib.sha256(images.tobytes()).hexdigest()[:16])


def _folder(data: Mapping[str, Any]) -> Splits:
    train, test, identity = folder.open_splits(
        data["path"], size=data["size"], channels=data["channels"], crop=data["crop"],
        resize=data["resize"], test_fraction=data["test_fraction"], cache_gib=data["cache_gib"],
    )  # fmt: skip
    return Splits(train, test, identity)


SOURCES: dict[str, Callable[[Mapping[str, Any]], Splits]] = {"digits": _digits, "folder": _folder}


def open_splits(data: Mapping[str, Any]) -> Splits:
    """Training and test images as `config.data` describes them. Raises UserError if there are none."""
    return SOURCES[data["source"]](data)
