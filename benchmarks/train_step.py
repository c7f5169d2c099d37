"""Speed of a training step compared with PyTorch's, on the same machine in the same run.

    python -m benchmarks.train_step                                            # a CPU, some minutes
    python -m benchmarks.train_step --jobs=32,64,128,256,1024 --dtype=bfloat16     # a GPU

Jobs: images of so many pixels, "digits" (configs/digits.py), and points: "toy2d" (configs/toy2d.py) and
"toy2d_published", with the networks and the batch that Soft-IntroVAE published. One step on random images that are
there already, with the hinge of the batch's mean and BatchNorm. Ours keeps an average of the weights too.

Ours has two update orders: "alternating", which is the algorithm of the paper and of the released code, and
"simultaneous" (both gradients at one point), which is another algorithm and does less work. PyTorch's is the released,
alternating step in two forms (benchmarks/torch_introvae.py): "released", float32 and as the authors wrote it, and
"tuned". A ratio of the simultaneous step therefore compares two algorithms.

All take turns, a second each, in one process; every ratio is of two neighbours. The steps of a turn follow each other
without waiting, as in a training. A line of JSON for each job, a table at the end. Needs PyTorch, which the project
does not install.
"""

from collections.abc import Callable
import gc
import json
import math
import os
import platform
import subprocess
import sys
import time
from typing import Any

from absl import flags
import jax
import jax.numpy as jnp
import ml_collections
import numpy as np

from benchmarks import peaks
from configs import celebahq, default, digits, toy2d
from introvae_jax import errors, model, parallel
from introvae_jax.experiment import Experiment
from introvae_jax.planning import compiled_step
from introvae_jax.training.step import UPDATE_ORDERS

try:
    import torch

    from benchmarks import torch_introvae
except ModuleNotFoundError as missing:
    errors.fail_without(missing)

_JOBS = flags.DEFINE_list(
    "jobs", ["32", "digits", "toy2d", "toy2d_published"], "Of 32, 64, 128, 256, 1024, digits, toy2d, toy2d_published."
)
_ROUNDS = flags.DEFINE_integer("rounds", 9, "How often all take their turn.", lower_bound=3)
_SECONDS = flags.DEFINE_float("seconds", 1.0, "Of a turn, about.", lower_bound=0.01)
_DTYPE = flags.DEFINE_enum("dtype", "float32", ["float32", "bfloat16"], "What ours and the tuned one compute in.")
_BATCH = flags.DEFINE_integer("batch_size", 0, "Of all jobs; the published one without it.", lower_bound=0)
_FORMS = flags.DEFINE_list("forms", [*UPDATE_ORDERS, "released", "tuned"], "Update orders of ours, forms of PyTorch's.")

Steps = Callable[[int], None]  # takes so many, and waits for the last


def main(_) -> None:
    os.environ.setdefault("XLA_PYTHON_CLIENT_PREALLOCATE", "false")  # PyTorch needs some of a GPU's memory
    device = "cuda" if torch.cuda.is_available() else "cpu"
    peak = peaks.matrix_peak(_DTYPE.value)
    rows = []
    for job in _JOBS.value:
        rows.append(measure(job, config_of(job), device, peak))
        print(json.dumps(rows[-1]), flush=True)
        gc.collect()
        torch.cuda.empty_cache()  # nothing without a GPU
    print(table(rows))
    print(machine())


def config_of(job: str) -> ml_collections.ConfigDict:
    """The settings of a job, with the hinge of the batch's mean."""
    if job == "digits":
        config = digits.get_config()
    elif job.startswith("toy2d"):
        config = toy2d.get_config("8gaussians,introvae" + (",published" if job.endswith("published") else ""))
    elif int(job) in celebahq.CHANNELS:
        config = celebahq.get_config(job if job == "128" else f"{job},released")
    else:
        config = default.get_config()
        config.batch_size, config.data.size, config.model.z_dim = 32, int(job), 128
        config.model.channels = {"32": (64, 128, 256), "64": (64, 128, 256, 512)}[job]
    config.model.dtype, config.data.mirror = _DTYPE.value, False
    config.objective.hinge = "batch"
    config.batch_size = _BATCH.value or config.batch_size
    return config


