"""What this device reaches at best: FLOP/s of a matrix product, bytes/s of a copy."""

from collections.abc import Callable
import statistics
import time

import jax
import jax.numpy as jnp


def matrix_peak(dtype: str, size: int = 4096) -> float:
    """FLOP/s of a product of two `size` x `size` matrices of `dtype`."""
    return 2 * size**3 / _seconds(lambda a: a @ a, jax.random.normal(jax.random.key(0), (size, size)).astype(dtype))


def bandwidth(count: int = 2**28) -> float:
    """Bytes/s at which an array of `count` float32 numbers is read and another written."""
    return 8 * count / _seconds(lambda x: x + 1.0, jnp.zeros(count))


def _seconds(function: Callable[[jax.Array], jax.Array], x: jax.Array) -> float:
    """Median of five runs after one that compiles."""
    compiled, times = jax.jit(function), []
    jax.block_until_ready(compiled(x))
    for _ in range(5):
        since = time.perf_counter()
        jax.block_until_ready(compiled(x))
        times.append(time.perf_counter() - since)
    return statistics.median(times)
