"""HDF5 files of images, as ProGAN's scripts write them: `data256x256`, uint8 [N, C, H, W], one for each size."""

from collections.abc import Sequence
import dataclasses
import functools
import pathlib
from typing import Any

import numpy as np

from introvae_jax.data.forms.base import digest
from introvae_jax.data.images import MAX_PIXELS, BadImage
from introvae_jax.errors import UserError, install


@dataclasses.dataclass(frozen=True)
class Hdf5:
    """The images of one data set in a file; a `base.Form`."""

    path: pathlib.Path
    key: str
    channels_first: bool
    names: Sequence[str]
    fingerprint: str
    splits: None = None
    passed_over: tuple = ()

    def read(self, index: int) -> np.ndarray:
        try:
            image = _file(self.path)[self.key][index]
        except Exception as error:  # h5py has many types for a chunk that is damaged or missing
            raise BadImage(f"unreadable ({error})") from error
        return np.ascontiguousarray(image.transpose(1, 2, 0)) if self.channels_first else image


def open_hdf5(path: pathlib.Path, size: int) -> Hdf5:
    """The images of `size`, or the next larger, or the largest there are."""
    try:
        file = _file(path)
        arrays = {key: item for key, item in file.items() if getattr(item, "dtype", None) == np.uint8}
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
    if np.prod(shape[1:]) > 3 * MAX_PIXELS:
        raise UserError(f"{path}: images of {'x'.join(map(str, shape[1:]))} values are larger than any that is read")
    names = [f"{i:06d}" for i in range(shape[0])]  # without the size: the same images are held out at every size
    return Hdf5(path, key, shape[1] in (1, 3), names, digest([key, str(shape), str(path.stat().st_size)]))


@functools.cache
def _file(path: pathlib.Path) -> Any:
    """The open file, one for each process."""
    try:
        import h5py
    except ImportError as error:
        raise UserError(f"{path}: reading HDF5 needs h5py: {install('prepare')}") from error
    return h5py.File(path, "r")
