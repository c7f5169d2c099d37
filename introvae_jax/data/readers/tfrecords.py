"""ProGAN's TFRecords, one file for each size: NAME-rXX.tfrecords holds 2**XX pixels, as `shape` and `data`."""

from collections.abc import Sequence
import dataclasses
import pathlib
import re
from typing import Any

import numpy as np

from introvae_jax.data.images import BadImage
from introvae_jax.data.readers.base import digest, natural
from introvae_jax.errors import UserError

NAME = "TFRecord"


@dataclasses.dataclass(frozen=True)
class TfRecords:
    """Records by file and offset; a `base.Reader`."""

    places: Sequence[tuple[pathlib.Path, int]]
    names: Sequence[str]
    skipped: Sequence[tuple[str, str]]
    fingerprint: str
    splits: None = None

    def read(self, index: int) -> np.ndarray:
        from tensorflow_datasets.proto import tf_example_pb2  # here, as importing it takes a while

        path, offset = self.places[index]
        records = _records(path)
        records.set_state({"reader_offset": offset})
        try:
            feature = tf_example_pb2.Example.FromString(next(records)).features.feature
            shape = tuple(feature["shape"].int64_list.value)
            values = np.frombuffer(feature["data"].bytes_list.value[0], np.uint8)
            return np.ascontiguousarray(values.reshape(shape).transpose(1, 2, 0))
        except Exception as error:  # damaged protocol buffers, missing fields, values that do not fill the shape
            raise BadImage(f"no record of `shape` and `data` ({str(error) or type(error).__name__})") from error


def recognizes(path: pathlib.Path, head: bytes) -> bool:
    """True for a TFRecord file and for a folder that holds one, by their names: the format has no signature."""
    return bool(_split(path)[0])


def open_reader(path: pathlib.Path, size: int) -> TfRecords:
    """Opens the records of `size`, or of the next larger size, or of the largest size."""
    paths, others = _split(path)
    side = {path: 2 ** int(match[1]) if (match := re.search(r"-r(\d+)\.tfrecord", path.name)) else 0 for path in paths}
    best = min(side.values(), key=lambda side: (side < size, abs(side - size)))
    chosen = sorted((path for path in paths if side[path] == best), key=lambda path: natural(path.name))
    places, names, skipped = [], [], [(path.name, "not a TFRecord file") for path in others]
    for path in chosen:
        offsets, problems = _offsets(path)
        places += [(path, offset) for offset in offsets]
        set_name = re.sub(r"-r\d+", "", path.name)  # without the size: every size has the same split
        names += [f"{set_name}/{i:06d}" for i in range(len(offsets))]
        skipped += problems
    if not places:
        raise UserError(f"{chosen[0]}: no whole record in it")
    return TfRecords(places, names, skipped, digest(f"{path.name} {path.stat().st_size}" for path in chosen))


def _split(path: pathlib.Path) -> tuple[list[pathlib.Path], list[pathlib.Path]]:
    """The TFRecord files at `path`, and the other files of that folder."""
    entries = sorted(path.iterdir()) if path.is_dir() else [path]
    records = [entry for entry in entries if ".tfrecord" in entry.name and entry.is_file()]
    return records, [entry for entry in entries if entry not in records]


def _offsets(path: pathlib.Path) -> tuple[list[int], list[tuple[str, str]]]:
    """The offset of each record. Records after a damaged one cannot be found."""
    offsets: list[int] = []
    records, end = _records(path), path.stat().st_size
    while (offset := records.get_state()["reader_offset"]) < end:
        try:
            next(records)
        except (ValueError, MemoryError, OverflowError) as error:
            reason = str(error).partition(":")[0] or type(error).__name__
            return offsets, [(f"{path.name} from record {len(offsets)} on", f"damaged or cut short ({reason})")]
        offsets.append(offset)
    return offsets, []


def _records(path: pathlib.Path) -> Any:
    from grain import experimental

    return iter(experimental.TFRecordIterDataset(str(path)))
