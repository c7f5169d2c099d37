"""Weights of feature extractors: found on disk or downloaded once, and always verified by SHA-256."""

from collections.abc import Mapping
import http.client
import os
import pathlib
from typing import Any
import urllib.request

from introvae_jax import disk, hashes, progress
from introvae_jax.errors import UserError
from introvae_jax.features import inception as network
from introvae_jax.torch_weights import torch_file

INCEPTION_URL = (
    "https://github.com/mseitzer/pytorch-fid/releases/download/fid_weights/pt_inception-2015-12-05-6726825d.pth"
)
INCEPTION_SHA256 = "6726825d0af5f729cebd5821db510b11b1cfad8faad88a03f1befd49fb9129b2"
INCEPTION_BYTES = 95_628_359
# File names of pytorch-fid (used here too) and of torch-fidelity, for the same file.
INCEPTION_NAMES = ("pt_inception-2015-12-05-6726825d.pth", "weights-inception-2015-12-05-6726825d.pth")
TIMEOUT = 30  # seconds without a response
CHUNK = 2**20  # bytes


def inception(path: str = "", sha256: str = INCEPTION_SHA256, flag: str = "--inception") -> tuple[dict[str, Any], str]:
    """The variables of `features.inception.InceptionV3`, and the SHA-256 of the file that they come from.

    path, sha256, flag: as in `inception_path`. Raises UserError as it does, or if the file holds something else.
    """
    file = inception_path(path, sha256, flag)
    state = torch_file.read(file)
    try:
        if not isinstance(state, Mapping):
            raise ValueError("not a state dict")
        return network.from_torch(state), sha256
    except ValueError as error:
        raise UserError(f"{file}: not the Inception-v3 of FID: {error}; give another file as {flag}=PATH") from error


def inception_path(path: str = "", sha256: str = INCEPTION_SHA256, flag: str = "--inception") -> pathlib.Path:
    """The verified file of FID's Inception-v3. Call it before a long run.

    path: of the file; if empty, this package's cache and PyTorch's cache are searched, otherwise the file is downloaded
    to the former. sha256: of the content. flag: the flag by which the user names another file.
    Raises UserError if there is no such file, its hash is wrong, or it cannot be downloaded.
    """
    if path:
        return checked(path, sha256)
    target = disk.cache_dir() / INCEPTION_NAMES[0]
    hub = disk.expand(os.environ.get("TORCH_HOME", "~/.cache/torch")) / "hub" / "checkpoints"
    for found in (target, *(hub / name for name in INCEPTION_NAMES)):
        if found.exists():
            return checked(found, sha256)
    _download(INCEPTION_URL, target, sha256, INCEPTION_BYTES, f"{flag}=PATH")
    return target


def checked(path: str | os.PathLike[str], sha256: str) -> pathlib.Path:
    """The path with its ~ resolved. Raises UserError unless its content has this SHA-256."""
    path = disk.expand(path)
    try:
        found = hashes.sha256_file(path)
    except FileNotFoundError as error:
        raise UserError(f"{path}: there is no such file") from error
    except OSError as error:
        raise UserError(f"{path}: {error.strerror or error}") from error
    if found != sha256.lower():
        raise UserError(f"{path}: SHA-256 {found} where {sha256} is needed: another file, or damaged; get it again")
    return path


def _download(url: str, target: pathlib.Path, sha256: str, size: int, flag: str) -> None:
    """Downloads a file, verifies it and moves it to `target`. flag: the flag by which the user names another file."""
    remedy = f"get the file elsewhere and put it at {target} or give {flag}; alexnet_frechet and swd need no download"
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        disk.require_space(target.parent, size, target.name, "to download it again")
        lock = target.with_name(f".{target.name}.lock")
        with disk.file_lock(lock, f"downloading {target.name}"), disk.atomic_write(target) as temporary:
            _fetch(url, temporary)
            found = hashes.sha256_file(temporary)
            if found != sha256.lower():
                raise UserError(f"{url}: SHA-256 {found} where {sha256} is needed, nothing was kept; {remedy}")
    except (OSError, http.client.HTTPException) as error:
        # The system's error message for a failed connection, which urllib wraps.
        cause = getattr(error, "reason", None) or getattr(error, "strerror", None) or error
        raise UserError(f"{url}: not downloaded to {target}: {cause}; {remedy}") from error


def _fetch(url: str, path: pathlib.Path) -> None:
    """Downloads to `path`. Raises OSError or HTTPException if the content is missing or incomplete."""
    with urllib.request.urlopen(url, timeout=TIMEOUT) as response, path.open("wb") as file:
        length = int(response.headers.get("Content-Length") or 0)
        name = url.rpartition("/")[2]
        with progress.phase(f"downloading {name}", length or None, "bytes") as downloading:
            while chunk := response.read(CHUNK):
                file.write(chunk)
                downloading.advance(len(chunk))
        if file.tell() < length:
            raise OSError(f"the connection ended after {file.tell()} of {length} bytes")
