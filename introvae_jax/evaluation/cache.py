"""Caches the moments of real images on disk, because they are the same for every model."""

from collections.abc import Mapping, Sequence
import json
import os
import pathlib
from typing import Any
import zipfile

import numpy as np

from introvae_jax import disk, hashes
from introvae_jax.errors import warn
from introvae_jax.evaluation.extractors import FeatureExtractor
from introvae_jax.evaluation.image_sets import Part
from introvae_jax.metrics.frechet import Moments, MomentsAccumulator

VERSION = 1  # of the cache keys; a change invalidates old files


class Cache:
    """Cache files; the key of a file contains everything that its moments depend on.

    cache_key: of the set of images. directory: by default `statistics` in the cache directory.
    """

    def __init__(self, cache_key: Mapping[str, Any], directory: str | os.PathLike[str] | None = None):
        self._cache_key = dict(cache_key)
        self._directory = pathlib.Path(directory or disk.cache_dir() / "statistics")

    def load(self, parts: Sequence[Part], extractors: Mapping[str, FeatureExtractor]) -> dict[Part, Moments]:
        """Returns the moments of the `parts` that are cached."""
        found: dict[Part, Moments] = {}
        for part in parts:
            if part.accumulator is MomentsAccumulator:
                key = self._key(part, extractors)
                moments = _read(self._path(key), key)
                found |= {part: moments} if moments is not None else {}
        return found

    def save(self, values: Mapping[Part, Any], extractors: Mapping[str, FeatureExtractor]) -> None:
        """Writes the moments among `values`. Warns if the cache cannot be written."""
        for part, moments in values.items():
            if part.accumulator is MomentsAccumulator:
                key = self._key(part, extractors)
                try:
                    with disk.atomic_write(self._path(key)) as temporary, temporary.open("wb") as file:
                        np.savez(file, mu=moments.mean, sigma=moments.covariance, stamp=key)
                except OSError as error:
                    warn(f"{self._directory}: statistics of real images are not cached ({error.strerror or error})")

    def _key(self, part: Part, extractors: Mapping[str, FeatureExtractor]) -> str:
        whole = {
            "version": VERSION, "images": self._cache_key, "view": extractors[part.features].metadata,
            "start": part.start, "stop": part.stop,
        }  # fmt: skip
        return json.dumps(whole, sort_keys=True)

    def _path(self, key: str) -> pathlib.Path:
        return self._directory / f"{hashes.sha256(key.encode())[:16]}.npz"


def _read(path: pathlib.Path, key: str) -> Moments | None:
    """The moments in a file with this key; None if the file is missing, damaged or of another key."""
    try:
        with np.load(path, allow_pickle=False) as file:
            if str(file["stamp"]) != key:
                return None
            part = json.loads(key)
            return Moments.of(part["stop"] - part["start"], file["mu"], file["sigma"])
    except FileNotFoundError:
        return None
    except (OSError, ValueError, TypeError, KeyError, EOFError, NotImplementedError, zipfile.BadZipFile) as error:
        warn(f"{path}: not readable ({error}); the statistics are computed again")
        return None
