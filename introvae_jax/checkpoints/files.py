"""The files of a checkpoint: their checksums, and the proof of damage.

A read can fail although the bytes on disk are correct: missing permissions, too many open files, too little memory, a
network file system that does not respond. A checkpoint counts as damaged only if all its bytes could be read and some
are proven wrong. The proof is STEP/manifest.json, which has the size and CRC-32 of each file and is written before the
checkpoint is committed. Without it (checkpoints in a bucket or of older versions), the structure of the files is
checked.
"""

from collections.abc import Iterator
import errno
import json
import os
import re
from typing import Any
import zlib

from etils import epath

from introvae_jax.checkpoints import digests
from introvae_jax.errors import EXIT_RETRY, UserError

MANIFEST = "manifest.json"
CHUNK = 2**20  # bytes read at a time
ITEMS = ("state", "statistics", "run")
_UNLISTED = (MANIFEST, "_CHECKPOINT_METADATA")  # Orbax writes the time of the commit into the latter
_JSON = ("run/metadata", "state/_METADATA", "statistics/_METADATA")
_ARRAYS = ("state/manifest.ocdbt",)  # networks without BatchNorm have no statistics
# TensorStore's errors about invalid bytes, as opposed to failed reads.
_CONTENT_ERROR = re.compile("DATA_LOSS|NOT_FOUND|OUT_OF_RANGE|FAILED_PRECONDITION.*Z(std|STD)", re.DOTALL)
_GLOB = "*?[\\"  # Orbax and TensorStore treat the path as a pattern
PASSING = (errno.EIO, errno.ESTALE, errno.EMFILE, errno.ENFILE, errno.ETIMEDOUT)  # a rerun may succeed
_ADVICE = {  # on errors that a rerun alone does not fix
    errno.EACCES: "make it readable for this user",
    errno.EPERM: "make it readable for this user",
    errno.ENOMEM: "free some memory",
}


def require_supported_path(path: str | os.PathLike[str]) -> None:
    """Raises UserError for a path in which Orbax cannot write or find checkpoints."""
    text = os.fspath(path)
    found = [character for character in _GLOB if character in text]
    if found:
        raise UserError(
            f"--workdir={text}: Orbax cannot store checkpoints in a path with {' or '.join(found)}; rename the "
            "directory or choose another one"
        )
    try:
        text.encode()
    except UnicodeEncodeError as error:
        raise UserError(
            f"--workdir={text!a}: Orbax needs a path in UTF-8; rename the directory, or set LC_ALL=C.UTF-8 if "
            "this is the wrong locale"
        ) from error


def write_manifest(folder: epath.Path) -> None:
    """Writes the checksums of all files of a complete, uncommitted checkpoint. Raises OSError if a file fails."""
    files = {name: list(entry) for name, entry in _checksums(folder).items()}
    (folder / MANIFEST).write_text(json.dumps({"files": files, "digest": digests.of_record(files)}))


def find_damage(folder: epath.Path, error: Exception) -> str | None:
    """Reads every file and returns a description of the proven damage, or None.

    error: the error of Orbax's read. Raises OSError if a file cannot be read.
    """
    found = _checksums(folder)
    expected = _manifest(folder)
    if expected is None:
        return _structural_damage(folder, found, error)
    missing = [name for name in expected if name not in found]
    if missing:
        return f"its file {missing[0]} is missing"
    changed = [name for name, entry in expected.items() if found[name] != entry]
    return f"the checksum of its file {changed[0]} is wrong" if changed else None


def read_json(path: epath.Path) -> Any:
    """Content of a JSON file. Raises ValueError if it is not JSON, OSError if it cannot be read."""
    try:
        return json.loads(path.read_bytes())
    except RecursionError as error:
        raise ValueError("nested too deeply") from error


