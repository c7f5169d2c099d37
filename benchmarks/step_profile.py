"""Profiles a step on a CPU: traces a few steps and sums the time of each kind of operation.

    python -m benchmarks.step_profile --config=configs/digits.py

XLA's operations are timed on the threads that run them: the table adds up the time worked, which on two cores
exceeds the time waited. Before it, the time of a step and of a warm-up step (a plain VAE), by the clock.
"""

import collections
import pathlib
import re
import sys
import tempfile
import time

from absl import flags
import jax
from ml_collections import config_flags
import numpy as np

from introvae_jax import config as config_lib
from introvae_jax import errors, parallel
from introvae_jax.data import source
from introvae_jax.experiment import Experiment

_CONFIG = config_flags.DEFINE_config_file("config", help_string="The experiment to profile.")
_STEPS = flags.DEFINE_integer("steps", 10, "Steps to trace, after two that compile and warm up.", lower_bound=1)


def main(_) -> None:
    config = _CONFIG.value
    config_lib.validate(config)
    run, train = Experiment(config, parallel.replicas()), source.open_splits(config.data).train
    state = run.replicas.replicate(run.init_state())
    images = run.replicas.split(train[np.arange(config.batch_size)])
    warmup, step = (run.replicas.map(run.make_step(name)) for name in ("vae", config.objective.name))
    program = step.lower(state, images).compile().as_text()

    for _ in range(2):
        state, _ = jax.block_until_ready(step(warmup(state, images)[0], images))
    times = {"vae": [], config.objective.name: []}
    for _ in range(_STEPS.value):
        for name, one in (("vae", warmup), (config.objective.name, step)):
            since = time.perf_counter()
            state, _ = jax.block_until_ready(one(state, images))
            times[name].append(time.perf_counter() - since)
    for name, values in times.items():
        print(f"{name}: {1e3 * np.median(values):.0f} ms a step (median of {len(values)})")
    with tempfile.TemporaryDirectory() as folder:
        with jax.profiler.trace(folder):
            for _ in range(_STEPS.value):
                state, _ = jax.block_until_ready(step(state, images))
        (trace,) = pathlib.Path(folder).rglob("*.xplane.pb")
        seconds = op_seconds(jax.profiler.ProfileData.from_file(str(trace)))
    print(table(seconds, kinds(program), _STEPS.value))


def op_seconds(profile) -> dict[str, float]:
    """Seconds worked by operation of the compiled program."""
    totals = collections.Counter()
    for plane in profile.planes:
        for line in plane.lines:
            for event in line.events:
                stats = dict(event.stats)
                if "hlo_op" in stats:
                    totals[stats["hlo_op"]] += event.duration_ns / 1e9
    return totals


def kinds(program: str) -> dict[str, str]:
    """What each operation of a compiled program does, by its name; a fusion with a convolution in it is one."""
    inside = {
        match.group(1): match.group(2)
        for match in re.finditer(r"^%?([\w.-]+) \([^\n]*\{\n(.*?)^\}", program, re.MULTILINE | re.DOTALL)
    }
    found = {}
    for match in re.finditer(r"^ *(?:ROOT )?%?([\w.-]+) = .*$", program, re.MULTILINE):
        called = re.search(r"calls=%?([\w.-]+)", match.group(0))
        found[match.group(1)] = _kind(match.group(1), match.group(0), inside.get(called.group(1), "") if called else "")
    return found


def _kind(name: str, line: str, inside: str) -> str:
    if "conv_general_dilated" in line or " convolution(" in inside:
        return "convolutions, " + ("backward" if "transpose(jvp" in line + inside else "forward")
    if "dot_general" in line or name.startswith("dot"):
        return "dense layers"
    if "copy" in name:
        return "layout copies"
    if "reduce_sum" in line:
        return "sums (moments of BatchNorm, gradients of scale and bias)"
    if "reduce_window" in line:
        return "pooling"
    return "elementwise (BatchNorm, LeakyReLU, Adam, EMA)"


def table(seconds: dict[str, float], kind_of: dict[str, str], steps: int) -> str:
    """Milliseconds a step and share of each kind, largest first."""
    sums = collections.Counter()
    for op, value in seconds.items():
        sums[kind_of.get(op, op)] += value
    total = sum(sums.values())
    rows = [f"| {kind} | {1e3 * value / steps:.1f} | {value / total:.1%} |" for kind, value in sums.most_common()]
    return "\n".join(["| operation | ms a step | share |", "|---|---|---|", *rows])


if __name__ == "__main__":
    flags.mark_flag_as_required("config")
    sys.exit(errors.run(main))
