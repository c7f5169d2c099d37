"""Rebuilds the tensors of a torch.save file as numpy arrays and checks them.

Files are untrusted: tensors must lie within their storage, and all tensors together must not exceed a few times the
size of the file.
"""

from collections.abc import Callable
import dataclasses
import math
import sys
from typing import Any

import jax.numpy as jnp
import numpy as np

from introvae_jax.torch_weights import unpickler

DTYPES = {
    f"torch.{name}Storage": np.dtype(dtype)
    for name, dtype in {
        "Double": "<f8", "Float": "<f4", "Half": "<f2", "BFloat16": jnp.bfloat16, "Long": "<i8", "Int": "<i4",
        "Short": "<i2", "Char": "i1", "Byte": "u1", "Bool": "?",
    }.items()
}  # fmt: skip
MAX_VIEWS = 4  # times the file's size, in all tensors together: a few share a storage

# Modules whose classes may be recorded: parts of networks that were saved whole.
MODULES = ("torch.nn.modules.", "torch.nn.parallel.", "torch.nn.backends.")
# Top-level modules that no network defines. Classes of any other module belong to the network's own code.
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


@dataclasses.dataclass(frozen=True)
class Storage:
    """The memory of one or more tensors. values: its bytes, uint8 [N]."""

    values: np.ndarray
    dtype: np.dtype


class TensorReader:
    """Rebuilds the tensors of one file; `rules` are given to the unpickler.

    size: of the file in bytes. fill: called with the key of a storage and its size, returns its bytes, uint8 [size].
    """

    def __init__(self, size: int, fill: Callable[[str, int], np.ndarray]):
        self.storages: dict[str, Storage] = {}
        self._limit, self._viewed, self._fill = size * MAX_VIEWS, 0, fill
        functions: dict[str, Callable[..., Any]] = {
            "collections.OrderedDict": lambda items=(): unpickler.pairs(_items(items)),
            "torch._utils._rebuild_tensor": self._tensor,
            "torch._utils._rebuild_tensor_v2": lambda storage, offset, size, stride, *_: self._tensor(
                storage, offset, size, stride
            ),
            "torch.nn.parameter.Parameter": _of_parameter,  # as torch 0.4 pickles one
            "torch._utils._rebuild_parameter": _of_parameter,
            "torch._utils._rebuild_parameter_with_state": _of_parameter,
            "torch.Size": lambda sizes=(): sizes,
            "torch.device": lambda kind, index=0: kind,
            "torch.nn.backends.thnn._get_thnn_function_backend": lambda: unpickler.Object("thnn"),
        }
        for module in ("builtins", "__builtin__"):
            functions[f"{module}.set"] = lambda items=(): set(map(unpickler.plain, _items(items)))
        self.rules = unpickler.Rules(functions, is_class, frozenset(DTYPES), self._persistent)

    def _persistent(self, pid: Any) -> Any:
        """A storage, or in the older container the class of a network, whose source text comes with it."""
        if not isinstance(pid, tuple) or not pid or pid[0] not in ("storage", "module"):
            raise ValueError("an unknown persistent id")
        if pid[0] == "module":
            return pid[1]
        _, kind, key, _, count, *view = pid
        if not isinstance(kind, unpickler.Global) or kind.name not in DTYPES:
            raise unpickler.Refused(f"a storage of type {getattr(kind, 'name', type(kind).__name__)}")
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
        """An array that shares the storage's memory. offset, strides: in elements."""
        if not isinstance(storage, Storage) or not isinstance(sizes, tuple) or not isinstance(strides, tuple):
            raise ValueError("a tensor without storage or shape")
        numbers = (offset, *sizes, *strides)
        if len(sizes) != len(strides) or len(sizes) > 16 or not all(type(n) is int and n >= 0 for n in numbers):
            raise ValueError("a tensor of an impossible shape")
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
        # numpy checks the bounds again.
        return np.ndarray(sizes, storage.dtype, storage.values, offset * item, [stride * item for stride in strides])


def _items(items: Any) -> list[Any] | tuple[Any, ...]:
    """The items of a container, which must not be an array: its elements would take many times its memory."""
    if not isinstance(items, list | tuple):
        raise ValueError(f"a container made of {type(items).__name__}")
    return items


def _of_parameter(tensor: Any, *_: Any) -> np.ndarray:
    """The array of a parameter; its other attributes are ignored."""
    if not isinstance(tensor, np.ndarray):
        raise ValueError("a parameter without tensor")
    return tensor


def is_class(module: str, name: str) -> bool:
    """True if objects of this class may be recorded: torch's modules, and classes of the network's own code."""
    plain = name.isidentifier() and all(part.isidentifier() for part in module.split("."))
    if not plain or len(module) + len(name) > 200:
        return False
    return module.startswith(MODULES) or module.partition(".")[0] not in FOREIGN


def _part(storage: Storage, offset: int, count: int) -> Storage:
    """A view of `count` elements of a storage from `offset` on, which the older container has."""
    item = storage.dtype.itemsize
    if type(offset) is not int or type(count) is not int or not 0 <= offset <= offset + count:
        raise ValueError("a view of a storage with impossible bounds")
    if (offset + count) * item > len(storage.values):
        raise ValueError(f"a view up to element {offset + count} of a storage of {len(storage.values) // item}")
    return Storage(storage.values[offset * item : (offset + count) * item], storage.dtype)
