"""The learning rate follows steps, however often a network is updated in one."""

import jax.numpy as jnp
import numpy as np
import optax

from introvae_jax.training import optimizer


def rates(updates, steps, decay_factor=0.1, **schedule):
    """The rate of each update, read off plain Adam's size of change under a constant gradient."""
    rate = optimizer.schedule(**schedule, learning_rate=1.0, steps=steps, decay_steps=(2,), decay_factor=decay_factor)
    adam = optimizer.create(optimizer.every(updates, rate), beta1=0.0, beta2=0.0, epsilon=1e-8, clip_norm=0.0)
    state, sizes = adam.init(jnp.zeros(())), []
    for _ in range(updates * steps):
        change, state = adam.update(jnp.ones(()), state)
        sizes.append(-float(change))
    return sizes


def test_two_updates_a_step_share_its_rate():
    for name in optimizer.SCHEDULES:
        one, two = rates(1, 4, name=name), rates(2, 4, name=name)
        np.testing.assert_allclose(two, np.repeat(one, 2), rtol=1e-5)
    assert one[:3] != [one[0]] * 3  # the last schedule does decay


def test_schedules_decay_when_they_say():
    np.testing.assert_allclose(rates(1, 4, name="cosine"), optax.cosine_decay_schedule(1.0, 4)(np.arange(4)), rtol=1e-5)
    np.testing.assert_allclose(rates(1, 4, name="step"), [1, 1, 0.1, 0.1], rtol=1e-5)
    np.testing.assert_allclose(rates(1, 4, decay_factor=0.5, name="step"), [1, 1, 0.5, 0.5], rtol=1e-5)
