"""A batch taken in parts trains the model of the whole batch, and needs less memory."""

import functools

from flax import linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from configs import digits, toy2d
from introvae_jax import config as config_lib
from introvae_jax import objectives
from introvae_jax.data import source
from introvae_jax.errors import UserError
from introvae_jax.nets import layers, residual
from introvae_jax.objectives.introvae import IntroVAE
from introvae_jax.training import accumulate, loop, parallel
from introvae_jax.training import state as state_lib
from introvae_jax.training import step as step_lib
from introvae_jax.training.run import Run

BATCH, PARTS, STEPS, Z = 32, 4, 3, 3
SETTINGS = {
    "alpha": 2.0, "alpha_d": 0.5, "beta": 0.5, "margin": 5.5, "hinge": "batch",
    "beta_kl": 0.7, "beta_neg": 0.9, "gamma": 0.5,
}  # fmt: skip


class Small(nn.Module):
    """A hidden layer with the norm of the paper's networks; smooth, so that rounding stays rounding."""

    features: int
    norm: str
    axis_name: str | None = None
    z_dim: int = Z

    def hidden(self, x):
        x = nn.Dense(8)(x.reshape(x.shape[0], 1, 1, -1))
        x = jnp.tanh(layers.Norm(self.norm, self.axis_name, name="norm")(x))
        return nn.Dense(self.features)(x.reshape(x.shape[0], -1))


class SmallEncoder(Small):
    @nn.compact
    def __call__(self, x):
        return jnp.split(self.hidden(x), 2, axis=-1)


class SmallDecoder(Small):
    @nn.compact
    def __call__(self, z):
        return self.hidden(z).reshape(-1, 2, 2, 1)


def small(norm, axis_name=None):
    return SmallEncoder(2 * Z, norm, axis_name), SmallDecoder(4, norm, axis_name)


def paper(norm, axis_name=None):
    options = {"channels": (8,), "z_dim": Z, "norm": norm, "axis_name": axis_name}
    return residual.Encoder(**options), residual.Decoder(**options, image_channels=1)


def images(shape, step):
    """Those of one part are alike, and those of the next brighter: their KL lie far apart."""
    noise = np.random.default_rng(step).integers(128, 256, (BATCH, *shape))
    return np.uint8(noise * (np.arange(BATCH) % PARTS)[:, None, None, None] / (PARTS - 1))


def fresh_state(pair, optimizers, shape):
    """Parameters from numpy: initialising networks would take most of a test's time."""
    shapes = jax.eval_shape(lambda: state_lib.create(jax.random.key(0), *pair, optimizers, shape))
    draw = np.random.default_rng(7)

    def parameter(leaf):
        scale = 1.5 * np.prod(leaf.shape[:-1]) ** -0.5
        return jnp.asarray(scale * draw.standard_normal(leaf.shape), jnp.float32)

    players = (
        state_lib.Player.create(jax.tree.map(parameter, player.params), optimizer)
        for player, optimizer in zip((shapes.encoder, shapes.decoder), optimizers, strict=True)
    )
    return state_lib.State(jnp.int32(0), jnp.array([0, 7], jnp.uint32), *players)


def prepare(objective, networks, norm, parts, devices, order="alternating", updates=1, clip=1e9, rate=1e-2):
    """The mapped step, a state, and how to place images. An optimizer's first state is the gradient."""
    replicas = parallel.replicas(tuple(jax.devices()[:devices]))
    keep = optax.trace(decay=0.0)
    optimizers = (optax.chain(keep, optax.clip_by_global_norm(clip), optax.sgd(rate, momentum=0.9)),) * 2
    pair = networks(norm, replicas.axis_name)
    step = step_lib.make_step(
        *pair, objective, optimizers, replicas, update_order=order, ema_decay=0.9,
        mirror=True, global_batch=BATCH, decoder_updates=updates, parts=parts,
    )  # fmt: skip
    shape = (2, 2, 1) if networks is small else (8, 8, 1)
    return replicas.map(step), replicas.replicate(fresh_state(pair, optimizers, shape)), replicas.split


