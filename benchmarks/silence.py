"""Measures the longest time during which a command prints nothing.

    python -m benchmarks.silence                            # every command of the README
    python -m benchmarks.silence --only=evaluate,plan       # those whose names begin so
    python -m benchmarks.silence --checkout=DIR             # of another checkout of this repository

Runs the commands as a user does, with nothing compiled before, and reads stdout and stderr through a pipe, as a log
does. The longest time between two pieces of output counts, and so do the time before the first and the time from the
last to the exit. Steps are few, images small and some networks tiny, so that all of it takes minutes: the silent times
that depend on size (a long compilation, many images) are as long as the phases' own reports allow.
"""

import os
import pathlib
import shlex
import subprocess
import sys
import tarfile
import tempfile
import time

from absl import flags

from introvae_jax import errors

ROOT = pathlib.Path(__file__).parent.parent
FEW = "--config.steps=20 --config.objective.warmup_steps=10 --config.log.every=10"
TINY = "--config.model.channels=(4,4,8,8) --config.model.z_dim=8 --config.batch_size=8"

# Name -> command; {} is a folder of this benchmark's own. Later ones use what earlier ones have written.
COMMANDS = {
    "main digits": f"-m introvae_jax.main --config=configs/digits.py --workdir={{}}/digits {FEW}",
    "main resumed": f"-m introvae_jax.main --config=configs/digits.py --workdir={{}}/digits {FEW} --config.steps=30",
    "main scored": "-m introvae_jax.main --config=configs/digits.py --config.eval.every=10 --workdir={}/scored " + FEW,
    "sample": "-m introvae_jax.sample --workdir={}/digits",
    "sample single": "-m introvae_jax.sample --workdir={}/digits --num=1000 --out={}/samples",
    "sample interpolate": "-m introvae_jax.sample --workdir={}/digits --mode=interpolate --seeds=3,7",
    "sample reconstruct": "-m introvae_jax.sample --workdir={}/digits --mode=reconstruct --images={}/samples --num=100",
    "evaluate run": "-m introvae_jax.evaluate --workdir={}/digits --metrics=swd2000,msssim1000,reconstruction --floor",
    "evaluate features": "-m introvae_jax.evaluate --workdir={}/digits --metrics=alexnet_frechet1000",
    "evaluate folders": "-m introvae_jax.evaluate --real={}/samples --fake={}/samples --metrics=swd",
    "plan": "-m introvae_jax.plan --config=configs/celebahq.py:128 --config.batch_size=4",
    "prepare": "-m introvae_jax.prepare --source=avatars --name=avatars --resolution=64 --num_images=1000 "
    "--data_dir={}/data",
    "main prepared": f"-m introvae_jax.main --config=configs/avatars.py --config.data.path={{}}/data {TINY} {FEW} "
    "--workdir={}/avatars",
    "main folder": f"-m introvae_jax.main --config=configs/folder.py --config.data.path={{}}/samples {TINY} {FEW} "
    "--workdir={}/folder",
    "convert": "-m introvae_jax.convert --weights={}/soft_introvae.pth --workdir={}/converted --family=soft_introvae",
    "launch": f"launch/local.sh 2 --config=configs/digits.py --workdir={{}}/two {FEW}",
}

_ONLY = flags.DEFINE_list("only", None, "The commands whose names begin so; all without it.")
_CHECKOUT = flags.DEFINE_string("checkout", str(ROOT), "The repository whose commands are run.")
_OUT = flags.DEFINE_string("out", None, "A folder that keeps what was written and said; a temporary one without it.")


def main(_) -> None:
    """Prints a row for each command, and the worst."""
    with tempfile.TemporaryDirectory(prefix="introvae_jax_silence_") as temporary:
        folder = pathlib.Path(_OUT.value or temporary).absolute()
        folder.mkdir(parents=True, exist_ok=True)
        with tarfile.open(ROOT / "tests/torch_weights/fixtures.tar.xz") as fixtures:
            fixtures.extractall(folder, filter="data")
        print("| command | seconds | longest silence | after |\n|---|---|---|---|", flush=True)
        longest = 0.0
        for name, command in COMMANDS.items():
            if _ONLY.value is None or name.startswith(tuple(_ONLY.value)):
                seconds, silence, after = run(name, command, folder)
                longest = max(longest, silence)
                print(f"| {name} | {seconds:.1f} | {silence:.1f} | {after} |", flush=True)
        print(f"| the longest | | {longest:.1f} | |")


def run(name: str, command: str, folder: pathlib.Path) -> tuple[float, float, str]:
    """Seconds in all, the longest silence, and the last line before it. Raises UserError if the command fails."""
    words = shlex.split(command.replace("(", r"\(").replace(")", r"\)").replace("{}", str(folder)))
    words = [sys.executable, *words] if words[0] == "-m" else words
    environment = os.environ | {"INTROVAE_JAX_CACHE": str(folder / "cache"), "PYTHON": sys.executable}
    for key in ("JAX_COMPILATION_CACHE_DIR", "PYTHONPATH"):
        environment.pop(key, None)
    begun = last = time.monotonic()
    silence, after, said = 0.0, "", b""

    def note() -> None:
        nonlocal last, silence, after
        now = time.monotonic()
        if now - last > silence:
            lines = said.decode(errors="replace").replace("\r", "\n").split("\n")
            silence, after = now - last, next((line for line in reversed(lines) if line.strip()), "the start")[:80]
        last = now

    with subprocess.Popen(
        words, cwd=_CHECKOUT.value, env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT
    ) as process:
        while piece := os.read(process.stdout.fileno(), 65536):
            note()
            said += piece
    note()
    (folder / f"{name.replace(' ', '_')}.txt").write_bytes(said)
    if process.returncode:
        raise errors.UserError(f"{shlex.join(words)}: ended with {process.returncode}: {said.decode()[-2000:]}")
    return time.monotonic() - begun, silence, after.replace("|", "/")


if __name__ == "__main__":
    errors.run(main)
