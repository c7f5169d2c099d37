"""The step: which term moves which network and by how much, in which order, on how many devices."""

from flax import linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from introvae_jax import objectives, parallel
from introvae_jax.nets.residual import Decoder, Encoder
from introvae_jax.training import state as state_lib
from introvae_jax.training import step as step_lib

PIXELS, Z, BATCH = 4, 2, 8
BETA, MARGIN = 2.0, 12.0


class LinearEncoder(nn.Module):
    axis_name: str | None = None

    @nn.compact
    def __call__(self, x):
        moments = nn.Dense(2 * Z, use_bias=False)(x.reshape(x.shape[0], -1))
        return jnp.split(moments, 2, axis=-1)


class LinearDecoder(nn.Module):
    z_dim: int = Z
    axis_name: str | None = None

    @nn.compact
    def __call__(self, z):
        return nn.Dense(PIXELS, use_bias=False)(z).reshape(-1, 2, 2, 1)


def one_device():
    return parallel.replicas(tuple(jax.devices()[:1]))


def linear_setup(order, **settings):
    """One SGD step of rate 1 with linear networks: the change of the parameters is minus the gradient."""
    settings = {"alpha": 0.0, "alpha_d": 0.0, "beta": 0.0, "margin": MARGIN, "hinge": "batch"} | settings
    networks, optimizers = (LinearEncoder(), LinearDecoder()), (optax.sgd(1.0),) * 2
    state = state_lib.create(jax.random.key(3), *networks, optimizers, (2, 2, 1))
    images = np.random.default_rng(0).integers(0, 256, (BATCH, 2, 2, 1), dtype=np.uint8)
    step = step_lib.make_step(
        *networks, objectives.build("introvae", settings), optimizers, one_device(),
        update_order=order, ema_decay=0.9, mirror=False, global_batch=BATCH,
    )  # fmt: skip
    batch = step_lib.draw_batch(state, jnp.asarray(images), Z, False, BATCH, one_device())
    new_state, _ = jax.jit(step)(state, images)
    weights = [np.float64(p["Dense_0"]["kernel"]) for p in (state.encoder.params, state.decoder.params)]
    moved = [np.float64(p["Dense_0"]["kernel"]) for p in (new_state.encoder.params, new_state.decoder.params)]
    return settings, jax.tree.map(np.float64, batch), weights, moved


def numpy_encode(e, x):
    moments = x.reshape(BATCH, -1) @ e
    return moments[:, :Z], moments[:, Z:]


def numpy_kl(e, x):
    mu, logvar = numpy_encode(e, x)
    return (0.5 * (mu**2 + np.exp(logvar) - 1 - logvar)).sum(1).mean()


def numpy_losses(settings, batch, e0, d0):
    """The two losses as functions of the one network that each may move, in plain numpy."""
    x = batch.x.reshape(BATCH, -1)
    ae = lambda xr: 0.5 * ((xr - x) ** 2).sum(1).mean()  # noqa: E731

    def latents(e):
        mu, logvar = numpy_encode(e, x)
        return mu + np.exp(logvar / 2) * batch.eps

    rec0, fake0 = latents(e0) @ d0, batch.zp @ d0  # constants for the encoder

    def encoder_loss(e):
        hinges = sum(max(0.0, settings["margin"] - numpy_kl(e, image)) for image in (rec0, fake0))
        return numpy_kl(e, x) + settings["alpha"] * hinges + settings["beta"] * ae(latents(e) @ d0)

    def decoder_loss(d, judge):
        rec, fake = latents(e0) @ d, batch.zp @ d
        kls = numpy_kl(judge, rec) + numpy_kl(judge, fake)
        return settings["alpha_d"] * kls + settings["beta"] * ae(rec)

    return encoder_loss, decoder_loss


def finite_differences(function, at, h=1e-5):
    grad = np.zeros_like(at)
    for i in np.ndindex(at.shape):
        shift = np.zeros_like(at)
        shift[i] = h
        grad[i] = (function(at + shift) - function(at - shift)) / (2 * h)
    return grad


CASES = {
    "kl_real alone": {},
    "hinges": {"alpha": 0.7},
    "reconstruction": {"beta": BETA},
    "decoder's kl": {"alpha_d": 0.6},
    "all": {"alpha": 0.7, "alpha_d": 0.6, "beta": BETA},
    "hinges beyond the margin": {"alpha": 0.7, "margin": 0.0},
}


