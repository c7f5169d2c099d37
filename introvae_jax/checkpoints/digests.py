"""CRC-32 checksums of arrays and records, to verify restored values. (files.py has checksums of files.)"""

from collections.abc import Mapping
import json
from typing import Any
import zlib

import jax
import jax.numpy as jnp
import numpy as np

from introvae_jax.trees import PyTree


def paths(tree: PyTree) -> list[str]:
    """The path of every array in the tree, as in "encoder/params/stem/kernel"."""
    return [_name(path) for path, _ in jax.tree_util.tree_leaves_with_path(tree)]


def of_arrays(tree: PyTree) -> dict[str, str]:
    """CRC-32 of every array's bytes, by path in the tree. Of a replicated array, one copy counts."""
    return {_name(path): _of_array(leaf) for path, leaf in jax.tree_util.tree_leaves_with_path(tree)}


def of_record(record: Mapping[str, Any]) -> str:
    """CRC-32 of a JSON object, unchanged by writing and reading it."""
    return f"{zlib.crc32(json.dumps(record, sort_keys=True).encode()):08x}"


def differing(tree: PyTree, expected: Mapping[str, str]) -> list[str]:
    """Paths of the arrays of `tree` whose checksum differs from `expected`. Arrays not in `expected` are ignored."""
    return [path for path, digest in of_arrays(tree).items() if expected.get(path, digest) != digest]


def non_finite(tree: PyTree) -> str | None:
    """Path of the first array of `tree` with an infinity or NaN; None if there is none."""
    for path, leaf in jax.tree_util.tree_leaves_with_path(tree):
        array = _on_host(leaf)
        if jnp.issubdtype(array.dtype, jnp.inexact) and not np.isfinite(array).all():
            return _name(path)
    return None


def _name(path: Any) -> str:
    return jax.tree_util.keystr(path, simple=True, separator="/")


def _of_array(leaf: Any) -> str:
    return f"{zlib.crc32(np.ascontiguousarray(_on_host(leaf)).data):08x}"


def _on_host(leaf: Any) -> np.ndarray:
    return np.asarray(leaf.addressable_data(0) if isinstance(leaf, jax.Array) else leaf)
