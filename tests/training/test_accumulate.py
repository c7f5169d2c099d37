"""A batch taken in parts trains the model of the whole batch, and needs less memory."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from introvae_jax import objectives
from introvae_jax.nets.residual import Decoder, Encoder
from introvae_jax.training import parallel
from introvae_jax.training import state as state_lib
from introvae_jax.training import step as step_lib

BATCH, PARTS, STEPS, Z = 32, 4, 3, 6
MARGIN = 3.0
SETTINGS = {
    "alpha": 2.0, "alpha_d": 0.5, "beta": 0.5, "margin": MARGIN, "hinge": "batch",
    "beta_kl": 0.7, "beta_neg": 0.9, "gamma": 0.5,
}  # fmt: skip


def networks(norm, axis_name=None):
    options = {"channels": (8,), "z_dim": Z, "norm": norm, "axis_name": axis_name}
    return Encoder(**options), Decoder(**options, image_channels=1)


def images(step):
    """Those of one part are alike, and those of another darker: their KL lie far apart."""
    noise = np.random.default_rng(step).integers(1, 256, (BATCH, 8, 8, 1))
    return np.uint8(noise * (1 + np.arange(BATCH) % PARTS)[:, None, None, None] / PARTS)


def fresh_state(norm, optimizers):
    """With weights twice as large as usual, which spread the KL of the parts."""
    state = state_lib.create(jax.random.key(0), *networks(norm), optimizers, (8, 8, 1))
    louder = jax.tree_util.tree_map(lambda x: 2 * x, state.encoder.params)
    return state.replace(encoder=state_lib.Player.create(louder, optimizers[0]))


def train(objective, norm="none", *, parts, devices=1, order="alternating", updates=1, clip=1e9, steps=STEPS):
    """Terms and gradients of every step, and the last state."""
    replicas = parallel.replicas(tuple(jax.devices()[:devices]))
    keep = optax.trace(decay=0.0)  # its state is the gradient
    optimizers = (optax.chain(keep, optax.clip_by_global_norm(clip), optax.adam(1e-3, eps=1e-2)),) * 2
    state = replicas.replicate(fresh_state(norm, optimizers))
    step = replicas.map(
        step_lib.make_step(
            *networks(norm, replicas.axis_name), objective, optimizers, replicas, update_order=order, ema_decay=0.9,
            mirror=True, global_batch=BATCH, decoder_updates=updates, parts=parts,
        )
    )  # fmt: skip
    history = []
    for number in range(steps):
        state, terms = step(state, replicas.split(images(number)))
        grads = {"encoder": state.encoder.opt_state[0].trace, "decoder": state.decoder.opt_state[0].trace}
        history.append(jax.device_get((terms, grads)))
    return history, jax.device_get(state)


def distance(tree, other):
    """Of two trees, relative to the first."""
    return float(optax.tree.norm(jax.tree.map(np.subtract, tree, other)) / optax.tree.norm(tree))


def build(name, **changes):
    return objectives.build(name, SETTINGS | changes)
