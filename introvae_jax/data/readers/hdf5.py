"""HDF5 files of images, as ProGAN's scripts write them: `data256x256`, uint8 [N, C, H, W], one for each size."""

from collections.abc import Sequence
import dataclasses
import functools
import math
import pathlib
from typing import Any

import numpy as np

from introvae_jax.data.images import MAX_BYTES, MAX_PIXELS, BadImage
from introvae_jax.data.readers.base import digest
from introvae_jax.errors import UserError, install

MAX_IMAGES = 2**24
MAX_RATIO = 1032  # of deflate: a file cannot hold more values than this for each of its bytes
# HDF5 loads the library of any other filter from where HDF5_PLUGIN_PATH points.
FILTERS = {1: "deflate", 2: "shuffle", 3: "fletcher32", 4: "szip", 5: "nbit", 6: "scaleoffset", 32000: "lzf"}


NAME = "HDF5"


@dataclasses.dataclass(frozen=True)
class Hdf5:
    """The images of one data set in a file; a `base.Reader`."""

    path: pathlib.Path
    key: str
    channels_first: bool
    names: Sequence[str]
    fingerprint: str
    splits: None = None
    skipped: tuple[tuple[str, str], ...] = ()

    def read(self, index: int) -> np.ndarray:
        try:
            image = _file(self.path)[self.key][index]
        except Exception as error:  # h5py has many types for a chunk that is damaged or missing
            raise BadImage(f"unreadable ({error})") from error
        return np.ascontiguousarray(image.transpose(1, 2, 0)) if self.channels_first else image


def recognizes(path: pathlib.Path, head: bytes) -> bool:
    """True for an HDF5 file."""
    return head.startswith(b"\x89HDF\r\n\x1a\n")


def open_reader(path: pathlib.Path, size: int) -> Hdf5:
    """Opens the images of `size`, or of the next larger size, or of the largest size.

    Raises UserError if the file is damaged, holds no images, or would make HDF5 read another file.
    """
    try:
        file = _file(path)
        arrays = {key: item for key in file if getattr(item := _own(path, file, key), "dtype", None) == np.uint8}
    except UserError:
        raise
    except Exception as error:  # h5py has many types for damaged files
        raise UserError(f"{path}: not a whole HDF5 file ({error})") from error
    shapes = {key: array.shape for key, array in arrays.items() if getattr(array, "ndim", 0) == 4}
    images = {key: shape for key, shape in shapes.items() if {1, 3} & {shape[1], shape[3]}}
    if not images:
        raise UserError(f"{path}: no uint8 images [N, C, H, W] in it, only {', '.join(file) or 'nothing'}")
    side = {key: shape[2] for key, shape in images.items()}
    key = min(images, key=lambda key: (side[key] < size, abs(side[key] - size)))
    shape = images[key]
    _require_bounded(path, key, arrays[key])
    names = [f"{i:06d}" for i in range(shape[0])]  # without the size: every size has the same split
    return Hdf5(path, key, shape[1] in (1, 3), names, digest([key, str(shape), str(path.stat().st_size)]))


def _own(path: pathlib.Path, file: Any, key: str) -> Any:
    """The item `key`. Raises UserError if HDF5 would read its values from another file."""
    import h5py

    refused = f"{path}: `{key}` is {{}}, and a data set may read no other file; copy its values with h5repack"
    if not isinstance(file.get(key, getlink=True), h5py.HardLink):
        raise UserError(refused.format("a link"))  # a soft link can lead through an external one
    item = file[key]
    if isinstance(item, h5py.Dataset):
        layout = item.id.get_create_plist()  # before its shape, which opens the sources of a virtual data set
        if layout.get_layout() == h5py.h5d.VIRTUAL:
            raise UserError(refused.format("a virtual data set"))
        if layout.get_external_count():
            raise UserError(refused.format("stored in external files"))
    return item


def _require_bounded(path: pathlib.Path, key: str, array: Any) -> None:
    """Raises UserError if the declared size exceeds the limits for an image, a chunk, the file or memory."""
    shape, size = array.shape, path.stat().st_size
    sides = "x".join(map(str, shape))
    if math.prod(shape[1:]) > 3 * MAX_PIXELS:
        raise UserError(f"{path}: images of {sides.partition('x')[2]} values exceed the supported size")
    if shape[0] > MAX_IMAGES or math.prod(max(side, 1) for side in shape) > MAX_RATIO * size:
        raise UserError(f"{path}: `{key}` declares {sides} values, more than a file of {size} bytes can hold")
    if array.chunks and math.prod(array.chunks) > MAX_BYTES:
        raise UserError(
            f"{path}: `{key}` has chunks of {math.prod(array.chunks) >> 20} MiB, all of which are unpacked for each "
            f"image; write it with chunks of {MAX_BYTES >> 20} MiB or less"
        )
    layout = array.id.get_create_plist()
    unknown = {layout.get_filter(i)[0] for i in range(layout.get_nfilters())} - FILTERS.keys()
    if unknown:
        raise UserError(
            f"{path}: `{key}` is packed by filter {min(unknown)}; only {', '.join(FILTERS.values())} are read"
        )


@functools.cache
def _file(path: pathlib.Path) -> Any:
    """The open file, one for each process."""
    try:
        import h5py
    except ImportError as error:
        raise UserError(f"{path}: reading HDF5 needs h5py: {install('prepare')}") from error
    return h5py.File(path, "r")