@pytest.mark.parametrize("order", step_lib.UPDATE_ORDERS)
@pytest.mark.parametrize("case", CASES)
def test_each_term_moves_its_network_by_its_gradient(case, order):
    settings, batch, (e0, d0), (e1, d1) = linear_setup(order, **CASES[case])
    encoder_loss, decoder_loss = numpy_losses(settings, batch, e0, d0)
    judge = e1 if order == "alternating" else e0
    np.testing.assert_allclose(e0 - e1, finite_differences(encoder_loss, e0), rtol=1e-3, atol=2e-4)
    by_d = finite_differences(lambda d: decoder_loss(d, judge), d0)
    np.testing.assert_allclose(d0 - d1, by_d, rtol=1e-3, atol=2e-4)


def test_routing():
    """What stays put: the decoder under every term of the encoder's loss, the encoder under the decoder's."""
    moves = {case: linear_setup("simultaneous", **CASES[case])[2:] for case in CASES}
    change = {case: [np.abs(new - old).max() for old, new in zip(*pair, strict=True)] for case, pair in moves.items()}
    assert change["kl_real alone"][1] == 0
    assert change["hinges"][1] == 0
    assert change["reconstruction"][1] > 1e-2
    assert change["decoder's kl"][1] > 1e-2
    # alpha_d must not reach the encoder: it moves as under its KL alone, to the bit.
    np.testing.assert_array_equal(moves["decoder's kl"][1][0], moves["kl_real alone"][1][0])
    np.testing.assert_array_equal(moves["hinges beyond the margin"][1][0], moves["kl_real alone"][1][0])


def fresh_state(networks, optimizers, shape):
    """In one program: operation by operation, each would be compiled by itself."""
    return jax.jit(lambda: state_lib.create(jax.random.key(0), *networks, optimizers, shape))()


def small_run(
    devices, *, hinge="batch", norm="batch", order="alternating", steps=20, optimizer=None, mirror=True, **changes
):
    """`steps` steps of a 16-pixel model; losses of each step and the final state, as numpy arrays."""
    replicas = parallel.replicas(tuple(jax.devices()[:devices]))
    options = {"channels": (8, 8), "z_dim": 6, "norm": norm, "axis_name": replicas.axis_name}
    networks = Encoder(**options), Decoder(**options, image_channels=1)
    optimizers = (optimizer or optax.adam(1e-3),) * 2
    settings = {"alpha": 0.25, "alpha_d": 0.25, "beta": 1.0, "margin": 20.0, "hinge": hinge} | changes
    state = replicas.replicate(fresh_state(networks, optimizers, (16, 16, 1)))
    step = replicas.map(
        step_lib.make_step(
            *networks, objectives.build("introvae", settings), optimizers, replicas,
            update_order=order, ema_decay=0.9, mirror=mirror, global_batch=16,
        )
    )  # fmt: skip
    images = np.random.default_rng(0)
    history = []
    for _ in range(steps):
        state, terms = step(state, replicas.split(images.integers(0, 256, (16, 16, 16, 1), dtype=np.uint8)))
        history.append(jax.device_get(terms))
    return history, jax.device_get(state)


@pytest.mark.parametrize(
    ("hinge", "changes"),
    [("batch", {}), ("sample", {}), ("sample", {"margin_offset": 3.0, "auto_beta": 2.5})],
    ids=["batch", "sample", "automatic"],
)
def test_one_and_four_devices_train_the_same_model(hinge, changes):
    """Losses within 1e-3 relative and parameters within 1e-3 of their scale after 20 steps, BatchNorm included.

    SGD, because Adam divides by the gradient's size: where that is rounding noise, so is its first step.
    """
    (history_1, state_1), (history_4, state_4) = (
        small_run(n, hinge=hinge, optimizer=optax.sgd(1e-5, momentum=0.9), **changes) for n in (1, 4)
    )
    for terms_1, terms_4 in zip(history_1, history_4, strict=True):
        for name, value in terms_1.items():
            np.testing.assert_allclose(terms_4[name], value, rtol=1e-3, atol=1e-3, err_msg=name)
    moved = jax.tree.leaves((state_1.encoder, state_1.decoder))
    for a, b in zip(moved, jax.tree.leaves((state_4.encoder, state_4.decoder)), strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-3, atol=1e-3 * max(np.abs(a).max(), 1e-3))


