"""Files of torch.save, read without torch and without running anything in them.

Both containers are known: the zip of torch 1.6 and later, and the one before it (0.4 to 1.5), a row of pickles
with the numbers behind them. A file may claim what it likes: no tensor reaches out of its storage, and all
together they stay within a few times the file's size.
"""

from collections.abc import Callable
import dataclasses
import io
import math
import mmap
import os
import pathlib
import struct
import sys
from typing import Any
import zipfile

import jax.numpy as jnp
import numpy as np

from introvae_jax import disk
from introvae_jax.errors import UserError
from introvae_jax.torch_weights import pickles

DTYPES = {
    f"torch.{name}Storage": np.dtype(dtype)
    for name, dtype in {
        "Double": "<f8", "Float": "<f4", "Half": "<f2", "BFloat16": jnp.bfloat16, "Long": "<i8", "Int": "<i4",
        "Short": "<i2", "Char": "i1", "Byte": "u1", "Bool": "?",
    }.items()
}  # fmt: skip
MAGIC, PROTOCOL = 0x1950A86A20F9469CFC6C, 1001  # of the container before the zip
MAX_VIEWS = 4  # all tensors together may be so many times as large as the file: a few share a storage

# Their objects are recorded: networks that were saved whole.
MODULES = ("torch.nn.modules.", "torch.nn.parallel.", "torch.nn.backends.")
# Code that a file has no business with; every other top-level name can only be the networks' own.
_PYTHON_2 = (
    "__builtin__ cPickle cStringIO commands copy_reg exceptions popen2 urllib2 urlparse thread dummy_thread anydbm "
    "whichdb dbhash dumbdbm gdbm Queue SocketServer BaseHTTPServer SimpleHTTPServer SimpleXMLRPCServer xmlrpclib "
    "httplib UserDict UserList UserString Tkinter ConfigParser __builtins__ os2 ce riscos new sets rexec imputil ihooks"
)
_INSTALLED = (
    "torch torchvision torchaudio numpy scipy pandas sklearn PIL cv2 jax jaxlib flax optax orbax tensorflow keras "
    "ml_dtypes absl etils clu grain msgpack yaml dill cloudpickle joblib pip setuptools pkg_resources distutils six "
    "wheel requests urllib3 pytest py IPython introvae_jax"
)
FOREIGN = frozenset((*sys.stdlib_module_names, *_PYTHON_2.split(), *_INSTALLED.split()))


