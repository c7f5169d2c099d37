"""The gradient of a loss over a batch that is taken in parts: less memory, the same numbers.

Example r of the batch is in part r mod `parts`, so that the parts do not depend on the number of devices. A loss is

    loss(params, batch, mean) -> (value, (kept, terms))

with `mean` as in objectives/base.py, `kept` arrays [B, ...] to hand on, and scalar `terms`.

Be f the loss as a function of its means M over the whole batch. Its gradient is sum_j df/dM_j(M) grad M_j, and
grad M_j is the average of the parts' grad m_j. So each part is differentiated at M + (m - stop_gradient(m)): the whole
batch's value with the part's slope. Where f is linear its slope needs no M, and f(M) is the average of the f(m); any
other f costs a forward pass over all parts beforehand. A mean of something that another mean is in (AGE's variance)
cannot be had this way.
"""

from collections.abc import Callable
import functools
from typing import Any

import jax
import jax.numpy as jnp

from introvae_jax.objectives.base import Mean

Loss = Callable[[Any, Any, Mean], tuple[jax.Array, tuple[Any, Any]]]


def value_and_grad(
    loss: Loss, params: Any, batch: Any, mean: Mean, *, parts: int, linear: bool
) -> tuple[tuple[jax.Array, tuple[Any, Any]], Any]:
    """What jax.value_and_grad(loss, has_aux=True)(params, batch, mean) gives, with one part's activations at a time.

    batch: arrays [B, ...] of this device, `parts` of them equally large. linear: whether the loss and its terms are
    linear in their means. One part is no loop.
    """
    differentiate = jax.value_and_grad(loss, has_aux=True)
    if parts == 1:
        return differentiate(params, batch, mean)
    batch = jax.tree.map(functools.partial(_split, parts=parts), batch)
    whole = None if linear else _means(loss, params, batch, mean)

    def of_part(part: Any) -> tuple[Any, Any]:
        (value, (kept, terms)), grads = differentiate(params, part, mean if linear else _around(whole, mean))
        return (value, terms, grads), kept

    def add(sums: Any, part: Any) -> tuple[Any, Any]:
        summands, kept = of_part(part)
        return jax.tree.map(jnp.add, sums, summands), kept

    shapes, _ = jax.eval_shape(of_part, jax.tree.map(lambda x: x[0], batch))
    sums, kept = jax.lax.scan(add, jax.tree.map(lambda x: jnp.zeros(x.shape, x.dtype), shapes), batch)
    value, terms, grads = jax.tree.map(lambda x: x / parts, sums)
    return (value, (jax.tree.map(_join, kept), terms)), grads


def _means(loss: Loss, params: Any, batch: Any, mean: Mean) -> list[jax.Array]:
    """Every mean that the loss takes, in the order in which it takes them, over all parts."""

    def of_part(part: Any) -> list[jax.Array]:
        taken = []

        def take(values: jax.Array) -> jax.Array:
            taken.append(mean(values))
            return taken[-1]

        loss(params, part, take)
        return taken

    return [jnp.mean(of_parts, axis=0) for of_parts in jax.lax.map(of_part, batch)]


def _around(whole: list[jax.Array], mean: Mean) -> Mean:
    """The `whole` batch's means one after the other, each with the slope of the part's own."""
    remaining = iter(whole)

    def take(values: jax.Array) -> jax.Array:
        of_part = mean(values)
        return next(remaining) + (of_part - jax.lax.stop_gradient(of_part))

    return take


def _split(x: jax.Array, parts: int) -> jax.Array:
    """[B, ...] -> [parts, B / parts, ...]."""
    return x.reshape(-1, parts, *x.shape[1:]).swapaxes(0, 1)


def _join(x: jax.Array) -> jax.Array:
    """[parts, B / parts, ...] -> [B, ...], in the order of before."""
    return x.swapaxes(0, 1).reshape(-1, *x.shape[2:])