def test_update_orders_differ_in_the_decoder_alone_after_one_step():
    states = [small_run(1, order=order, steps=1)[1] for order in step_lib.UPDATE_ORDERS]
    jax.tree.map(np.testing.assert_array_equal, states[0].encoder, states[1].encoder)
    pairs = [jax.tree.leaves(state.decoder.params) for state in states]
    assert max(np.abs(a - b).max() for a, b in zip(*pairs, strict=True)) > 0


def test_update_orders_differ_by_what_the_two_encoders_say_of_generated_images():
    """Algorithm 1 encodes them again with the updated encoder: the decoder's KL terms differ by that alone."""
    weight, settings = 0.6, {"alpha": 0.7, "beta": BETA}
    (_, batch, (e0, d0), (e1, d1)), (*_, (e2, d2)) = (
        linear_setup(order, **settings, alpha_d=weight) for order in step_lib.UPDATE_ORDERS
    )
    np.testing.assert_array_equal(e1, e2)
    mu, logvar = numpy_encode(e0, batch.x)
    latents = (mu + np.exp(logvar / 2) * batch.eps, batch.zp)

    def pull(judge):
        return finite_differences(lambda d: sum(numpy_kl(judge, z @ d) for z in latents), d0)

    np.testing.assert_allclose(d2 - d1, weight * (pull(e1) - pull(e0)), rtol=1e-3, atol=2e-4)
    assert np.abs(d2 - d1).max() > 1e-2
    (*_, (_, d3)), (*_, (_, d4)) = (linear_setup(order, **settings) for order in step_lib.UPDATE_ORDERS)
    np.testing.assert_array_equal(d3, d4)  # no KL terms, no difference


def test_noise_is_drawn_for_the_global_batch():
    state = state_lib.create(jax.random.key(3), LinearEncoder(), LinearDecoder(), (optax.sgd(1.0),) * 2, (2, 2, 1))
    images = np.random.default_rng(0).integers(0, 256, (BATCH, 2, 2, 1), dtype=np.uint8)
    whole = step_lib.draw_batch(state, jnp.asarray(images), Z, True, BATCH, one_device())
    four = parallel.replicas(tuple(jax.devices()))
    parted = jax.pmap(
        lambda x: step_lib.draw_batch(state, x, Z, True, BATCH, four), axis_name=parallel.AXIS
    )(images.reshape(4, 2, 2, 2, 1))  # fmt: skip
    for a, b in zip(jax.tree.leaves(whole), jax.tree.leaves(parted), strict=True):
        np.testing.assert_array_equal(a, b.reshape(a.shape))
    assert not np.array_equal(whole.eps, whole.zp)


def test_mirror_flips_about_half_of_the_images_left_to_right():
    images = np.random.default_rng(0).integers(0, 256, (64, 2, 2, 1), dtype=np.uint8)
    state = state_lib.create(jax.random.key(3), LinearEncoder(), LinearDecoder(), (optax.sgd(1.0),) * 2, (2, 2, 1))
    x = np.asarray(step_lib.draw_batch(state, jnp.asarray(images), Z, True, 64, one_device()).x)
    plain = images / np.float32(255)
    same = [np.allclose(a, b) for a, b in zip(x, plain, strict=True)]
    flipped = [np.allclose(a, b[:, ::-1]) for a, b in zip(x, plain, strict=True)]
    assert all(a or b for a, b in zip(same, flipped, strict=True))
    assert 16 < sum(flipped) < 48


