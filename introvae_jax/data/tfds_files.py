"""Checks a TFDS directory before TFDS opens it: a data set can name classes to import and files to read."""

from collections.abc import Iterator
import functools
import json
import pathlib
from typing import Any

from introvae_jax import disk
from introvae_jax.errors import UserError

MAX_JSON_BYTES = 2**24
_CLASS_KEYS = ("type", "pythonClassName", "python_class_name")  # "type" in sets of TFDS before 4.6


def require_safe(directory: pathlib.Path) -> None:
    """Raises UserError if TFDS would import code to read `directory`, or block on a FIFO.

    TFDS imports the module of every class named in features.json. Only TFDS's own feature classes are allowed.
    """
    disk.require_files(directory)
    path = directory / "features.json"
    if not path.is_file():
        return  # TFDS reports that itself
    if path.stat().st_size > MAX_JSON_BYTES:
        raise UserError(f"{path}: more than {MAX_JSON_BYTES >> 20} MiB; no data set of images has so many features")
    try:
        named = set(_classes(json.loads(path.read_text(encoding="utf-8"))))
    except (ValueError, RecursionError) as error:
        raise UserError(f"{path}: not readable as JSON ({error})") from error
    if foreign := sorted(named - _feature_classes()):
        raise UserError(
            f"{path}: names the class {foreign[0]}, which TFDS would import; only classes of tfds.features are allowed"
        )


def require_inside(builder: Any) -> None:
    """Raises UserError if a shard of the TFDS `builder` is not a regular file of its own directory."""
    directory = pathlib.Path(builder.data_path)
    for split in builder.info.splits.values():
        for shard in map(pathlib.Path, split.filepaths):
            if shard.parent != directory or not shard.is_file():
                raise UserError(
                    f"{directory}: its split {split.name} is in {shard}, which is not a file of the data set"
                )


def _classes(value: Any) -> Iterator[str]:
    """Yields every class name in `value`, also in JSON inside strings, which TFDS parses too."""
    if isinstance(value, dict):
        for key, item in value.items():
            if key in _CLASS_KEYS and isinstance(item, str):
                yield item
            yield from _classes(item)
    elif isinstance(value, list):
        for item in value:
            yield from _classes(item)
    elif isinstance(value, str) and "{" in value:
        try:
            inner = json.loads(value)
        except ValueError:
            return  # TFDS cannot parse it either
        yield from _classes(inner)


@functools.cache
def _feature_classes() -> frozenset[str]:
    from tensorflow_datasets.core import features  # here, as it takes a while

    public = (item for item in vars(features).values() if isinstance(item, type))
    return frozenset(f"{item.__module__}.{item.__name__}" for item in public)
