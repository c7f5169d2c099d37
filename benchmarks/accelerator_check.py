"""Checks that the training step on this accelerator equals the CPU's, and that a run resumes exactly.

    python -m benchmarks.accelerator_check

First table: the gradients of one step on this device, beside those of the same step on this machine's CPU in float32,
as the norm of the difference over the norm: float32 with exact products, float32 as the device multiplies by default,
and bfloat16.
Second table: a training of digits to step 60 beside one that stops at step 30 and is resumed, as arrays of the last
checkpoint; and the samples that a process without the accelerator draws from it. Exit status 1 if a gradient with exact
products is off by more than a hundredth.
"""

import os
import pathlib
import subprocess
import sys
import tempfile

import jax
import jax.numpy as jnp
import numpy as np
import optax

import introvae_jax
from introvae_jax import errors, objectives, parallel
from introvae_jax.nets.residual import Decoder, Encoder
from introvae_jax.training import state as state_lib
from introvae_jax.training import step as step_lib

CHANNELS, SIZE, Z, BATCH = (32, 64, 128), 32, 64, 16
SETTINGS = {
    "alpha": 0.25, "alpha_d": 0.5, "beta": 1.0, "margin": 110.0, "hinge": "batch",
    "beta_kl": 1.0, "beta_neg": 256.0, "gamma": 0.0, "match_x": 20.0, "match_z": 8.0,
}  # fmt: skip
CASES = (
    ("introvae", "alternating"), ("introvae", "simultaneous"), ("vae", "simultaneous"),
    ("soft_introvae", "alternating"), ("age", "alternating"),
)  # fmt: skip
LIMIT = 0.01


def main(_) -> None:
    device, cpu = jax.devices()[0], jax.devices("cpu")[0]
    print(f"{device.device_kind}, jax {jax.__version__}\n")
    print("| objective | update order | network | float32, exact | float32, default | bfloat16 |")
    print("|---" * 6 + "|")
    worst = 0.0
    for name, order in CASES:
        reference = gradients(name, order, cpu, jnp.float32, "highest")
        forms = (jnp.float32, "highest"), (jnp.float32, "default"), (jnp.bfloat16, "default")
        columns = [gradients(name, order, device, *form) for form in forms]
        for network in ("encoder", "decoder"):
            differences = [distance(column[network], reference[network]) for column in columns]
            worst = max(worst, differences[0])
            told = " | ".join(f"{value:.1e}" for value in differences)
            print(f"| {name} | {order} | {network} | {told} |", flush=True)
    print()
    with tempfile.TemporaryDirectory() as folder:
        resume(pathlib.Path(folder))
    if not worst < LIMIT:
        raise errors.UserError(f"a gradient with exact products is off by {worst:.1e}")


def gradients(
    name: str, order: str, device: jax.Device, dtype: jnp.dtype, precision: str
) -> dict[str, list[np.ndarray]]:
    """Of both networks, from one step that is computed on `device` and leaves the parameters as they are."""
    options = {"channels": CHANNELS, "z_dim": Z, "sphere": name == "age", "dtype": dtype}
    networks = Encoder(**options), Decoder(**options, image_channels=3)
    zeros = lambda tree: jax.tree.map(jnp.zeros_like, tree)  # noqa: E731
    keep = optax.GradientTransformation(zeros, lambda grads, _, params: (zeros(params), grads))
    replicas = parallel.replicas((device,))
    step = step_lib.make_step(
        *networks, objectives.build(name, SETTINGS), (keep, keep), replicas,
        update_order=order, ema_decay=0.9, mirror=False, global_batch=BATCH,
    )  # fmt: skip
    images = np.random.default_rng(0).integers(0, 256, (BATCH, SIZE, SIZE, 3), dtype=np.uint8)
    with jax.default_device(jax.devices("cpu")[0]):
        state = jax.device_get(state_lib.create(jax.random.key(0), *networks, (keep, keep), (SIZE, SIZE, 3)))
    with jax.default_matmul_precision(precision):
        after, _ = jax.jit(step)(*jax.device_put((state, images), device))
    players = {"encoder": after.encoder, "decoder": after.decoder}
    return {network: [np.asarray(leaf) for leaf in jax.tree.leaves(p.opt_state)] for network, p in players.items()}


def distance(found: list[np.ndarray], reference: list[np.ndarray]) -> float:
    """Norm of the difference over the norm of `reference`."""
    squares = [sum(float(np.sum(np.square(np.float64(a)))) for a in arrays) for arrays in (
        [a - b for a, b in zip(found, reference, strict=True)], reference,
    )]  # fmt: skip
    return (squares[0] / squares[1]) ** 0.5


def resume(folder: pathlib.Path) -> None:
    """Trains with and without an interruption and prints the difference of the final states."""
    train(folder / "once", 60)
    train(folder / "twice", 30)
    train(folder / "twice", 60)
    once, twice = (introvae_jax.load(folder / name) for name in ("once", "twice"))
    pairs = list(
        zip(*(jax.tree.leaves((m.encoder_variables, m.decoder_variables)) for m in (once, twice)), strict=True)
    )
    different = sum(not np.array_equal(a, b) for a, b in pairs)
    largest = max(float(np.max(np.abs(np.asarray(a) - np.asarray(b)))) for a, b in pairs)
    print("| arrays | of them not bit-identical after resuming | largest difference |\n|---|---|---|")
    print(f"| {len(pairs)} | {different} | {largest:.1e} |", flush=True)
    run("introvae_jax.sample", f"--workdir={folder / 'once'}", f"--out={folder / 'cpu.png'}", JAX_PLATFORMS="cpu")
    print(f"sampled on the CPU from that checkpoint: {(folder / 'cpu.png').stat().st_size} bytes", flush=True)


def train(workdir: pathlib.Path, steps: int) -> None:
    run(
        "introvae_jax.main", "--config=configs/digits.py", f"--workdir={workdir}", f"--config.steps={steps}",
        "--config.objective.warmup_steps=10", "--config.checkpoint.every=30",
        "--config.checkpoint.calibration_batches=2",
    )  # fmt: skip


def run(module: str, *arguments: str, **environment: str) -> None:
    """A command as a user types it."""
    done = subprocess.run(
        [sys.executable, "-m", module, *arguments], env=os.environ | environment, capture_output=True, text=True,
        check=False,
    )  # fmt: skip
    if done.returncode:
        raise errors.UserError(f"{module} {' '.join(arguments)}: exit status {done.returncode}: {done.stderr[-2000:]}")


if __name__ == "__main__":
    errors.run(main)
