"""Folders of image files, nested or not. Files are recognized by their content, not by their names."""

from collections.abc import Iterator, Sequence
import dataclasses
import os
import pathlib

from introvae_jax.data import images
from introvae_jax.data.readers.base import digest, natural

NAME = "folder"


@dataclasses.dataclass(frozen=True)
class Files:
    """Files by their path below `root`; a `base.Reader`."""

    root: pathlib.Path
    names: Sequence[str]
    skipped: Sequence[tuple[str, str]]
    fingerprint: str
    splits: None = None

    def read(self, index: int) -> bytes:
        return images.read(self.root / self.names[index])


def recognizes(path: pathlib.Path, head: bytes) -> bool:
    """True for every folder; formats that are kinds of folders come first."""
    return path.is_dir()


def open_reader(root: pathlib.Path, _: int = 0) -> Files:
    """All files below `root`. Links are followed, each folder is entered once, hidden names are skipped."""
    found: dict[str, str] = dict(_walk(root))
    names = sorted((name for name, reason in found.items() if not reason), key=natural)
    sizes = (f"{name} {_size(root / name)}" for name in names)
    return Files(root, names, [(n, reason) for n, reason in found.items() if reason], digest(sizes))


def _walk(root: pathlib.Path) -> Iterator[tuple[str, str]]:
    """Yields (name, "") for possible images and (name, reason) for skipped entries."""
    failed: list[OSError] = []
    entered = set()
    for folder, subfolders, files in os.walk(root, followlinks=True, onerror=failed.append):
        name = lambda entry, folder=folder: pathlib.Path(folder, entry).relative_to(root).as_posix()  # noqa: E731
        if os.path.realpath(folder) in entered:
            yield name(""), "a link to a folder that was read already"
            subfolders.clear()
            continue
        entered.add(os.path.realpath(folder))
        yield from ((name(entry), "hidden") for entry in (*subfolders, *files) if entry.startswith("."))
        subfolders[:] = sorted(entry for entry in subfolders if not entry.startswith("."))
        yield from ((name(entry), "") for entry in files if not entry.startswith("."))
    yield from (
        (pathlib.Path(error.filename).relative_to(root).as_posix(), error.strerror or str(error)) for error in failed
    )


def _size(path: pathlib.Path) -> int:
    try:
        return path.stat().st_size
    except OSError:  # reading the file reports the reason
        return -1