def read(path: str | os.PathLike) -> Any:
    """What was saved: containers, numbers and strings as they are, tensors and parameters as numpy arrays.

    Arrays may share memory, as the tensors did. A network that was saved whole is a `pickles.Instance`.
    Raises UserError if there is no such file, it is damaged, or it asks for anything but what weights need.
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
    except pickles.Refused as error:
        raise UserError(
            f"{path}: refused: the pickle asks for {_printable(error)}; only tensors, containers and the state "
            "of networks are read, and nothing in the file was run"
        ) from error
    except (zipfile.BadZipFile, NotImplementedError, RuntimeError, EOFError, struct.error, *pickles.DAMAGE) as error:
        raise UserError(f"{path}: damaged or cut short ({_printable(error)}); get the file again") from error
    except OSError as error:
        raise UserError(f"{path}: {error.strerror or error}") from error
    raise UserError(f"{path}: not a file of torch.save: neither a zip nor the pickles of torch 0.4 to 1.5")


@dataclasses.dataclass(frozen=True)
class Storage:
    """A row of numbers that tensors look at. values: its bytes."""

    values: np.ndarray
    dtype: np.dtype


class _Reader:
    """The rules for the pickles of one file. fill: the bytes of the storage `key`, of which there must be `size`."""

    def __init__(self, size: int, fill: Callable[[str, int], np.ndarray]):
        self.storages: dict[str, Storage] = {}
        self._limit, self._viewed, self._fill = size * MAX_VIEWS, 0, fill
        functions = {
            "collections.OrderedDict": lambda items=(): pickles.pairs(items),
            "torch._utils._rebuild_tensor": self._tensor,
            "torch._utils._rebuild_tensor_v2": lambda storage, offset, size, stride, *_: self._tensor(
                storage, offset, size, stride
            ),
            "torch.nn.parameter.Parameter": _of_parameter,  # as torch 0.4 pickles one
            "torch._utils._rebuild_parameter": _of_parameter,
            "torch._utils._rebuild_parameter_with_state": _of_parameter,
            "torch.Size": lambda sizes=(): sizes,
            "torch.device": lambda kind, index=0: kind,
            "torch.nn.backends.thnn._get_thnn_function_backend": lambda: pickles.Instance("thnn"),
        }
        for module in ("builtins", "__builtin__"):
            functions[f"{module}.set"] = lambda items=(): set(map(pickles.plain, items))
        self.rules = pickles.Rules(functions, is_class, frozenset(DTYPES), self._persistent)

    def _persistent(self, pid: Any) -> Any:
        """A storage, or in the older container the class of a network, which comes with its source text."""
        if not isinstance(pid, tuple) or not pid or pid[0] not in ("storage", "module"):
            raise ValueError("an unknown persistent id")
        if pid[0] == "module":
            return pid[1]
        _, kind, key, _, count, *view = pid
        if not isinstance(kind, pickles.Global) or kind.name not in DTYPES:
            raise pickles.Refused(f"a storage of type {getattr(kind, 'name', type(kind).__name__)}")
        if not isinstance(key, str) or type(count) is not int or count < 0:
            raise ValueError("a storage without key or size")
        dtype = DTYPES[kind.name]
        if key not in self.storages:
            self.storages[key] = Storage(self._fill(key, count * dtype.itemsize), dtype)
        storage = self.storages[key]
        if storage.dtype != dtype or len(storage.values) != count * dtype.itemsize:
            raise ValueError(f"storage {key} has two types or sizes")
        return _part(storage, *view[0][1:]) if view and view[0] is not None else storage

    def _tensor(self, storage: Storage, offset: int, sizes: tuple[int, ...], strides: tuple[int, ...]) -> np.ndarray:
        """A view of the storage, in whose elements offset and strides count."""
        if not isinstance(storage, Storage) or not isinstance(sizes, tuple) or not isinstance(strides, tuple):
            raise ValueError("a tensor without storage or shape")
        numbers = (offset, *sizes, *strides)
        if len(sizes) != len(strides) or len(sizes) > 16 or not all(type(n) is int and n >= 0 for n in numbers):
            raise ValueError("a tensor whose shape cannot be")
        item, available = storage.dtype.itemsize, len(storage.values) // storage.dtype.itemsize
        count = math.prod(sizes)
        if not count:
            return np.zeros(sizes, storage.dtype)
        end = 1 + offset + sum((n - 1) * stride for n, stride in zip(sizes, strides, strict=True))
        if max(count, end) > available:
            raise ValueError(f"a tensor of {count} elements, the last one {end}th in a storage of {available}")
        self._viewed += count * item
        if self._viewed > self._limit:
            raise ValueError(f"tensors of {MAX_VIEWS} times the file's size in all")
        # numpy checks the bounds once more.
        return np.ndarray(sizes, storage.dtype, storage.values, offset * item, [stride * item for stride in strides])


def _of_parameter(tensor: Any, *_: Any) -> np.ndarray:
    """The array of a parameter: all that is read of one."""
    if not isinstance(tensor, np.ndarray):
        raise ValueError("a parameter without tensor")
    return tensor


def is_class(module: str, name: str) -> bool:
    """Whether objects of this class may be recorded: torch's modules, and classes that only the networks' code has."""
    plain = name.isidentifier() and all(part.isidentifier() for part in module.split("."))
    if not plain or len(module) + len(name) > 200:
        return False
    return module.startswith(MODULES) or module.partition(".")[0] not in FOREIGN


def _part(storage: Storage, offset: int, count: int) -> Storage:
    """`count` elements of a storage from `offset` on: the older container has views of storages."""
    item = storage.dtype.itemsize
    if type(offset) is not int or type(count) is not int or not 0 <= offset <= offset + count:
        raise ValueError("a view of a storage whose bounds cannot be")
    if (offset + count) * item > len(storage.values):
        raise ValueError(f"a view up to element {offset + count} of a storage of {len(storage.values) // item}")
    return Storage(storage.values[offset * item : (offset + count) * item], storage.dtype)


def _read_zip(path: pathlib.Path) -> Any:
    with zipfile.ZipFile(path) as archive:
        entries = archive.infolist()
        # torch stores without compressing; so no entry can unpack to more than the file, nor two share its bytes.
        if any(e.compress_type != zipfile.ZIP_STORED or e.file_size != e.compress_size for e in entries):
            raise ValueError("a compressed entry, which torch never writes")
        if sum(e.file_size for e in entries) > path.stat().st_size:
            raise ValueError("entries larger than the file")
        pickled = [e.filename for e in entries if e.filename.endswith("/data.pkl")]
        if len(pickled) != 1:
            raise ValueError(f"{len(pickled)} entries named data.pkl, one is needed")
        root = pickled[0].removesuffix("data.pkl")
        if f"{root}constants.pkl" in archive.namelist():
            raise pickles.Refused("TorchScript; save the state dict instead")
        if f"{root}byteorder" in archive.namelist() and archive.read(f"{root}byteorder") != b"little":
            raise ValueError("big endian numbers")

        def fill(key: str, size: int) -> np.ndarray:
            found = archive.getinfo(f"{root}data/{key}").file_size
            if found != size:
                raise ValueError(f"storage {key} has {found} bytes where {size} are needed")
            return np.frombuffer(bytearray(archive.read(f"{root}data/{key}")), np.uint8)

        reader = _Reader(path.stat().st_size, fill)
        if archive.getinfo(pickled[0]).file_size > pickles.MAX_BYTES:
            raise pickles.Refused(f"more than {pickles.MAX_BYTES >> 20} MiB of names and containers")
        content = pickles.load(io.BytesIO(archive.read(pickled[0])), reader.rules)
    return _checked(content, reader)


def _read_legacy(path: pathlib.Path) -> Any:
    size, claimed = path.stat().st_size, 0

    def reserve(key: str, needed: int) -> np.ndarray:
        """Zeros, into which the numbers come when the stream reaches them."""
        nonlocal claimed
        claimed += needed
        if claimed > size:
            raise ValueError(f"storages of {claimed} bytes in a file of {size}")
        return np.zeros(needed, np.uint8)

    reader = _Reader(size, reserve)
    with path.open("rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as stream:
        if (pickles.load(stream, reader.rules), pickles.load(stream, reader.rules)) != (MAGIC, PROTOCOL):
            raise ValueError("another pickle than torch's")
        system = pickles.load(stream, reader.rules)
        if not isinstance(system, dict) or system.get("little_endian") is not True:
            raise ValueError("big endian numbers")
        content = pickles.load(stream, reader.rules)
        keys = pickles.load(stream, reader.rules)
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
    return _checked(content, reader)


def _checked(content: Any, reader: _Reader) -> Any:
    for storage in reader.storages.values():
        if storage.dtype == np.bool_:
            np.minimum(storage.values, 1, out=storage.values)  # numpy counts on 0 and 1
    return content


def _printable(error: Exception) -> str:
    text = str(error) if not isinstance(error, KeyError) else f"{error} is missing"
    return "".join(c if c.isprintable() else "?" for c in text)[:300] or type(error).__name__
