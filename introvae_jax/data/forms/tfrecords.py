"""ProGAN's TFRecords, one file for each size: NAME-rXX.tfrecords holds 2**XX pixels, as `shape` and `data`."""

from collections.abc import Sequence
import dataclasses
import pathlib
import re

import numpy as np

from introvae_jax.data.forms.base import digest
from introvae_jax.data.images import BadImage
from introvae_jax.errors import UserError


@dataclasses.dataclass(frozen=True)
class TfRecords:
    """Records by their offset; a `base.Form`."""

    path: pathlib.Path
    offsets: Sequence[int]
    names: Sequence[str]
    passed_over: Sequence[tuple[str, str]]
    fingerprint: str
    splits: None = None

    def read(self, index: int) -> np.ndarray:
        from tensorflow_datasets.proto import tf_example_pb2  # here, as it takes a while

        records = _records(self.path)
        records.set_state({"reader_offset": self.offsets[index]})
        try:
            feature = tf_example_pb2.Example.FromString(next(records)).features.feature
            shape = tuple(feature["shape"].int64_list.value)
            values = np.frombuffer(feature["data"].bytes_list.value[0], np.uint8)
            return np.ascontiguousarray(values.reshape(shape).transpose(1, 2, 0))
        except Exception as error:  # damaged protocol buffers, missing fields, values that do not fill the shape
            raise BadImage(f"no record of `shape` and `data` ({str(error) or type(error).__name__})") from error


def open_tfrecords(paths: Sequence[pathlib.Path], size: int) -> TfRecords:
    """The records of the file for `size`, or of the next larger, or of the largest there is."""
    side = {path: 2 ** int(match[1]) if (match := re.search(r"-r(\d+)\.tfrecord", path.name)) else 0 for path in paths}
    path = min(paths, key=lambda path: (side[path] < size, abs(side[path] - size)))
    offsets, passed_over = _offsets(path)
    if not offsets:
        raise UserError(f"{path}: no whole record in it")
    names = [f"{path.stem}/{i:06d}" for i in range(len(offsets))]
    return TfRecords(path, offsets, names, passed_over, digest([path.name, str(path.stat().st_size)]))


def _offsets(path: pathlib.Path) -> tuple[list[int], list[tuple[str, str]]]:
    """Where each record begins; what follows a damaged one cannot be found."""
    records, offsets, end = _records(path), [], path.stat().st_size
    while (offset := records.get_state()["reader_offset"]) < end:
        try:
            next(records)
        except (ValueError, MemoryError, OverflowError) as error:
            reason = str(error).partition(":")[0]
            return offsets, [(f"{path.name} from record {len(offsets)} on", f"damaged or cut short ({reason})")]
        offsets.append(offset)
    return offsets, []


def _records(path: pathlib.Path):
    from grain import experimental

    return iter(experimental.TFRecordIterDataset(str(path)))
