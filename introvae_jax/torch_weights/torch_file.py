"""Reads torch.save files without torch and without executing anything in them.

Two file formats are supported: the zip of torch 1.6 and later, and the older one (0.4 to 1.5), a sequence of pickles
followed by the numbers.
"""

import io
import mmap
import os
import pathlib
import struct
from typing import Any
import zipfile

import numpy as np

from introvae_jax import disk
from introvae_jax.errors import UserError
from introvae_jax.torch_weights import unpickler
from introvae_jax.torch_weights.tensors import TensorReader

MAGIC, PROTOCOL = 0x1950A86A20F9469CFC6C, 1001  # at the start of the older container


def read(path: str | os.PathLike[str]) -> Any:
    """Returns the saved object: containers, numbers and strings unchanged, tensors and parameters as numpy arrays.

    Arrays share memory if the tensors did. A network that was saved as an object becomes an `unpickler.Object`.
    Raises UserError if the file does not exist, is damaged, or requests anything that weights do not need.
    """
    path = disk.expand(path)
    try:
        if not path.is_file():
            raise UserError(f"{path}: {'not a file' if path.exists() else 'there is no such file'}")
        with path.open("rb") as file:
            start = file.read(2)
        if start == b"PK":
            return _read_zip(path)
        if start[:1] == b"\x80":
            return _read_legacy(path)
    except unpickler.Refused as error:
        raise UserError(
            f"{path}: refused: the pickle asks for {_printable(error)}; only tensors, containers and the state "
            "of networks are read, and nothing in the file was run"
        ) from error
    except (zipfile.BadZipFile, NotImplementedError, RuntimeError, *unpickler.DAMAGE) as error:
        raise UserError(f"{path}: damaged or cut short ({_printable(error)}); get the file again") from error
    except OSError as error:
        raise UserError(f"{path}: {error.strerror or error}") from error
    raise UserError(f"{path}: not a file of torch.save: neither a zip nor the pickles of torch 0.4 to 1.5")


def _read_zip(path: pathlib.Path) -> Any:
    with zipfile.ZipFile(path) as archive:
        entries = archive.infolist()
        # torch does not compress, so no entry unpacks to more than the file, and no two entries share its bytes.
        if any(e.compress_type != zipfile.ZIP_STORED or e.file_size != e.compress_size for e in entries):
            raise ValueError("a compressed entry, which torch never writes")
        if sum(e.file_size for e in entries) > path.stat().st_size:
            raise ValueError("entries larger than the file")
        pickled = [e.filename for e in entries if e.filename.endswith("/data.pkl")]
        if len(pickled) != 1:
            raise ValueError(f"{len(pickled)} entries named data.pkl, one is needed")
        root = pickled[0].removesuffix("data.pkl")
        if f"{root}constants.pkl" in archive.namelist():
            raise unpickler.Refused("TorchScript; save the state dict instead")
        if f"{root}byteorder" in archive.namelist() and archive.read(f"{root}byteorder") != b"little":
            raise ValueError("big endian numbers")

        def fill(key: str, size: int) -> np.ndarray:
            found = archive.getinfo(f"{root}data/{key}").file_size
            if found != size:
                raise ValueError(f"storage {key} has {found} bytes where {size} are needed")
            return np.frombuffer(bytearray(archive.read(f"{root}data/{key}")), np.uint8)

        reader = TensorReader(path.stat().st_size, fill)
        if archive.getinfo(pickled[0]).file_size > unpickler.MAX_BYTES:
            raise unpickler.Refused(f"more than {unpickler.MAX_BYTES >> 20} MiB of names and containers")
        content = unpickler.load(io.BytesIO(archive.read(pickled[0])), reader.rules)
    return _with_valid_bools(content, reader)


def _read_legacy(path: pathlib.Path) -> Any:
    size, claimed = path.stat().st_size, 0

    def reserve(key: str, needed: int) -> np.ndarray:
        """Zeros, replaced by the numbers when the stream reaches them."""
        nonlocal claimed
        claimed += needed
        if claimed > size:
            raise ValueError(f"storages of {claimed} bytes in a file of {size}")
        return np.zeros(needed, np.uint8)

    reader = TensorReader(size, reserve)
    with path.open("rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as stream:
        if (unpickler.load(stream, reader.rules), unpickler.load(stream, reader.rules)) != (MAGIC, PROTOCOL):
            raise ValueError("not a pickle of torch.save")
        system = unpickler.load(stream, reader.rules)
        if not isinstance(system, dict) or system.get("little_endian") is not True:
            raise ValueError("big endian numbers")
        content = unpickler.load(stream, reader.rules)
        keys = unpickler.load(stream, reader.rules)
        if not isinstance(keys, list) or not all(isinstance(k, str) for k in keys) or {*keys} != {*reader.storages}:
            raise ValueError("the storages listed are not those that the tensors name")
        for key in keys:
            storage = reader.storages[key]
            count, wanted = struct.unpack("<q", stream.read(8))[0], len(storage.values) // storage.dtype.itemsize
            if count != wanted:
                raise ValueError(f"storage {key} has {count} elements where {wanted} are needed")
            numbers = stream.read(len(storage.values))
            if len(numbers) != len(storage.values):
                raise ValueError(f"the file ends within storage {key}")
            storage.values[:] = np.frombuffer(numbers, np.uint8)
        if stream.tell() != size:
            raise ValueError(f"{size - stream.tell()} bytes behind the last storage")
    return _with_valid_bools(content, reader)


def _with_valid_bools(content: Any, reader: TensorReader) -> Any:
    for storage in reader.storages.values():
        if storage.dtype == np.bool_:
            np.minimum(storage.values, 1, out=storage.values)  # numpy relies on 0 and 1
    return content


def _printable(error: Exception) -> str:
    text = str(error) if not isinstance(error, KeyError) else f"{error} is missing"
    return "".join(c if c.isprintable() else "?" for c in text)[:300] or type(error).__name__
