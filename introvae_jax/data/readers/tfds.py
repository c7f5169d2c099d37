"""Image data sets of TensorFlow Datasets (TFDS): read without TensorFlow, prepared with it."""

from collections.abc import Sequence
import dataclasses
import functools
import importlib.util
import re
from typing import Any

import numpy as np

from introvae_jax.data import tfds_files
from introvae_jax.data.arrayrecord import data_dir
from introvae_jax.data.readers.base import digest
from introvae_jax.errors import UserError, install, one_line


@dataclasses.dataclass(frozen=True)
class TfdsSet:
    """The images of all splits; a `base.Reader`."""

    name: str
    names: Sequence[str]
    splits: Sequence[str] | None
    places: Sequence[tuple[str, int]]  # split of the set and index in it
    fingerprint: str
    skipped: tuple[tuple[str, str], ...] = ()

    def read(self, index: int) -> bytes | np.ndarray:
        split, place = self.places[index]
        return _opened(self.name)[split][place]["image"]


def open_tfds(name: str) -> TfdsSet:
    """All images of the TFDS data set `name`. Its test or validation split is the test split.

    Raises UserError if there is no such data set, or if it cannot be prepared or read.
    """
    sets = _opened(name)
    held_out = "test" if "test" in sets else "validation"
    places = [(split, i) for split in sets for i in range(len(sets[split]))]
    names = [f"{split}/{i:07d}" for split, i in places]
    splits = ["test" if split == held_out else "train" for split, _ in places] if len(sets) > 1 else None
    return TfdsSet(name, names, splits, places, digest([name, *(f"{s} {len(sets[s])}" for s in sets)]))


@functools.cache
def _opened(name: str) -> dict[str, Any]:
    """The data source of each split, images still encoded."""
    import tensorflow_datasets as tfds

    for file in (data_dir("") / re.split("[/:]", name)[0]).rglob("features.json"):  # of all versions: TFDS chooses one
        tfds_files.require_safe(file.parent)
    try:
        builder = tfds.builder(name, data_dir=data_dir(""))
    except Exception as error:  # TFDS raises many types: not found, no such config, no such version
        raise UserError(f"tfds:{name}: {one_line(error)[:200]}") from error
    if "image" not in (builder.info.features or {}):
        raise UserError(f"tfds:{name}: its examples have no `image`")
    if not builder.is_prepared():
        _prepare(builder, name)
    tfds_files.require_inside(builder)
    try:
        return builder.as_data_source(decoders={"image": tfds.decode.SkipDecoding()})
    except NotImplementedError as error:
        raise UserError(
            f"tfds:{name}: prepared in {builder.data_path} in a format without random access. Prepare it again with "
            "tfds build --file_format=array_record"
        ) from error


def _prepare(builder: Any, name: str) -> None:
    if importlib.util.find_spec("tensorflow") is None:
        raise UserError(
            f"tfds:{name}: not prepared in {builder.data_path}, and TFDS needs TensorFlow to prepare it: "
            f"{install('tfds-prepare')}"
        )
    try:
        builder.download_and_prepare(file_format="array_record")
    except (Exception, AssertionError) as error:  # downloads, missing manual files, builders that are broken
        raise UserError(f"tfds:{name}: TFDS could not prepare it: {one_line(error)[:300]}") from error