def train(objective, networks=small, norm="none", *, parts, devices=1, steps=STEPS, **options):
    """Terms and the gradients of every step, and the last state."""
    step, state, place = prepare(objective, networks, norm, parts, devices, **options)
    shape, history = (2, 2, 1) if networks is small else (8, 8, 1), []
    for number in range(steps):
        state, terms = step(state, place(images(shape, number)))
        history.append(jax.device_get((terms, state.encoder.opt_state[0].trace, state.decoder.opt_state[0].trace)))
    return history, jax.device_get(state)


def build(name, **changes):
    return objectives.build(name, SETTINGS | changes)


def distance(tree, other):
    """Of two trees, relative to the first."""
    return float(optax.tree.norm(jax.tree.map(np.subtract, tree, other)) / optax.tree.norm(tree))


def assert_same(one, other, tolerance):
    """Terms within `tolerance` of their value or of 0.1, gradients, parameters and EMA within it of their norm."""
    (history, state), (history_other, state_other) = one, other
    for (terms, *grads), (terms_other, *grads_other) in zip(history, history_other, strict=True):
        assert terms.keys() == terms_other.keys()
        for name, value in terms.items():
            np.testing.assert_allclose(terms_other[name], value, rtol=tolerance, atol=0.1 * tolerance, err_msg=name)
        for tree, tree_other in zip(grads, grads_other, strict=True):
            assert distance(tree, tree_other) < tolerance
    for name in ("encoder", "decoder"):
        player, player_other = getattr(state, name), getattr(state_other, name)
        assert distance(player.params, player_other.params) < tolerance
        assert distance(player.ema, player_other.ema) < tolerance


# Objective, its changes, norm, how the step is made, devices.
CASES = [
    ("introvae", {}, "none", {}, 1),
    ("introvae", {"margin": 4.6}, "group", {"updates": 2}, 4),
    ("introvae", {}, "none", {"order": "simultaneous", "clip": 1.0}, 4),
    ("introvae", {"hinge": "sample"}, "group", {"order": "simultaneous"}, 1),
    ("introvae", {"hinge": "sample"}, "none", {"updates": 2}, 4),
    ("soft_introvae", {}, "none", {}, 4),
    ("soft_introvae", {}, "group", {"order": "simultaneous"}, 1),
    ("vae", {}, "group", {}, 4),
]


@pytest.mark.parametrize(("name", "changes", "norm", "options", "devices"), CASES)
def test_four_parts_train_the_model_of_the_whole_batch(name, changes, norm, options, devices):
    """Terms, gradients, parameters and averages over three steps."""
    objective = build(name, **changes)
    whole = train(objective, norm=norm, parts=1, **options)
    assert_same(whole, train(objective, norm=norm, parts=PARTS, devices=devices, **options), 1e-5)


class EachPartsOwnHinge(IntroVAE):
    encoder_loss_is_linear = True


class SaysNothing(IntroVAE):
    encoder_loss_is_linear = decoder_loss_is_linear = False


def test_the_hinge_is_that_of_the_whole_batch_where_its_parts_disagree():
    """Also for an objective that says nothing of itself. A hinge of each part's own has another gradient."""
    settings = {name: SETTINGS[name] for name in ("alpha", "alpha_d", "beta", "margin", "hinge")}
    whole = train(IntroVAE(**settings), parts=1, steps=1)
    naive, exact = (train(cls(**settings), parts=PARTS, steps=1) for cls in (EachPartsOwnHinge, SaysNothing))
    assert_same(whole, exact, 1e-5)
    ((terms, grads, _),), ((terms_naive, grads_naive, _),) = whole[0], naive[0]
    active = [name for name in terms if "active" in name]
    assert {float(terms[name]) for name in active} <= {0.0, 1.0}
    assert any(0 < terms_naive[name] < 1 for name in active)  # the parts do disagree
    assert distance(grads, grads_naive) > 0.1
    assert abs(terms["loss_encoder"] - terms_naive["loss_encoder"]) > 0.1


