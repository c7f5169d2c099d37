"""What do exact moments and an exact normalisation cost a training step?

    python -m benchmarks.normalization

Three forms of BatchNorm, in one process and in random turn: "moments in one pass", the mean of squares minus the
squared mean; "as here", the mean of squared deviations; "centred", which also normalises as (x - mean) * gain + bias
instead of x * gain + (bias - mean * gain). Milliseconds are medians; ratios are medians of rounds, to the first form,
with the lowest and the highest.
"""

import sys
import time

from absl import flags
import jax
import jax.numpy as jnp
import numpy as np

from configs import default, digits
from introvae_jax import errors, model, parallel
from introvae_jax.experiment import Experiment
from introvae_jax.nets import layers

_ROUNDS = flags.DEFINE_integer("rounds", 15, "How often each step is timed.", lower_bound=1)
_STEPS = flags.DEFINE_integer("steps", 4, "Steps of a round.", lower_bound=1)


def main(_) -> None:
    print("| job | form | ms a step | ratio |\n|---|---|---|---|")
    for job, config in jobs().items():
        steps = {form: prepare(config, *functions) for form, functions in FORMS.items()}
        seconds = {form: [] for form in FORMS}
        for turn in range(_ROUNDS.value):
            for form in np.random.default_rng(turn).permutation(list(FORMS)):
                since = time.perf_counter()
                steps[form](_STEPS.value)
                seconds[form].append((time.perf_counter() - since) / _STEPS.value)
        first = np.asarray(seconds[next(iter(FORMS))])
        for form, times in seconds.items():
            ratio = np.asarray(times) / first
            spread = f"{np.median(ratio):.2f} ({ratio.min():.2f} to {ratio.max():.2f})"
            print(f"| {job} | {form} | {1e3 * np.median(times):.1f} | {spread} |", flush=True)


def jobs():
    """The digits' step, and one with many channels."""
    wide = default.get_config()
    wide.batch_size, wide.data.size, wide.model.channels = 32, 32, (64, 128, 256)
    wide.objective.update_order = "simultaneous"
    return {"digits": digits.get_config(), "32 px, 64 128 256": wide}


def one_pass(x: jax.Array, axes: tuple[int, ...]) -> tuple[jax.Array, jax.Array]:
    x = x.astype(jnp.float32)
    mean, mean_sq = jnp.mean(x, axes), jnp.mean(x * x, axes)
    return mean, jnp.maximum(mean_sq - mean * mean, 0.0)


def centred(x: jax.Array, mean: jax.Array, gain: jax.Array, bias: jax.Array) -> jax.Array:
    mean, gain, bias = (jnp.broadcast_to(v[None, None, None], x.shape) for v in (mean, gain, bias))
    return ((x.astype(jnp.float32) - mean) * gain + bias).astype(x.dtype)


FORMS = {
    "moments in one pass": (one_pass, layers.normalize),
    "as here": (layers.moments, layers.normalize),
    "centred": (layers.moments, centred),
}


def prepare(config, moments, normalize):
    """A function that takes so many steps, compiled with these two functions."""
    here = layers.moments, layers.normalize
    layers.moments, layers.normalize = moments, normalize
    replicas = parallel.replicas((jax.devices()[0],))
    run = Experiment(config, replicas)
    shape = (config.batch_size, *model.example_shape(config))
    images = replicas.split(np.random.default_rng(0).integers(0, 256, shape, dtype=np.uint8))
    step, state = replicas.map(run.make_step("introvae")), [replicas.replicate(jax.jit(run.init_state)())]

    def take(count: int) -> None:
        for _ in range(count):
            state[0], terms = step(state[0], images)
        jax.block_until_ready((state[0], terms))

    take(2)
    layers.moments, layers.normalize = here
    return take


if __name__ == "__main__":
    sys.exit(errors.run(main))
