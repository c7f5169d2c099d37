"""What more work costs: images a second against the batch, the resolution and the number of devices, and a plot.

    python -m benchmarks.step_cost --out=docs/pictures/step_cost.png

Steps of IntroVAE on random images that are there already. Devices are simulated: they share the cores of this machine,
so the best that can be is that more of them cost nothing. All variants take turns; medians over the rounds.
"""

from collections.abc import Callable
import json
import os
import pathlib
import subprocess
import sys
import time

from absl import flags
import jax
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
import ml_collections
import numpy as np

from configs import default
from introvae_jax import disk, errors, model, parallel
from introvae_jax.experiment import Experiment

_OUT = flags.DEFINE_string("out", "runs/step_cost.png", "The plot; the table is printed.")
_ROUNDS = flags.DEFINE_integer("rounds", 5, "How often every variant takes its turn.", lower_bound=3)
_CHANNELS = flags.DEFINE_integer("channels", 16, "Of the first stage; each next one has twice as many.", lower_bound=4)
_MANY = flags.DEFINE_integer("devices", 4, "Simulated devices; 0 for those that are there.", lower_bound=0)

BATCHES, SIZES, SIZE, BATCH = (4, 8, 16, 32, 64), (16, 32, 64, 128), 32, 16


def main(_) -> None:
    if _MANY.value and "xla_force_host_platform_device_count" not in os.environ.get("XLA_FLAGS", ""):
        simulated = {"XLA_FLAGS": f"--xla_force_host_platform_device_count={_MANY.value}",
                     "NPROC": str(2 * _MANY.value), "JAX_PLATFORMS": "cpu"}  # fmt: skip
        sys.exit(subprocess.run([sys.executable, "-m", "benchmarks.step_cost", *sys.argv[1:]],
                                env=os.environ | simulated, check=False).returncode)  # fmt: skip
    counts = [n for n in (1, 2, 4, 8) if n <= jax.device_count()]
    ladders = {
        "batch": {batch: (batch, SIZE, 1) for batch in BATCHES},
        "pixels": {size: (BATCH, size, 1) for size in SIZES},
        "devices": {count: (max(BATCH, counts[-1]), SIZE, count) for count in counts},
    }
    jobs = {variant: stepper(*variant) for ladder in ladders.values() for variant in ladder.values()}
    seconds = {variant: [] for variant in jobs}
    for number in range(_ROUNDS.value + 1):
        for variant, step in jobs.items():
            since = time.perf_counter()
            step()
            if number:
                seconds[variant].append(time.perf_counter() - since)
    rates = {
        name: {rung: variant[0] / float(np.median(seconds[variant])) for rung, variant in ladder.items()}
        for name, ladder in ladders.items()
    }
    print(json.dumps(rates))
    for name, ladder in rates.items():
        print(f"\n| {name} | " + " | ".join(map(str, ladder)) + " |\n" + "|---" * (len(ladder) + 1) + "|")
        print("| images/s | " + " | ".join(f"{rate:.4g}" for rate in ladder.values()) + " |")
    plot(rates, disk.expand(_OUT.value))


def config_of(batch: int, size: int) -> ml_collections.ConfigDict:
    """A network for `size` pixels whose channels double from stage to stage."""
    config = default.get_config()
    config.batch_size, config.data.size, config.data.mirror = batch, size, False
    config.model.channels = tuple(_CHANNELS.value << stage for stage in range((size // 4).bit_length() - 1))
    config.objective.update_order = "simultaneous"
    return config


def stepper(batch: int, size: int, devices: int) -> Callable[[], None]:
    """Takes one step and waits for it; compiled at its first call."""
    replicas = parallel.replicas(tuple(jax.devices()[:devices]))
    config = config_of(batch, size)
    run = Experiment(config, replicas)
    mapped, carried = replicas.map(run.make_step("introvae")), [replicas.replicate(jax.jit(run.init_state)())]
    shape = (batch, *model.example_shape(config))
    images = replicas.split(np.random.default_rng(0).integers(0, 256, shape, np.uint8))

    def step() -> None:
        carried[0], terms = mapped(carried[0], images)
        jax.block_until_ready(terms)

    return step


def plot(rates: dict[str, dict[int, float]], path: pathlib.Path) -> None:
    """A panel for each ladder: images/s from 0, but logarithmic where they span more than a factor of ten."""
    figure = Figure(figsize=(9.6, 2.8), layout="constrained")
    FigureCanvasAgg(figure)
    for panel, (name, ladder) in zip(figure.subplots(1, len(rates)), rates.items(), strict=True):
        panel.plot(list(ladder), list(ladder.values()), marker=".")
        wide = max(ladder.values()) > 10 * min(ladder.values())
        panel.set(xscale="log", xlabel=name, xticks=list(ladder), ylabel="images/s")
        panel.set(yscale="log") if wide else panel.set_ylim(bottom=0)
        panel.set_xticklabels(list(map(str, ladder)))
        panel.minorticks_off()
    with disk.atomic_write(path) as temporary:
        figure.savefig(temporary, format="png", dpi=120)


if __name__ == "__main__":
    errors.run(main)
