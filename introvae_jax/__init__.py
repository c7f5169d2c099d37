"""Introspective variational autoencoders in JAX: train, evaluate, sample."""

from __future__ import annotations

import os
import sys
from typing import TYPE_CHECKING

from introvae_jax import startup

if TYPE_CHECKING:
    from introvae_jax.model import Model

__version__ = "0.1.0"

if sys.argv[:1] == ["-m"]:  # python -m introvae_jax.COMMAND, whose own imports, which take seconds, come next
    startup.start()


def load(
    workdir: str | os.PathLike[str], *, step: int | str | None = None, weights: str = "ema", batch_size: int = 64
) -> Model:
    """The trained model of a work directory; see `introvae_jax.model.load`."""
    from introvae_jax import model  # here, so that importing the package does not start JAX

    return model.load(workdir, step=step, weights=weights, batch_size=batch_size)