def test_batchnorm_takes_each_parts_own_moments():
    """The gradient is the average of the parts' own gradients, each a batch by itself; not that of the whole batch."""
    encoder, decoder = small("batch")
    objective = build("vae")
    optimizers = (optax.sgd(1.0),) * 2
    state = fresh_state((encoder, decoder), optimizers, (2, 2, 1))
    one = parallel.replicas(tuple(jax.devices()[:1]))
    batch = step_lib.draw_batch(state, jnp.asarray(images((2, 2, 1), 0)), Z, False, BATCH, one)

    def loss(params, batch, mean):
        encode, decode = (
            lambda x, net=net, params=params: net.apply({"params": params}, x)
            for net, params in ((encoder, params), (decoder, state.decoder.params))
        )
        return objective.encoder_loss(encode, decode, batch, mean)

    @functools.partial(jax.jit, static_argnums=1)
    def gradient(batch, parts):
        options = {"parts": parts, "linear": True}
        return accumulate.value_and_grad(loss, state.encoder.params, batch, one.mean, **options)[1]

    by_hand = [gradient(jax.tree.map(lambda x: x[part::PARTS], batch), 1) for part in range(PARTS)]  # noqa: B023
    average = jax.tree.map(lambda *leaves: sum(leaves) / PARTS, *by_hand)
    assert distance(average, gradient(batch, PARTS)) < 1e-5
    assert distance(average, gradient(batch, 1)) > 0.02


def test_batchnorm_in_parts_trains_the_same_model_on_one_and_four_devices():
    parted = (train(build("introvae"), norm="batch", parts=PARTS, devices=devices) for devices in (1, 4))
    assert_same(*parted, 1e-3)


def test_memory_falls_with_the_parts():
    """On the paper's networks, where the activations are most of it; what comes out is the same."""
    temporary, outputs = [], []
    for parts in (1, PARTS):
        step, state, place = prepare(build("vae"), paper, "none", parts, devices=1)
        compiled = step.lower(state, place(images((8, 8, 1), 0))).compile()
        temporary.append(compiled.memory_analysis().temp_size_in_bytes)
        outputs.append(jax.device_get(compiled(state, place(images((8, 8, 1), 0)))[1]))
    assert temporary[1] < 0.5 * temporary[0]
    for name, value in outputs[0].items():
        np.testing.assert_allclose(outputs[1][name], value, rtol=1e-4, err_msg=name)


def test_a_batch_must_divide_by_devices_and_parts():
    replicas = parallel.replicas(tuple(jax.devices()[:4]))
    replicas.check_batch(24, 3)
    with pytest.raises(UserError, match=r"batch_size = 24: must be a multiple of the number of devices times config\."
                                        r"accumulate, 4 x 4 = 16"):  # fmt: skip
        replicas.check_batch(24, 4)
    with pytest.raises(UserError, match=r"batch_size = 6: must be a multiple of the number of devices, 4"):
        replicas.check_batch(6, 1)


@pytest.mark.parametrize(("parts", "loops"), [(1, 0), (4, 3)])
def test_a_run_takes_its_batches_in_as_many_parts_as_its_config_says(parts, loops, tmp_path):
    """In three loops: the encoder's means, its gradients, the decoder's. Without parts in none."""
    config = toy2d.get_config()
    config.accumulate = parts
    splits = source.open_splits(config.data)
    run = Run(config, tmp_path, splits, parallel.replicas(tuple(jax.devices()[:1])))
    points = jnp.zeros((config.batch_size, 2))
    traced = jax.make_jaxpr(run.make_step("introvae"))(jax.eval_shape(run.fresh_state), points)
    assert str(traced).count("scan[") == loops


def test_a_run_whose_batch_does_not_divide_is_refused(tmp_path):
    config = toy2d.get_config()
    config.batch_size, config.accumulate = 24, 5
    with pytest.raises(UserError, match=r"config\.batch_size = 24: .* 4 x 5 = 20"):
        loop.train(config, tmp_path)


def test_age_takes_no_parts():
    config = digits.get_config("age")
    config.accumulate = 2
    with pytest.raises(UserError, match=r"config\.accumulate = 2: must be 1 for objective.name = 'age'"):
        config_lib.validate(config)


@pytest.mark.parametrize("norm", layers.NORMS)
def test_the_parts_may_change_in_a_resumed_run_unless_batchnorm_sees_them(norm):
    config = digits.get_config()
    config.model.norm = norm
    stored = config_lib.to_dict(config)
    config.accumulate = 4
    if norm != "batch":
        return config_lib.check_resume(stored, config, "RUN")
    with pytest.raises(UserError, match=r"config\.accumulate: 1 there, 4 now"):
        config_lib.check_resume(stored, config, "RUN")
