"""Applies networks to numpy arrays in batches, on all local devices."""

from collections.abc import Callable, Mapping
import functools
import os
from typing import Any, TypeVar

from flax import linen as nn
import jax
import numpy as np

from introvae_jax import progress
from introvae_jax.errors import UserError
from introvae_jax.parallel import Replicas
from introvae_jax.trees import PyTree

T = TypeVar("T")


def in_batches(
    function: Callable[[jax.Array], T], x: np.ndarray, *, batch_size: int, replicas: Replicas, doing: str
) -> T:
    """Applies `function` to x [N, ...] in batches of one size, so that it compiles once; the last batch is padded.

    Returns numpy arrays [N, ...]. doing: name of the progress phase. Raises UserError in a forked process.
    """
    require_own_process()
    outputs = []
    with progress.phase(doing, len(x), "images") as batches:
        for start in range(0, len(x), batch_size):
            part = x[start : start + batch_size]
            padding = ((0, batch_size - len(part)),) + ((0, 0),) * (x.ndim - 1)
            outputs.append(jax.device_get(function(replicas.spread(np.pad(part, padding)))))
            batches.advance(len(part))
    return jax.tree.map(lambda *leaves: np.concatenate(leaves)[: len(x)], *outputs)


@functools.partial(jax.jit, static_argnums=0)
def apply(network: nn.Module, variables: Mapping[str, Any], x: jax.Array) -> Any:
    """Applies a network with its stored statistics. Models of one shape share the compiled program."""
    return network.apply(variables, x, use_running_average=True)


@functools.partial(jax.jit, static_argnums=0)
def normal(z_dim: int, seeds: jax.Array) -> jax.Array:
    """Prior samples, float32 [N, z_dim], of the seeds uint32 [N]."""
    return jax.vmap(lambda seed: jax.random.normal(jax.random.key(seed), (z_dim,)))(seeds)


def variable_shapes(network: nn.Module, shape: tuple[int, ...]) -> Mapping[str, Any]:
    """Shapes of the variables of a network that takes float32 [N, *shape]; nothing is allocated."""
    return jax.eval_shape(network.init, jax.random.key(0), jax.ShapeDtypeStruct((1, *shape), np.float32))


def same_arrays(a: PyTree, b: PyTree) -> bool:
    """True if two trees of arrays have the same paths and the same values."""
    if jax.tree.structure(a) != jax.tree.structure(b):  # type: ignore[operator] # jaxlib has no types
        return False
    return all(
        np.array_equal(x, y, equal_nan=True) for x, y in zip(jax.tree.leaves(a), jax.tree.leaves(b), strict=True)
    )


@functools.cache
def _process_of_models() -> int:
    """The ID of the process that made the first model. JAX's threads run in it, and not in its forks."""
    return os.getpid()


def require_own_process() -> None:
    """Raises UserError in a fork of a process that has models: JAX would wait forever for threads."""
    if os.getpid() != _process_of_models():
        raise UserError(
            "a model cannot be used in a forked process, where JAX hangs: start the process with "
            'multiprocessing.get_context("spawn"), or load the model only in the new process'
        )
