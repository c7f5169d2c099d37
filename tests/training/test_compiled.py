"""The compiled step: how many convolutions it runs says whether the two losses share their forward passes."""

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

SETTINGS = {
    "alpha": 0.25, "alpha_d": 0.25, "beta": 1.0, "margin": 20.0, "hinge": "batch",
    "beta_kl": 1.0, "beta_neg": 10.0, "gamma": 0.0, "match_x": 20.0, "match_z": 8.0,
}  # fmt: skip
CHANNELS = (16, 24, 32)  # 32 pixels; no two stages alike, so that no convolution is merged by accident


def convolutions(name, order, norm, devices, decoder_updates=1, **changes):
    replicas = parallel.replicas(tuple(jax.devices()[:devices]))
    options = {"channels": CHANNELS, "z_dim": 8, "norm": norm, "axis_name": replicas.axis_name,
               "sphere": name == "age"}  # fmt: skip
    networks, optimizers = (Encoder(**options), Decoder(**options, image_channels=3)), (optax.adam(1e-3),) * 2
    step = step_lib.make_step(
        *networks, objectives.build(name, SETTINGS | changes), optimizers, replicas,
        update_order=order, ema_decay=0.9, mirror=False, global_batch=8, decoder_updates=decoder_updates,
    )  # fmt: skip
    state = replicas.replicate(state_lib.create(jax.random.key(0), *networks, optimizers, (32, 32, 3)))
    images = replicas.split(np.zeros((8, 32, 32, 3), np.uint8))
    compiled = replicas.map(step).lower(state, images).compile().as_text()
    return compiled.count(" convolution(")


def kernels(module, x):
    """Convolutions of one forward pass."""
    params = jax.eval_shape(module.init, jax.random.key(0), x)["params"]
    return sum(leaf.ndim == 4 for leaf in jax.tree.leaves(params))


def ideal(name, order="alternating", decoder_updates=1, gamma=0.0):
    """Forward passes once each; a backward pass takes one convolution for the input and one for the kernel.

    The encoder's loss: three encoder passes by kernel and input, of which the real images and the two
    constants need no input gradient at the stem, and the decoder's reconstruction by input alone.
    The decoder's loss: the encoder by input alone, the decoder by both, its first block included.
    """
    e = kernels(Encoder(CHANNELS, 8), jnp.zeros((1, 32, 32, 3)))
    d = kernels(Decoder(CHANNELS, 8, image_channels=3), jnp.zeros((1, 8)))
    if name == "vae":
        return (e + d) + (2 * e - 1) + d + d  # decoder's kernels; its inputs' gradients are shared with the encoder's
    if name == "soft_introvae":  # as below, and both kinds of generated images are decoded once more
        again = 2 * d + 4 * d if gamma > 0 else 0
        return (5 * e + 4 * d) + 3 * (2 * e - 1) + 3 * d + 2 * e + 4 * d + again
    if name == "age":  # each of the decoder's updates draws, encodes and goes back; the first draw is shared
        return (2 * e + 2 * d) + 2 * (2 * e - 1) + d + decoder_updates * (2 * e + 2 * d) + (decoder_updates - 1) * d
    passes = 5 if order == "alternating" else 3
    return (passes * e + 2 * d) + 3 * (2 * e - 1) + d + 2 * e + 4 * d


@pytest.mark.parametrize(
    ("order", "norm", "devices"),
    [(order, "batch", devices) for order in step_lib.UPDATE_ORDERS for devices in (1, 4)]
    + [("simultaneous", "group", 1), ("simultaneous", "none", 1)],
)
def test_nothing_is_computed_twice(order, norm, devices):
    assert convolutions("introvae", order, norm, devices) == ideal("introvae", order)


@pytest.mark.parametrize("gamma", [0.0, 1.0])
def test_soft_introvae_computes_nothing_twice(gamma):
    assert convolutions("soft_introvae", "alternating", "batch", 1, gamma=gamma) == ideal("soft_introvae", gamma=gamma)


@pytest.mark.parametrize("decoder_updates", [1, 2])
def test_age_computes_nothing_twice(decoder_updates):
    counted = convolutions("age", "alternating", "batch", 1, decoder_updates)
    assert counted == ideal("age", decoder_updates=decoder_updates)


def test_a_warm_up_step_costs_a_vae_step():
    assert convolutions("vae", "alternating", "batch", 1) == ideal("vae", "alternating")
