"""Memory saved by `config.model.remat`, and its cost in time.

    python -m benchmarks.remat

A step of IntroVAE on random images, with and without remat. Temporary: what the compiled step needs beside its
arguments (state and images), as XLA reports it. Stored: what JAX keeps for the backward pass through each network once,
parameters included; XLA's CPU backend undoes remat, so the saving shows in this column alone. Times are medians of
steps taken in turn, relative to the step without remat.
"""

import sys
import time
from typing import Any

from absl import flags
import jax
import jax.numpy as jnp
import ml_collections
import numpy as np

from configs import default
from introvae_jax import errors, model, parallel
from introvae_jax.experiment import Experiment

_BATCH = flags.DEFINE_integer("batch_size", 32, "Images a step.", lower_bound=1)
_CHANNELS = flags.DEFINE_list("channels", ["16", "32", "64", "128"], "Channels of the networks.")
_ROUNDS = flags.DEFINE_integer("rounds", 5, "How often each step is timed.", lower_bound=1)


def main(_) -> None:
    configs = {remat: describe(remat) for remat in (False, True)}
    steps = {remat: Step(config) for remat, config in configs.items()}
    for _ in range(_ROUNDS.value):
        for step in steps.values():
            step.take()
    print("| remat | temporary, MiB | stored, MiB | time |\n|---|---|---|---|")
    for remat, step in steps.items():
        temporary = step.program.memory_analysis().temp_size_in_bytes / 2**20
        ratio = np.median(step.seconds) / np.median(steps[False].seconds)
        kept = stored(configs[remat]) / 2**20
        print(f"| {'yes' if remat else 'no'} | {temporary:.0f} | {kept:.0f} | {ratio:.2f} |")


class Step:
    """A compiled step with its state, and the seconds that each call took."""

    def __init__(self, config: ml_collections.ConfigDict):
        replicas = parallel.replicas((jax.devices()[0],))
        run = Experiment(config, replicas)
        shape = (config.batch_size, *model.example_shape(config))
        images = np.random.default_rng(0).integers(0, 256, shape, dtype=np.uint8)
        self._state = replicas.replicate(jax.jit(run.init_state)())
        self._images = replicas.split(images)
        self.program = replicas.map(run.make_step(config.objective.name)).lower(self._state, self._images).compile()
        self._state = jax.block_until_ready(self.program(self._state, self._images)[0])
        self.seconds: list[float] = []

    def take(self) -> None:
        since = time.perf_counter()
        self._state = jax.block_until_ready(self.program(self._state, self._images)[0])
        self.seconds.append(time.perf_counter() - since)


def stored(config: ml_collections.ConfigDict) -> int:
    """Bytes that a backward pass through both networks finds stored: that of a VAE's reconstruction."""
    encoder, decoder = model.build_networks(config)
    x = jnp.zeros((config.batch_size, *model.example_shape(config)))
    z = jnp.zeros((config.batch_size, encoder.z_dim))

    def residuals(key: jax.Array) -> Any:
        params = encoder.init(key, x)["params"], decoder.init(key, z)["params"]
        reconstruct = lambda e, d: decoder.apply({"params": d}, encoder.apply({"params": e}, x)[0])  # noqa: E731
        return jax.vjp(reconstruct, *params)[1]

    leaves = jax.tree.leaves(jax.eval_shape(residuals, jax.random.key(0)))
    return sum(leaf.size * leaf.dtype.itemsize for leaf in leaves)


def describe(remat: bool) -> ml_collections.ConfigDict:
    """configs/default.py at the size that the channels are for."""
    config = default.get_config()
    config.batch_size = _BATCH.value
    config.model.remat = remat
    config.model.channels = tuple(map(int, _CHANNELS.value))
    config.data.size = 4 * 2 ** len(config.model.channels)
    return config


if __name__ == "__main__":
    sys.exit(errors.run(main))
