"""Introspective variational autoencoders in JAX: train, evaluate, sample."""

import sys

from introvae_jax import startup

__version__ = "0.1.0"

if sys.argv[:1] == ["-m"]:  # python -m introvae_jax.COMMAND, whose own imports, which take seconds, come next
    startup.start()


def load(workdir, *, step=None, weights="ema", batch_size=64):
    """The trained model of a work directory; see `introvae_jax.model.load`."""
    from introvae_jax import model  # here, so that importing the package does not start JAX

    return model.load(workdir, step=step, weights=weights, batch_size=batch_size)
