"""Damaged checkpoints: the error, and WORKDIR/damaged, where they are moved. They are never deleted."""

import itertools
import re

from etils import epath

from introvae_jax.checkpoints import files
from introvae_jax.errors import UserError


class Damaged(UserError):
    """A checkpoint is proven to differ from what was written, or cannot be used."""


class Aside:
    """The folder for damaged checkpoints of a work directory, created for the first of them."""

    def __init__(self, workdir: epath.Path):
        self.folder = workdir / "damaged"

    def steps(self) -> list[int]:
        """The steps of the checkpoints in it."""
        if not self.folder.is_dir():
            return []
        found = (re.fullmatch(r"(\d+)_\d+", path.name) for path in self.folder.iterdir())
        return sorted({int(match[1]) for match in found if match})

    def free_place(self, name: str) -> epath.Path:
        """A path NAME_N in the folder that does not exist yet."""
        return next(p for i in itertools.count() if not (p := self.folder / f"{name}_{i}").exists())

    def move(self, path: epath.Path, place: epath.Path) -> None:
        """Moves `path` to `place`, which must be free. Raises UserError if it no longer exists or cannot be moved."""
        try:
            self.folder.mkdir(exist_ok=True)
            path.rename(place)
        except FileNotFoundError as error:
            raise files.removed(path) from error
        except OSError as error:
            raise UserError(
                f"{path}: damaged, and cannot be moved to {place} ({error.strerror or error}); move it manually"
            ) from error
