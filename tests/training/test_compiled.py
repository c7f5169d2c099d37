"""The compiled step: how many convolutions it runs says whether the two losses share their forward passes."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from configs import default
from introvae_jax import objectives, parallel
from introvae_jax.experiment import Experiment
from introvae_jax.nets.residual import Decoder, Encoder
from introvae_jax.planning import compiled_step
from introvae_jax.training import state as state_lib
from introvae_jax.training import step as step_lib

# Forward passes that the work of a step amounts to, of encoder and of decoder: a backward pass is two, or one by
# parameters or by input alone. Encoder: 3 or 5 forward, 3 backward, and 2 by input where the losses share none.
IDEAL_PASSES = {"simultaneous": (3 + 6, 2 + 5), "alternating": (5 + 6 + 2, 2 + 5)}
SETTINGS = {
    "alpha": 0.25, "alpha_d": 0.25, "beta": 1.0, "margin": 20.0, "hinge": "batch",
    "beta_kl": 1.0, "beta_neg": 10.0, "gamma": 0.0, "match_x": 20.0, "match_z": 8.0,
}  # fmt: skip
CHANNELS = (16, 24, 32)  # 32 pixels; no two stages alike, so that no convolution is merged by accident


@pytest.fixture(autouse=True)
def as_users_compile():
    """With every pass of the compiler: what it merges is what is tested here."""
    jax.config.update("jax_disable_most_optimizations", False)
    yield
    jax.config.update("jax_disable_most_optimizations", True)


def convolutions(name, order, norm, devices, decoder_updates=1, **changes):
    replicas = parallel.replicas(tuple(jax.devices()[:devices]))
    options = {"channels": CHANNELS, "z_dim": 8, "norm": norm, "axis_name": replicas.axis_name,
               "sphere": name == "age"}  # fmt: skip
    networks, optimizers = (Encoder(**options), Decoder(**options, image_channels=3)), (optax.adam(1e-3),) * 2
    step = step_lib.make_step(
        *networks, objectives.build(name, SETTINGS | changes), optimizers, replicas,
        update_order=order, ema_decay=0.9, mirror=False, global_batch=8, decoder_updates=decoder_updates,
    )  # fmt: skip
    state = jax.eval_shape(lambda: state_lib.create(jax.random.key(0), *networks, optimizers, (32, 32, 3)))
    images = jax.ShapeDtypeStruct((devices, 8 // devices, 32, 32, 3), np.uint8)
    compiled = replicas.map(step).lower(state, images).compile().as_text()
    return compiled.count(" convolution(")


def kernels(module, x):
    """Convolutions of one forward pass."""
    params = jax.eval_shape(module.init, jax.random.key(0), x)["params"]
    return sum(leaf.ndim == 4 for leaf in jax.tree.leaves(params))


def ideal(name, order="alternating", decoder_updates=1, gamma=0.0, shared=False):
    """Forward passes once each; a backward pass takes one convolution for the input and one for the kernel.

    The encoder's loss: three encoder passes by kernel and input, of which the real images and the two
    constants need no input gradient at the stem, and the decoder's reconstruction by input alone.
    The decoder's loss: the encoder by input alone, the decoder by both, its first block included. Where both
    losses take the mean KL of one encoder, `shared`, what is left of the former is the stem's input.
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
    return (passes * e + 2 * d) + 3 * (2 * e - 1) + d + (2 if shared else 2 * e) + 4 * d


@pytest.mark.parametrize(
    ("order", "norm", "devices"),
    [(order, "batch", devices) for order in step_lib.UPDATE_ORDERS for devices in (1, 4)]
    + [("simultaneous", "group", 1), ("simultaneous", "none", 1)],
)
def test_nothing_is_computed_twice(order, norm, devices):
    shared = order == "simultaneous"
    assert convolutions("introvae", order, norm, devices) == ideal("introvae", order, shared=shared)


@pytest.mark.parametrize("order", step_lib.UPDATE_ORDERS)
def test_a_relative_margin_and_an_automatic_beta_cost_nothing(order):
    counted = convolutions("introvae", order, "batch", 1, margin_offset=3.0, auto_beta=2.5)
    assert counted == ideal("introvae", order, shared=order == "simultaneous")


@pytest.mark.parametrize("order", step_lib.UPDATE_ORDERS)
def test_operations_are_the_ideal_ones_within_3_percent(order):
    config = default.get_config()
    config.batch_size, config.data.size, config.model.channels = 8, 32, (32, 64, 128)
    config.objective.update_order = order
    one = parallel.replicas((jax.devices()[0],))
    networks = Experiment(config, one).networks
    inputs = jnp.zeros((8, 32, 32, 3)), jnp.zeros((8, config.model.z_dim))
    ideal = sum(
        passes * flops(jax.jit(network.apply).lower(jax.eval_shape(network.init, jax.random.key(0), x), x).compile())
        for passes, network, x in zip(IDEAL_PASSES[order], networks, inputs, strict=True)
    )
    assert flops(compiled_step.compile_step(config, one.local)) == pytest.approx(ideal, rel=0.03)


def flops(compiled):
    return compiled.cost_analysis()["flops"]


def test_hinges_of_single_images_need_a_backward_pass_of_their_own():
    counted = convolutions("introvae", "simultaneous", "group", 1, hinge="sample")
    assert counted == ideal("introvae", "simultaneous")


@pytest.mark.parametrize("gamma", [0.0, 1.0])
def test_soft_introvae_computes_nothing_twice(gamma):
    assert convolutions("soft_introvae", "alternating", "batch", 1, gamma=gamma) == ideal("soft_introvae", gamma=gamma)


@pytest.mark.parametrize("decoder_updates", [1, 2])
def test_age_computes_nothing_twice(decoder_updates):
    counted = convolutions("age", "alternating", "batch", 1, decoder_updates)
    assert counted == ideal("age", decoder_updates=decoder_updates)


def test_a_warm_up_step_costs_a_vae_step():
    assert convolutions("vae", "alternating", "batch", 1) == ideal("vae", "alternating")
