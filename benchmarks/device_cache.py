"""Steps a second with streamed images and with data.cache=device, in turn on the same experiment.

    python -m benchmarks.device_cache --config=configs/digits.py
    python -m benchmarks.device_cache --config=configs/avatars.py:32      # after preparing it

A round is --steps of the run's objective, as the loop takes them: one at a time with the next batches on
their way, or gathered on the device, on accelerators in one scan. --at_once shows what a scan does elsewhere.
"""

import statistics
import time

from absl import flags
import jax
from ml_collections import config_flags

from introvae_jax import config as config_lib
from introvae_jax import errors, parallel
from introvae_jax.data import source
from introvae_jax.experiment import Experiment
from introvae_jax.training import feed

_CONFIG = config_flags.DEFINE_config_file("config", help_string="The experiment to time.")
_STEPS = flags.DEFINE_integer("steps", 100, "Steps of a round.", lower_bound=1)
_AT_ONCE = flags.DEFINE_integer("at_once", 0, "Steps of a scan; what the device is given in training without it.")
_ROUNDS = flags.DEFINE_integer("rounds", 5, "Rounds of each, after one that compiles.", lower_bound=1)


def main(_) -> None:
    config = _CONFIG.value
    config_lib.validate(config)
    replicas = parallel.replicas()
    experiment, train = Experiment(config, replicas), source.open_splits(config.data).train
    feeds, states, seconds = {}, {}, {}
    for cache in config_lib.CACHES:
        config.data.cache = cache
        feeds[cache] = feed.create(config, train, replicas)
        feeds[cache].use(experiment.make_step(config.objective.name))
        states[cache], seconds[cache] = replicas.replicate(experiment.init_state()), []
    for number in range(_ROUNDS.value + 1):
        for cache, batches in feeds.items():
            longest = (_AT_ONCE.value if cache == "device" else 0) or batches.longest
            start, left = time.perf_counter(), _STEPS.value
            while left:
                count = min(longest, left)
                states[cache], terms = batches.advance(states[cache], count)
                left -= count
            jax.block_until_ready(terms)
            if number:
                seconds[cache].append(time.perf_counter() - start)
    rates = {cache: _STEPS.value / statistics.median(times) for cache, times in seconds.items()}
    ratios = [a / b for a, b in zip(seconds["host"], seconds["device"], strict=True)]
    print(
        f"| {config.data.size}x{config.data.size}x{config.data.channels}, batch {config.batch_size} "
        f"| {replicas.count} x {replicas.local[0].device_kind} | {rates['host']:.1f} | {rates['device']:.1f} "
        f"| {statistics.median(ratios):.2f} ({min(ratios):.2f} to {max(ratios):.2f}) |"
    )


if __name__ == "__main__":
    flags.mark_flag_as_required("config")
    errors.run(main)
