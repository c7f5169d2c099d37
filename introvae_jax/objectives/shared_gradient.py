"""Computes the gradient of a scalar once for two losses that use it with different weights."""

from collections.abc import Callable

import jax

from introvae_jax.trees import PyTree


def shared_gradient(function: Callable[..., jax.Array], *args: PyTree) -> jax.Array:
    """Returns function(*args), a scalar, and computes its gradient in the forward pass, with weight 1.

    The backward pass of each loss only multiplies that gradient by the loss's weight. If two losses use the same scalar
    of the same `args`, their gradients are the same operations for any weights, and the compiler merges them.

    args: arrays or pytrees, such as a `jax.tree_util.Partial` that holds a network's parameters. They must contain
    everything that is differentiated. If a plain function is among the `args`, its closed-over arrays are not visible:
    then this is plain function(*args), with a separate backward pass for each loss.
    """
    if any(callable(leaf) for leaf in jax.tree.leaves(args)):
        return function(*args)
    args_now = jax.lax.stop_gradient(args)
    value, gradient = jax.value_and_grad(function, argnums=tuple(range(len(args))))(*args_now)
    return _with_gradient(args, value, gradient)


@jax.custom_vjp
def _with_gradient(args: PyTree, value: jax.Array, gradient: PyTree) -> jax.Array:
    """Returns `value` and defines `gradient` as its gradient with respect to `args`."""
    return value


def _forward(args: PyTree, value: jax.Array, gradient: PyTree) -> tuple[jax.Array, PyTree]:
    return value, gradient


def _backward(gradient: PyTree, weight: jax.Array) -> tuple[PyTree, None, None]:
    return jax.tree.map(lambda leaf: weight * leaf, gradient), None, None


_with_gradient.defvjp(_forward, _backward)
