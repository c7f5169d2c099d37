"""Reads prepared data sets: TFDS's ArrayRecord files, with random access and without TensorFlow."""

import os
import pathlib
from typing import Any

import numpy as np

from introvae_jax import disk, hashes
from introvae_jax.data import fast_decode, images, tfds_files
from introvae_jax.errors import UserError, one_line, warn

DEFAULT_DIR = "~/tensorflow_datasets"  # TFDS's own
PREPARE = "python -m introvae_jax.prepare makes one (see --help)"


class ArrayRecordImages:
    """Images `start` to `stop` of one split of a TFDS data source. cached: decodes each image once."""

    def __init__(self, records: Any, start: int, stop: int, target: images.Target, *, cached: bool, name: str):
        self._records, self._start, self._length = records, start, stop - start
        self._target, self._name = target, name
        shape = (self._length, target.size, target.size, target.channels)
        self._cache = np.empty(shape, np.uint8) if cached else None  # memory is allocated on the first write
        self._filled = np.zeros(self._length, bool)

    def __len__(self) -> int:
        return self._length

    def __getitem__(self, indices: np.ndarray) -> np.ndarray:
        rows = np.arange(self._length)[indices]
        if self._cache is None:
            return self._decode(rows)
        missing = np.unique(rows[~self._filled[rows]])
        if missing.size:
            self._cache[missing] = self._decode(missing)
            self._filled[missing] = True  # after the images, because other threads read concurrently
        return self._cache[rows]

    def _decode(self, rows: np.ndarray) -> np.ndarray:
        target = self._target
        out = np.empty((len(rows), target.size, target.size, target.channels), np.uint8)
        for image, row in zip(out, rows, strict=True):
            try:
                fast_decode.decode_into(image, _encoded(self._records[int(row) + self._start]), target)
            except Exception as error:  # ArrayRecord, protocol buffers and Pillow raise different types
                reason = one_line(error)[:200]
                raise UserError(
                    f"{self._name}: image {row + self._start} cannot be read ({reason}); prepare the data set again"
                ) from error
        return out


def open_splits(
    path: str, name: str, target: images.Target, *, test_fraction: float, cache_gib: float
) -> tuple[ArrayRecordImages, ArrayRecordImages, str]:
    """Opens the data set `name` ("celeb_a_hq/256") below `path`.

    The test split is the data set's split "test" or "validation"; if it has neither, the last `test_fraction` of
    "train". Returns training images, test images and the identity of the data set. Raises UserError if the data set
    does not exist or cannot be read.
    """
    import tensorflow_datasets as tfds

    directory = _version_of(data_dir(path), name)
    tfds_files.require_safe(directory)
    try:
        builder = tfds.builder_from_directory(directory)
        tfds_files.require_inside(builder)
        sources = builder.as_data_source(deserialize_method=tfds.decode.DeserializeMethod.RAW_BYTES)
    except UserError:
        raise
    except Exception as error:  # TFDS raises many types for a damaged or foreign folder
        reason = one_line(error)[:200]
        raise UserError(f"{directory}: not a data set in ArrayRecord format ({reason}); {PREPARE}") from error
    if "image" not in builder.info.features or "train" not in sources or len(sources["train"]) < 2:
        raise UserError(f"{directory}: no split `train` of two or more examples with an `image`; {PREPARE}")

    sides = [side for side in builder.info.features["image"].shape[:2] if side]
    if sides and min(sides) < target.size:
        shown = "x".join(map(str, sides))
        warn(f"{directory}: images of {shown} pixels are enlarged to config.data.size = {target.size}")

    train, held_out = sources["train"], sources.get("test") or sources.get("validation") or []
    count = len(train)
    if not len(held_out):
        count, held_out = len(train) - min(max(1, round(test_fraction * len(train))), len(train) - 1), train
    images_in_all = len(train) + (0 if held_out is train else len(held_out))
    bytes_needed = images_in_all * target.size**2 * target.channels
    cached, shown_name = bytes_needed <= cache_gib * 2**30, str(directory)
    test_start = count if held_out is train else 0
    return (
        ArrayRecordImages(train, 0, count, target, cached=cached, name=shown_name),
        ArrayRecordImages(held_out, test_start, len(held_out), target, cached=cached, name=shown_name),
        _identity(directory),
    )


def _encoded(record: bytes) -> bytes:
    """The encoded image of a tf.train.Example. TFDS's parser is slower: it converts all features to numpy arrays."""
    from tensorflow_datasets.proto import tf_example_pb2  # here, as importing it takes a while

    return tf_example_pb2.Example.FromString(record).features.feature["image"].bytes_list.value[0]


def data_dir(path: str) -> pathlib.Path:
    """The folder of data sets: `path`, or that of TFDS."""
    return disk.expand(path or os.environ.get("TFDS_DATA_DIR", DEFAULT_DIR))


def _version_of(root: pathlib.Path, name: str) -> pathlib.Path:
    """The folder of the newest version of `name`."""
    if not name:
        raise UserError("config.data.name is empty: name a prepared data set, for instance 'celeb_a_hq/256'")
    found = sorted((file.parent for file in (root / name).glob("*/dataset_info.json")), key=_version_key)
    if found:
        return found[-1]
    patterns = ("*/*/dataset_info.json", "*/*/*/dataset_info.json")
    there = sorted({file.parent.parent.relative_to(root).as_posix() for p in patterns for file in root.glob(p)})
    set_name, _, size = name.partition("/")
    raise UserError(
        f"config.data.name = {name!r}: no such set in {root} ({', '.join(there[:8]) or 'nothing'} there). Prepare it: "
        f"python -m introvae_jax.prepare --source=IMAGES --name={set_name} --resolution={size or 'SIZE'}; or train "
        "directly from a folder or archive: --config.data.source=folder --config.data.path=IMAGES"
    )


def _version_key(directory: pathlib.Path) -> list[int]:
    return [int(part) if part.isdecimal() else -1 for part in directory.name.split(".")]


def _identity(directory: pathlib.Path) -> str:
    """A digest of the metadata: counts, sizes, and the content hash if `prepare` wrote one."""
    files = (directory / name for name in ("dataset_info.json", "manifest.json"))
    return hashes.sha256(b"".join(file.read_bytes() for file in files if file.exists()))[:16]
