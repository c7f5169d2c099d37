"""Presets against their sources: the authors' scripts and code, whose own arithmetic is written out here."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from configs import celebahq, cifar10, digits, toy2d
from introvae_jax import parallel
from introvae_jax.experiment import Experiment
from introvae_jax.objectives import age
from introvae_jax.planning import compiled_step

# Parameters of encoder and decoder. The released scripts build theirs with 1x1 convolutions between equal counts.
RELEASED = {"256,released": (22_973_600, 16_452_963), "1024,released": (27_969_616, 21_428_147)}
PAPER = {"256": (22_711_456, 16_190_819), "1024": (27_445_328, 20_903_859)}


@pytest.mark.parametrize("argument", [*RELEASED, *PAPER])
def test_parameter_counts_of_celebahq(argument):
    assert compiled_step.parameters(celebahq.get_config(argument)) == (RELEASED | PAPER)[argument]


@pytest.mark.parametrize("argument", RELEASED)
def test_the_released_code_updates_alternately(argument):
    assert celebahq.get_config(argument).objective.update_order == "alternating"


def test_the_released_warm_up_at_1024():
    """--num_vae=4 --trainsize=29000 --batchSize=12: a VAE with rec + kl, where rec is the squared error without 1/2."""
    objective = celebahq.get_config("1024,released").objective
    assert (objective.beta, objective.warmup_beta) == (2 * 0.01, 2.0)
    assert objective.warmup_steps == 4 * 2_417  # an epoch's last batch has 8 images and counts


SOFT = {
    "cifar10": (lambda: cifar10.get_config("soft_introvae"), 32 * 32 * 3),
    "celebahq": (lambda: celebahq.get_config("256,soft_introvae"), 256 * 256 * 3),
    "toy2d": (lambda: toy2d.get_config("rings,soft_introvae,published"), 2),
}


@pytest.mark.parametrize("name", SOFT)
def test_adam_moves_as_in_soft_introvae(name):
    """Adam's epsilon sees that our losses are divided by s: gradients of s * loss with 1e-8 must give our updates."""
    build, values = SOFT[name]
    theirs = optax.adam(2e-4, eps=1e-8)
    grads = 10.0 ** np.random.default_rng(0).uniform(-8, -4, (5, 100)).astype(np.float32)  # of theirs: as small as 1e-8
    for ours in Experiment(build(), parallel.Replicas((), 1)).optimizers:
        state, expected = ours.init(jnp.zeros(100)), theirs.init(jnp.zeros(100))
        for grad in grads:
            moved, state = ours.update(grad * values, state)
            wanted, expected = theirs.update(grad, expected)
            np.testing.assert_allclose(moved, wanted, rtol=1e-4)


def test_weights_of_soft_introvae():
    """celeb256 of its main.py: beta_kl 1, beta_rec 0.5. Its README exchanges them, against its own advice."""
    objective = celebahq.get_config("256,soft_introvae").objective
    assert (objective.beta, objective.beta_kl, objective.beta_neg) == (2 * 0.5, 1.0, 1024)
    assert digits.get_config("soft_introvae").objective.beta_neg == 128  # MNIST: issue 11 of its repository


def test_the_rate_of_age_is_halved_each_40_epochs():
    """Before an epoch, counted from 0, with epoch % drop_lr == drop_lr - 1; of 50,000 images 781 whole batches."""
    config = cifar10.get_config("age")
    expected, rate = [], 1.0
    for epoch in range(150):
        rate /= 2 if epoch % 40 == 39 else 1
        expected += [rate] * 781
    encoder, decoder = Experiment(config, parallel.Replicas((), 1)).optimizers
    for adam, updates in ((encoder, 1), (decoder, 2)):
        for step in (0, 39 * 781 - 1, 39 * 781, 79 * 781 - 1, 79 * 781, 119 * 781 - 1, 119 * 781, 150 * 781 - 1):
            state = optax.tree.set(adam.init(jnp.zeros(())), count=jnp.int32(step * updates), mu=0.0, nu=0.0)
            moved, state = adam.update(jnp.ones(()), state)
            first = optax.scale_by_adam(0.5, 0.999)
            unit, _ = first.update(
                jnp.ones(()), optax.tree.set(first.init(jnp.zeros(())), count=jnp.int32(step * updates))
            )
            np.testing.assert_allclose(-moved / unit, 2e-4 * expected[step], rtol=1e-5)


def test_the_kl_of_the_released_age_has_twice_our_gradient():
    """It puts the variance where the paper has the standard deviation: (v^2 + m^2) / 2 - log v - 1/2."""

    def released(z):
        m, v = z.mean(0), z.var(0)
        return ((v**2 + m**2) / 2 - jnp.log(v) - 0.5).mean()

    z = jax.random.normal(jax.random.key(0), (64, 128))
    z /= jnp.linalg.norm(z, axis=1, keepdims=True)
    norms = [jnp.linalg.norm(jax.grad(kl)(z)) for kl in (released, lambda z: age._kl_of_batch(z, lambda v: v.mean(0)))]
    assert norms[0] / norms[1] == pytest.approx(2, rel=0.05)
