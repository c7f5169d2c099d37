"""How much memory do `config.accumulate` and `model.remat` save, what do they cost, and what changes?

    python -m benchmarks.accumulation

The first table is about a step of IntroVAE on random images. Temporary: what the compiled step needs beside its
arguments (state and images), as XLA reports it. Stored: what JAX keeps for the backward pass through each network once,
parameters included; XLA's CPU backend undoes remat, which shows here alone. Times are medians of steps taken in turn,
relative to the first row; that backend is also slow at convolutions in a loop. The second table is about the first
gradients of a small model: their distance from those of the whole batch, relative to them.
"""

import itertools
import sys
import time
from typing import Any

from absl import flags
import jax
import jax.numpy as jnp
import ml_collections
import numpy as np
import optax

from configs import default
from introvae_jax import errors, model, objectives
from introvae_jax.nets.layers import NORMS
from introvae_jax.training import parallel
from introvae_jax.training import state as state_lib
from introvae_jax.training import step as step_lib

_BATCH = flags.DEFINE_integer("batch_size", 32, "Images a step.", lower_bound=4)
_CHANNELS = flags.DEFINE_list("channels", ["16", "32", "64", "128"], "Channels of the networks that are timed.")
_ROUNDS = flags.DEFINE_integer("rounds", 5, "How often each step is timed.", lower_bound=1)
CASES = ((1, False), (2, False), (4, False), (1, True))  # accumulate and remat
PARTS = (1, 2, 4)


def main(_) -> None:
    print("\n".join(costs()), end="\n\n", flush=True)
    print("\n".join(differences()))


def costs() -> list[str]:
    """Memory and time of each way to take a step."""
    channels = tuple(map(int, _CHANNELS.value))
    steps, sizes = {}, {}
    for parts, remat in CASES:
        mapped, state, images = build(parts, channels=channels, remat=remat)
        program = mapped.lower(state, images).compile()
        memory = program.memory_analysis()
        sizes[parts, remat] = [
            memory.temp_size_in_bytes,
            memory.alias_size_in_bytes,
            stored(parts, channels=channels, remat=remat),
        ]
        steps[parts, remat] = [program, jax.block_until_ready(program(state, images)[0]), images, []]
    for _, case in itertools.product(range(_ROUNDS.value), CASES):
        program, state, images, times = steps[case]
        since = time.perf_counter()
        steps[case][1] = jax.block_until_ready(program(state, images)[0])
        times.append(time.perf_counter() - since)
    lines = [
        "| accumulate | remat | temporary, MiB | stored, MiB | donated, MiB | time |",
        "|---|---|---|---|---|---|",
    ]
    first = np.median(steps[CASES[0]][-1])
    for parts, remat in CASES:
        temporary, donated, activations = (size / 2**20 for size in sizes[parts, remat])
        ratio = np.median(steps[parts, remat][-1]) / first
        lines.append(
            f"| {parts} | {'yes' if remat else 'no'} | {temporary:.0f} | {activations:.0f} | {donated:.0f} "
            f"| {ratio:.2f} |"
        )
    return lines


def stored(parts: int, **options: Any) -> int:
    """Bytes that one part's backward pass through both networks finds stored: that of a VAE's reconstruction."""
    config = describe(**options)
    encoder, decoder = model.build_networks(config)
    x = jnp.zeros((_BATCH.value // parts, *model.example_shape(config)))
    z = jnp.zeros((len(x), encoder.z_dim))

    def residuals(key: jax.Array) -> Any:
        params = encoder.init(key, x)["params"], decoder.init(key, z)["params"]
        reconstruct = lambda e, d: decoder.apply({"params": d}, encoder.apply({"params": e}, x)[0])  # noqa: E731
        return jax.vjp(reconstruct, *params)[1]

    leaves = jax.tree.leaves(jax.eval_shape(residuals, jax.random.key(0)))
    return sum(leaf.size * leaf.dtype.itemsize for leaf in leaves)


def differences() -> list[str]:
    """How far the gradient of a batch in parts is from that of the whole, by norm."""
    lines = ["| norm | accumulate | encoder's gradient | decoder's |", "|---|---|---|---|"]
    for norm in NORMS:
        grads = {parts: gradients(parts, norm) for parts in PARTS}
        for parts in PARTS[1:]:
            by_network = (f"{distance(a, b):.1e}" for a, b in zip(grads[1], grads[parts], strict=True))
            lines.append(f"| {norm} | {parts} | " + " | ".join(by_network) + " |")
    return lines


def gradients(parts: int, norm: str) -> tuple[Any, Any]:
    """Of both networks, at the first step."""
    step, state, images = build(parts, channels=(8, 16), norm=norm)
    state, _ = step(state, images)
    return jax.device_get((state.encoder.opt_state[0].trace, state.decoder.opt_state[0].trace))


def build(parts: int, **options: Any) -> tuple[Any, state_lib.State, jax.Array]:
    """The mapped step of the model that configs/default.py describes, but for `options`; a state and images."""
    config = describe(**options)
    shape = model.example_shape(config)
    replicas = parallel.replicas()
    pair = model.build_networks(config, replicas.axis_name)
    optimizers = (optax.chain(optax.trace(decay=0.0), optax.adam(1e-4)),) * 2  # the first's state is the gradient
    objective = objectives.build("introvae", config.objective)
    step = step_lib.make_step(
        *pair, objective, optimizers, replicas, update_order=config.objective.update_order, ema_decay=0.999,
        mirror=False, global_batch=_BATCH.value, parts=parts,
    )  # fmt: skip
    create = jax.jit(lambda: state_lib.create(jax.random.key(0), *pair, optimizers, shape))
    images = np.random.default_rng(0).integers(0, 256, (_BATCH.value, *shape), dtype=np.uint8)
    return replicas.map(step), replicas.replicate(create()), replicas.split(images)


def describe(**options: Any) -> ml_collections.ConfigDict:
    """configs/default.py with these options of the model, at the size that they are for."""
    config = default.get_config()
    config.model.update(options)
    config.data.size = 4 * 2 ** len(config.model.channels)
    return config


def distance(tree: Any, other: Any) -> float:
    """Of two trees, relative to the first."""
    return float(optax.tree.norm(jax.tree.map(np.subtract, tree, other)) / optax.tree.norm(tree))


if __name__ == "__main__":
    sys.exit(errors.run(main))
