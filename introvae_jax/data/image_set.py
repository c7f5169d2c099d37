"""Images of a folder or an archive in their original size, for metrics of image sets."""

from collections.abc import Sequence

import numpy as np

from introvae_jax.data import folder, images, readers
from introvae_jax.data.readers.base import Reader, digest
from introvae_jax.errors import UserError


class ImageSet:
    """Images of one size, decoded at each access; a `source.Source`. shape: (height, width, channels) of each."""

    def __init__(self, reader: Reader, entries: Sequence[int], shape: tuple[int, ...], target: images.Target | None):
        self.shape = shape
        self._reader, self._entries, self._target = reader, entries, target

    def __len__(self) -> int:
        return len(self._entries)

    def __getitem__(self, indices: np.ndarray) -> np.ndarray:
        return np.stack([self._read(self._entries[i]) for i in np.arange(len(self))[indices]])

    def _read(self, entry: int) -> np.ndarray:
        try:
            encoded = self._reader.read(entry)
            return images.decode(encoded, self._target).array if self._target else images.decode_whole(encoded)
        except images.BadImage as error:
            raise UserError(f"{self._reader.names[entry]}: {error}; remove it or replace it") from error


def open_image_set(place: str, target: images.Target | None = None) -> tuple[ImageSet, str]:
    """Opens the images at `place`; returns them and a digest of their names and sizes.

    target: if given, all images are cropped, resized and converted to it. Every image is decoded once: unreadable files
    are skipped, and one warning lists them. Raises UserError if there is no readable image, or if the images differ in
    size and there is no `target`.
    """
    if not place:
        raise UserError("empty path: name a folder or an archive of images")
    reader = readers.open_reader(place, size=target.size if target else 1024)

    def shape_of(encoded: bytes | np.ndarray) -> tuple[tuple[int, ...], Sequence[str]]:
        array = images.decode(encoded, target).array if target else images.decode_whole(encoded)
        return array.shape[:2], ()

    shapes = dict(folder.read_all(reader, shape_of))
    entries = list(shapes)
    if not entries:
        raise UserError(f"{place}: no readable image found ({images.FORMAT_WORDS})")
    first = shapes[entries[0]]
    other = next((i for i in entries if shapes[i] != first), None)
    if target is None and other is not None:
        raise UserError(
            f"{place}: images of different sizes, {reader.names[entries[0]]} of {first[1]}x{first[0]} and "
            f"{reader.names[other]} of {shapes[other][1]}x{shapes[other][0]} pixels; --size=N resizes all to NxN"
        )
    shape = (target.size, target.size, target.channels) if target else (*first, 3)
    return ImageSet(reader, entries, shape, target), digest([reader.fingerprint, *(reader.names[i] for i in entries)])