def test_dequantized_images_stay_in_their_grey_level_and_do_not_depend_on_the_devices():
    images = np.random.default_rng(0).integers(0, 256, (BATCH, 2, 2, 1), dtype=np.uint8)
    state = state_lib.create(jax.random.key(3), LinearEncoder(), LinearDecoder(), (optax.sgd(1.0),) * 2, (2, 2, 1))
    draw = lambda x, replicas: step_lib.draw_batch(state, x, Z, False, BATCH, replicas, dequantize=True).x  # noqa: E731
    whole = np.asarray(draw(jnp.asarray(images), one_device()))
    np.testing.assert_array_equal(np.floor(whole * 256), images)
    assert len(np.unique(whole * 256 - images)) == images.size
    four = parallel.replicas(tuple(jax.devices()))
    split = jax.pmap(lambda x: draw(x, four), axis_name=parallel.AXIS)(images.reshape(4, BATCH // 4, 2, 2, 1))
    np.testing.assert_array_equal(split.reshape(whole.shape), whole)


def test_ema_follows_its_formula():
    optimizer = optax.sgd(1.0)
    network = state_lib.NetworkState.create({"w": jnp.array([1.0])}, optimizer)
    network = network.update({"w": jnp.array([1.0])}, optimizer, jnp.int32(0), 0.999)  # w: 1 -> 0, decay 1 / 10
    np.testing.assert_allclose(network.ema["w"], 0.1, rtol=1e-5)
    network = network.update({"w": jnp.array([1.0])}, optimizer, jnp.int32(10**6), 0.9)  # w: 0 -> -1, decay 0.9
    np.testing.assert_allclose(network.ema["w"], 0.9 * 0.1 - 0.1, rtol=1e-5)


def test_golden_first_step():
    """Recorded once; update the numbers only when the change of the first step is intended."""
    terms = small_run(1, steps=1)[0][0]
    golden = {
        "loss_encoder": 69.4154, "loss_decoder": 59.9585, "loss_rec": 59.059,
        "kl_real": 1.22601, "kl_rec": 1.98666, "kl_fake": 1.49172, "kl_gap": 0.513178,
        "hinge_rec_active": 1.0, "hinge_fake_active": 1.0,
        "grad_norm_encoder": 114.19, "grad_norm_decoder": 331.989,
    }  # fmt: skip
    for name, value in golden.items():
        np.testing.assert_allclose(terms[name], value, rtol=2e-3, err_msg=name)
    assert golden.keys() == terms.keys()


@pytest.mark.parametrize(
    ("devices", "norm", "margin"),
    [(1, "batch", 20.0), (1, "batch", 0.0), (4, "batch", 20.0), (1, "none", 20.0)],  # at 0 no hinge is active
)
def test_a_shared_backward_pass_gives_the_gradients_of_two(devices, norm, margin):
    """Within 2e-5 of the largest entry of each array, in the float32 in which both are computed."""
    moved, alone = (one_update(share, devices=devices, norm=norm, margin=margin) for share in (True, False))
    for one, other in zip(jax.tree.leaves(moved), jax.tree.leaves(alone), strict=True):
        np.testing.assert_allclose(one, other, rtol=0, atol=2e-5 * max(np.abs(other).max(), 1e-6))


def one_update(share_backward, *, devices, norm, margin):
    """What one SGD step of rate 1 adds to the parameters, and its terms."""
    replicas = parallel.replicas(tuple(jax.devices()[:devices]))
    options = {"channels": (8, 8), "z_dim": 6, "norm": norm, "axis_name": replicas.axis_name}
    networks, optimizers = (Encoder(**options), Decoder(**options, image_channels=1)), (optax.sgd(1.0),) * 2
    settings = {"alpha": 0.3, "alpha_d": 0.7, "beta": 0.1, "margin": margin, "hinge": "batch"}
    state = fresh_state(networks, optimizers, (16, 16, 1))
    step = step_lib.make_step(
        *networks, objectives.build("introvae", settings), optimizers, replicas, update_order="simultaneous",
        ema_decay=0.9, mirror=False, global_batch=16, share_backward=share_backward,
    )  # fmt: skip
    images = np.random.default_rng(0).integers(0, 256, (16, 16, 16, 1), dtype=np.uint8)
    before = jax.device_get(state)
    after, terms = jax.device_get(replicas.map(step)(replicas.replicate(state), replicas.split(images)))
    assert terms["hinge_rec_active"] == terms["hinge_fake_active"] == float(margin > 0)
    pairs = [
        (new.params, old.params) for new, old in ((after.encoder, before.encoder), (after.decoder, before.decoder))
    ]
    return jax.tree.map(np.subtract, *zip(*pairs, strict=True)), terms
