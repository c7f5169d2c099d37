"""Moments of real images, kept on disk: they are the same for every model that is scored against them."""

from collections.abc import Mapping, Sequence
import hashlib
import json
import os
import pathlib
from typing import Any
import zipfile

import numpy as np

from introvae_jax import disk
from introvae_jax.errors import warn
from introvae_jax.evaluation.accumulators import Moments
from introvae_jax.evaluation.extractors import View
from introvae_jax.metrics import frechet

VERSION = 1  # of what a stamp says; another one makes old files unknown


class Cache:
    """Files under the cache directory, each stamped with all that its moments depend on.

    stamp: which images, and how they were brought to their size.
    """

    def __init__(self, stamp: Mapping[str, Any], directory: str | os.PathLike | None = None):
        self._stamp = dict(stamp)
        self._directory = pathlib.Path(directory or disk.cache_dir() / "statistics")

    def load(self, keys: Sequence[tuple], views: Mapping[str, View]) -> dict[tuple, frechet.Moments]:
        """Those of the `keys` (view, kind of collection, start, stop) that are there."""
        found = {}
        for key in keys:
            if key[1] is Moments:
                stamp = self._of(key, views)
                moments = _read(self._path(stamp), stamp)
                found |= {key: moments} if moments is not None else {}
        return found

    def save(self, values: Mapping[tuple, Any], views: Mapping[str, View]) -> None:
        """Keeps the moments among `values`. A cache that cannot be written is a warning and no more."""
        for key, moments in values.items():
            if key[1] is Moments:
                stamp = self._of(key, views)
                try:
                    with disk.whole_file(self._path(stamp)) as temporary, temporary.open("wb") as file:
                        np.savez(file, mu=moments.mean, sigma=moments.covariance, stamp=stamp)
                except OSError as error:
                    warn(f"{self._directory}: statistics of real images are not kept ({error.strerror or error})")

    def _of(self, key: tuple, views: Mapping[str, View]) -> str:
        view, _, start, stop = key
        whole = {"version": VERSION, "images": self._stamp, "view": views[view].protocol, "start": start, "stop": stop}
        return json.dumps(whole, sort_keys=True)

    def _path(self, stamp: str) -> pathlib.Path:
        return self._directory / f"{hashlib.sha256(stamp.encode()).hexdigest()[:16]}.npz"


def _read(path: pathlib.Path, stamp: str) -> frechet.Moments | None:
    """The moments in a file of this stamp; None if there is none that is whole."""
    try:
        with np.load(path, allow_pickle=False) as file:
            if str(file["stamp"]) != stamp:
                return None
            said = json.loads(stamp)
            return frechet.Moments.of(said["stop"] - said["start"], file["mu"], file["sigma"])
    except FileNotFoundError:
        return None
    except (OSError, ValueError, TypeError, KeyError, EOFError, NotImplementedError, zipfile.BadZipFile) as error:
        warn(f"{path}: not readable ({error}); the statistics are measured anew")
        return None
