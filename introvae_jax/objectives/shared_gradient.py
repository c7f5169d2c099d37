"""The gradient of a scalar that two losses weigh differently, computed once for both."""

from collections.abc import Callable

import jax

from introvae_jax.trees import PyTree


def shared_gradient(function: Callable[..., jax.Array], *args: PyTree) -> jax.Array:
    """function(*args), a scalar, whose gradient is computed in the forward pass, for a weight of one.

    The weight of each loss is applied later, in its backward pass.

    args: arrays, or trees of them, such as a `jax.tree_util.Partial` that holds a network's parameters. What is
    differentiated has to be in them. Where two losses take the same scalar of the same `args`, their backward passes
    are the same operations then, whatever their weights, and the compiler merges them. A plain function among the
    `args` hides what it holds: then this is function(*args), with a backward pass for each loss.
    """
    if any(callable(leaf) for leaf in jax.tree.leaves(args)):
        return function(*args)
    args_now = jax.lax.stop_gradient(args)
    value, gradient = jax.value_and_grad(function, argnums=tuple(range(len(args))))(*args_now)
    return _with_gradient(args, value, gradient)


@jax.custom_vjp
def _with_gradient(args: PyTree, value: jax.Array, gradient: PyTree) -> jax.Array:
    """`value`, whose gradient with respect to `args` is `gradient`."""
    return value


def _forward(args: PyTree, value: jax.Array, gradient: PyTree) -> tuple[jax.Array, PyTree]:
    return value, gradient


def _backward(gradient: PyTree, weight: jax.Array) -> tuple[PyTree, None, None]:
    return jax.tree.map(lambda leaf: weight * leaf, gradient), None, None


_with_gradient.defvjp(_forward, _backward)
