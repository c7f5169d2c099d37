"""Images of one size, just as a folder or an archive holds them: what two sets are compared by."""

from collections.abc import Sequence

import numpy as np

from introvae_jax.data import folder, images, readers
from introvae_jax.data.readers.base import Form, digest
from introvae_jax.errors import UserError


class Plain:
    """Images by index, decoded at each access; a `source.Source`. shape: (height, width, channels) of all of them."""

    def __init__(self, form: Form, entries: Sequence[int], shape: tuple[int, ...], target: images.Target | None):
        self.shape = shape
        self._form, self._entries, self._target = form, entries, target

    def __len__(self) -> int:
        return len(self._entries)

    def __getitem__(self, indices: np.ndarray) -> np.ndarray:
        return np.stack([self._read(self._entries[i]) for i in np.arange(len(self))[indices]])

    def _read(self, entry: int) -> np.ndarray:
        try:
            encoded = self._form.read(entry)
            return images.decode(encoded, self._target).array if self._target else images.decode_whole(encoded)
        except images.BadImage as error:
            raise UserError(f"{self._form.names[entry]}: {error}; remove it or put it right") from error


def open_plain(place: str, target: images.Target | None = None) -> tuple[Plain, str]:
    """The images at `place` and a digest of their names and sizes. target: what all are brought to, if given.

    Every image is decoded once, so that one that cannot be read is left out with a warning before anything is computed.
    Raises UserError if there is no image, or if the images differ in size without a `target`.
    """
    if not place:
        raise UserError("an empty name where a folder or an archive of images is needed")
    form = readers.open_form(place, size=target.size if target else 1024)

    def shape_of(encoded: bytes | np.ndarray) -> tuple[tuple[int, ...], Sequence[str]]:
        array = images.decode(encoded, target).array if target else images.decode_whole(encoded)
        return array.shape[:2], ()

    shapes = dict(folder.read_all(form, shape_of))
    entries = list(shapes)
    if not entries:
        raise UserError(f"{place}: no image there can be read ({images.FORMAT_WORDS})")
    first = shapes[entries[0]]
    other = next((i for i in entries if shapes[i] != first), None)
    if target is None and other is not None:
        raise UserError(
            f"{place}: images of different sizes, {form.names[entries[0]]} of {first[1]}x{first[0]} and "
            f"{form.names[other]} of {shapes[other][1]}x{shapes[other][0]} pixels; --size=N brings all to NxN"
        )
    shape = (target.size, target.size, target.channels) if target else (*first, 3)
    return Plain(form, entries, shape, target), digest([form.fingerprint, *(form.names[i] for i in entries)])