def measure(job: str, config: ml_collections.ConfigDict, device: str, peak: float) -> dict[str, Any]:
    """One row: all forms of the step of a job."""
    shape, generator = (config.batch_size, *model.example_shape(config)), np.random.default_rng(0)
    batch = generator.integers(0, 256, shape, np.uint8) if len(shape) == 4 else np.float32(generator.normal(size=shape))
    row: dict[str, Any] = {"job": job, "batch": config.batch_size, "dtype": _DTYPE.value, "orders": {}}
    forms = {}
    for form in _FORMS.value:
        if form in UPDATE_ORDERS:
            config.objective.update_order = form
            forms[form], row["orders"][form] = our_steps(config, batch)
        else:
            kind = "tuned bfloat16" if form == "tuned" and _DTYPE.value == "bfloat16" else form
            forms[form] = torch_steps(config, batch, device, kind)
    seconds = take_turns(forms)
    row["images/s"] = {name: config.batch_size / float(np.median(times)) for name, times in seconds.items()}
    for order, described in row["orders"].items():
        for name in [name for name in seconds if name not in UPDATE_ORDERS]:
            ratios = np.asarray(seconds[name]) / np.asarray(seconds[order])
            described[f"times {name}"] = [float(f(ratios)) for f in (np.median, np.min, np.max)]
        described["share of the matrix peak"] = described["ideal flops"] / float(np.median(seconds[order])) / peak
    if device == "cuda":
        row["memory that PyTorch took"] = torch.cuda.max_memory_allocated()
        torch.cuda.reset_peak_memory_stats()
        row["memory that JAX took"] = jax.devices()[0].memory_stats()["peak_bytes_in_use"]
    return row


def our_steps(config: ml_collections.ConfigDict, batch: np.ndarray) -> tuple[Steps, dict[str, Any]]:
    """The compiled step on a resident batch, and what its compiler says of it."""
    replicas = parallel.replicas((jax.devices()[0],))
    run = Experiment(config, replicas)
    carried = {"state": replicas.replicate(jax.jit(run.init_state)())}
    resident = replicas.split(batch)
    mapped = replicas.map(run.make_step("introvae"))
    since = time.perf_counter()
    compiled = mapped.lower(carried["state"], resident).compile()
    told = compiled_step.describe(compiled, config.batch_size, batch.nbytes, time.perf_counter() - since)

    def steps(count: int) -> None:
        for _ in range(count):
            carried["state"], terms = mapped(carried["state"], resident)
        jax.block_until_ready((carried["state"], terms))

    ideal = ideal_flops(run, config)
    return steps, {
        "compile seconds": told.seconds, "flops": told.flops, "ideal flops": ideal,
        "flops over ideal": told.flops / ideal, "program memory": told.memory.total,
    }  # fmt: skip


def ideal_flops(run: Experiment, config: ml_collections.ConfigDict) -> float:
    """16 passes through a network, 20 alternating: nine or thirteen through the encoder, seven through the decoder.

    The encoder: three passes forward and three back, of two each; where the decoder's loss sees the updated one, two
    more forward and two back by input alone. The decoder: two forward, two back, and one back by input alone.
    """
    encoder, decoder = run.networks
    inputs = (config.batch_size, *model.example_shape(config)), (config.batch_size, decoder.z_dim)
    on_cpu = jax.sharding.SingleDeviceSharding(jax.devices("cpu")[0])  # a GPU's compiler counts its own algorithms
    forward = []
    for network, shape in zip((encoder, decoder), inputs, strict=True):
        network = network.clone(dtype=jnp.float32) if hasattr(network, "dtype") else network
        x = jax.ShapeDtypeStruct(shape, jnp.float32, sharding=on_cpu)
        params = jax.tree.map(
            lambda leaf: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=on_cpu),
            jax.eval_shape(network.init, jax.random.key(0), x),
        )
        forward.append(jax.jit(network.apply).lower(params, x).compile().cost_analysis()["flops"])
    return (13 if config.objective.update_order == "alternating" else 9) * forward[0] + 7 * forward[1]