def describe(error: BaseException, folder: epath.Path) -> UserError:
    """The UserError for a checkpoint that cannot be read, without proof of damage."""
    chain = list(_chain(error))
    number = next(filter(None, map(_os_error_number, chain)), None)
    stays = "the checkpoint stays where it is"
    for each in chain:
        if isinstance(each, MemoryError) or ("RESOURCE_EXHAUSTED" in str(each) and number is None):
            return UserError(f"{folder}: too little memory to read it ({first_line(each)}); {stays}; free some memory")
    if number is not None:
        place = next((e.filename for e in chain if isinstance(e, OSError) and e.filename), folder)
        advice = _ADVICE.get(number, "rerun the same command to resume")
        return UserError(
            f"{place}: cannot be read ({os.strerror(number)}); {stays}; {advice}",
            1 if number in _ADVICE else EXIT_RETRY,
        )
    return UserError(
        f"{folder}: cannot be read ({first_line(error)}), although nothing proves that its files are damaged; {stays}. "
        "Move it away manually to resume from the previous one"
    )


def removed(folder: epath.Path) -> UserError:
    """The UserError for a checkpoint that no longer exists."""
    return UserError(
        f"{folder}: another process removed or moved it; rerun the same command to take the latest checkpoint",
        EXIT_RETRY,
    )


def first_line(error: BaseException) -> str:
    """The first line of an error's text, or its type."""
    return (str(error).strip() or type(error).__name__).splitlines()[0][:300]


def _checksums(folder: epath.Path) -> dict[str, tuple[int, str]]:
    """Size and CRC-32 of each file, by its path in the folder."""
    return {os.path.relpath(path, folder): _checksum(path) for path in _files(folder) if path.name not in _UNLISTED}


def _files(folder: epath.Path) -> Iterator[epath.Path]:
    for path in sorted(folder.iterdir()):
        if path.is_dir():
            yield from _files(path)
        else:
            yield path


def _checksum(path: epath.Path) -> tuple[int, str]:
    size = checksum = 0
    try:
        with path.open("rb") as file:
            while chunk := file.read(CHUNK):
                size, checksum = size + len(chunk), zlib.crc32(chunk, checksum)
    except OSError as error:
        raise OSError(error.errno, error.strerror or first_line(error), str(path)) from error
    return size, f"{checksum:08x}"


def _manifest(folder: epath.Path) -> dict[str, tuple[int, str]] | None:
    """Size and CRC-32 of each file as written; None without a manifest or if that is damaged."""
    try:
        content = read_json(folder / MANIFEST)
    except (FileNotFoundError, ValueError):
        return None
    if not isinstance(content, dict) or not isinstance(files := content.get("files"), dict):
        return None
    if content.get("digest") != digests.of_record(files):
        return None
    return {name: tuple(entry) for name, entry in files.items()}


def _structural_damage(folder: epath.Path, found: dict[str, Any], error: Exception) -> str | None:
    """A description of the damage of a checkpoint without checksums, or None."""
    for name in (*_JSON, *_ARRAYS):
        if name not in found:
            return f"its file {name} is missing"
    for name in (*_JSON, *(name for name in found if "/array_metadatas/" in name)):
        try:
            content = read_json(folder / name)
        except ValueError as problem:
            return f"its file {name} is not JSON: {first_line(problem)}"
        if not isinstance(content, dict):
            return f"its file {name} holds {type(content).__name__} instead of an object"
    words = next((str(each) for each in _chain(error) if _CONTENT_ERROR.match(str(each))), None)
    return words and words.splitlines()[0][:120]


def _chain(error: BaseException | None) -> Iterator[BaseException]:
    """Yields the error and its causes."""
    while error is not None:
        yield error
        error = error.__cause__ or error.__context__


def _os_error_number(error: BaseException) -> int | None:
    """The errno of an OSError, or of the system error in a message of TensorStore; None for other errors."""
    if isinstance(error, OSError):
        return error.errno
    code = re.search(r"os_error_code='(\d+)'", str(error))
    return int(code[1]) if code else None
