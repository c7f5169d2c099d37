"""What this device reaches at best: FLOP/s of a matrix product, bytes/s of a copy."""

from collections.abc import Callable
import math
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
    """Of one call: median of five turns of a tenth of a second at least, the calls of one in a row without waiting."""
    compiled = jax.jit(function)

    def turn(count: int) -> float:
        since = time.perf_counter()
        for _ in range(count):
            result = compiled(x)
        jax.block_until_ready(result)
        return (time.perf_counter() - since) / count

    turn(1)  # compiles
    count = math.ceil(0.1 / turn(1))
    return statistics.median(turn(count) for _ in range(5))