def torch_steps(config: ml_collections.ConfigDict, batch: np.ndarray, device: str, kind: str) -> Steps:
    """PyTorch's step of this kind on a resident batch."""
    weights = torch_introvae.Weights(*(config.objective[k] for k in ("alpha", "alpha_d", "beta", "margin")))
    settings = config.model
    resident = torch.from_numpy(batch).to(device)
    if batch.ndim == 4:
        networks = torch_introvae.images(batch.shape[-1], settings.channels, settings.z_dim, settings.expand_equal)
        layout = torch.channels_last if kind.startswith("tuned") else torch.contiguous_format
        resident = resident.permute(0, 3, 1, 2).contiguous(memory_format=layout)
    else:
        networks = torch_introvae.points(settings.width, settings.depth, settings.z_dim)
    trainer = torch_introvae.trainer(networks, weights, device, kind)

    def steps(count: int) -> None:
        for _ in range(count):
            noise = torch.randn(2, config.batch_size, settings.z_dim, device=device)
            loss, _ = trainer.step(resident.float() / 255 if batch.ndim == 4 else resident, *noise)
        float(loss)  # waits

    return steps


def take_turns(forms: dict[str, Steps]) -> dict[str, list[float]]:
    """Seconds a step of each form in each round, after what it needs to warm up; without PyTorch's that do not fit."""
    counts = {}
    for name, steps in forms.items():
        try:
            steps(3)
            since = time.perf_counter()
            steps(3)
        except torch.OutOfMemoryError:
            print(f"{name}: out of memory", file=sys.stderr)
            continue
        counts[name] = max(1, math.ceil(3 * _SECONDS.value / (time.perf_counter() - since)))
    seconds: dict[str, list[float]] = {name: [] for name in counts}
    for _ in range(_ROUNDS.value):
        for name, count in counts.items():
            forms[name](1)  # the threads of the one before may still wait for work
            since = time.perf_counter()
            forms[name](count)
            seconds[name].append((time.perf_counter() - since) / count)
    return seconds


def table(rows: list[dict[str, Any]]) -> str:
    """A line for each job and update order."""
    lines = [
        "| job | batch | update order | images/s | times released | times tuned | FLOPs over ideal "
        "| of the matrix peak | compiling | memory of the program |",
        "|---" * 10 + "|",
    ]
    for row in rows:
        for order, described in row["orders"].items():
            ratios = [described.get(f"times {name}") for name in ("released", "tuned")]
            told = ["-" if r is None else f"{r[0]:.2f} ({r[1]:.2f} to {r[2]:.2f})" for r in ratios]
            lines.append(
                f"| {row['job']} | {row['batch']} | {order} | {row['images/s'][order]:.4g} | {told[0]} | {told[1]} | "
                f"{described['flops over ideal']:.3f} | {described['share of the matrix peak']:.1%} | "
                f"{described['compile seconds']:.0f} s | {described['program memory'] / 2**20:,.0f} MiB |"
            )
    return "\n".join(lines)


def machine() -> str:
    """The setting of the measurements."""
    commit = subprocess.run(["git", "rev-parse", "--short", "HEAD"], capture_output=True, text=True, check=False)
    return (
        f"{platform.machine()}, {os.cpu_count()} cores, {jax.devices()[0].device_kind}, jax {jax.__version__}, "
        f"torch {torch.__version__}, {_DTYPE.value}, commit {commit.stdout.strip() or 'unknown'}"
    )


if __name__ == "__main__":
    errors.run(main)
