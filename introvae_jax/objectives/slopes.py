"""A scalar that two losses weigh differently, differentiated once for both."""

from collections.abc import Callable
from typing import Any

import jax


def ahead(function: Callable[..., jax.Array], *args: Any) -> jax.Array:
    """function(*args), a scalar, whose backward pass runs at once and for a weight of one; the weight is applied later.

    args: arrays, or trees of them, such as a `jax.tree_util.Partial` that holds a network's parameters. What is
    differentiated has to be in them. Where two losses take the same scalar of the same `args`, their backward passes
    are the same operations then, whatever their weights, and the compiler merges them. A plain function among the
    `args` hides what it holds: then this is function(*args), with a backward pass for each loss.
    """
    if any(callable(leaf) for leaf in jax.tree.leaves(args)):
        return function(*args)
    args_now = jax.lax.stop_gradient(args)
    value, slopes = jax.value_and_grad(function, argnums=tuple(range(len(args))))(*args_now)
    return _along(args, value, slopes)


@jax.custom_vjp
def _along(args: Any, value: jax.Array, slopes: Any) -> jax.Array:
    """`value`, with the `slopes` in `args`."""
    return value


def _forward(args: Any, value: jax.Array, slopes: Any) -> tuple[jax.Array, Any]:
    return value, slopes


def _backward(slopes: Any, weight: jax.Array) -> tuple[Any, None, None]:
    return jax.tree.map(lambda slope: weight * slope, slopes), None, None


_along.defvjp(_forward, _backward)
