"""ProGAN's TFRecords, one file for each size: NAME-rXX.tfrecords holds 2**XX pixels, as `shape` and `data`."""

from collections.abc import Sequence
import dataclasses
import pathlib
import re

import numpy as np

from introvae_jax.data.images import BadImage
from introvae_jax.data.readers.base import digest, natural
from introvae_jax.errors import UserError


@dataclasses.dataclass(frozen=True)
class TfRecords:
    """Records by file and offset; a `base.Form`."""

    places: Sequence[tuple[pathlib.Path, int]]
    names: Sequence[str]
    passed_over: Sequence[tuple[str, str]]
    fingerprint: str
    splits: None = None

    def read(self, index: int) -> np.ndarray:
        from tensorflow_datasets.proto import tf_example_pb2  # here, as it takes a while

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


def open_tfrecords(paths: Sequence[pathlib.Path], size: int, others: Sequence[pathlib.Path] = ()) -> TfRecords:
    """The records of the files for `size`, or for the next larger, or for the largest there is.

    others: what lies beside them and is no TFRecord.
    """
    side = {path: 2 ** int(match[1]) if (match := re.search(r"-r(\d+)\.tfrecord", path.name)) else 0 for path in paths}
    best = min(side.values(), key=lambda side: (side < size, abs(side - size)))
    chosen = sorted((path for path in paths if side[path] == best), key=lambda path: natural(path.name))
    places, names, passed_over = [], [], [(path.name, "not a TFRecord file") for path in others]
    for path in chosen:
        offsets, problems = _offsets(path)
        places += [(path, offset) for offset in offsets]
        set_name = re.sub(r"-r\d+", "", path.name)  # without the size: the same images are held out at every size
        names += [f"{set_name}/{i:06d}" for i in range(len(offsets))]
        passed_over += problems
    if not places:
        raise UserError(f"{chosen[0]}: no whole record in it")
    return TfRecords(places, names, passed_over, digest(f"{path.name} {path.stat().st_size}" for path in chosen))


def _offsets(path: pathlib.Path) -> tuple[list[int], list[tuple[str, str]]]:
    """Where each record begins; what follows a damaged one cannot be found."""
    records, offsets, end = _records(path), [], path.stat().st_size
    while (offset := records.get_state()["reader_offset"]) < end:
        try:
            next(records)
        except (ValueError, MemoryError, OverflowError) as error:
            reason = str(error).partition(":")[0] or type(error).__name__
            return offsets, [(f"{path.name} from record {len(offsets)} on", f"damaged or cut short ({reason})")]
        offsets.append(offset)
    return offsets, []


def _records(path: pathlib.Path):
    from grain import experimental

    return iter(experimental.TFRecordIterDataset(str(path)))
