"""How long from the command to the first step, with nothing compiled and with compiled programs kept?

    python -m benchmarks.first_step --config=configs/digits.py

Starts the main job as a user does, with an empty place for compiled programs and then with what that left there, and
stops it when it reports its first step: of the config's objective, without warm-up. Everything counts, from Python's
start on.
"""

import os
import pathlib
import statistics
import subprocess
import sys
import tempfile
import time

from absl import flags

from introvae_jax import errors

_CONFIG = flags.DEFINE_string("config", "configs/digits.py", "The experiment to start.")
_ROUNDS = flags.DEFINE_integer("rounds", 3, "How often, both ways each.", lower_bound=1)


def main(_) -> None:
    seconds = {"nothing compiled": [], "programs kept": []}
    for _round in range(_ROUNDS.value):
        with tempfile.TemporaryDirectory(prefix="introvae_jax_") as folder:
            for number, times in enumerate(seconds.values()):
                times.append(first_step(pathlib.Path(folder), number))
    print(f"| {_CONFIG.value} | seconds to the first step |")
    print("|---|---|")
    for name, times in seconds.items():
        print(f"| {name} | {statistics.median(times):.1f} ({min(times):.1f} to {max(times):.1f}) |")


def first_step(folder: pathlib.Path, number: int) -> float:
    """Seconds from the command to the line of its first step. Raises UserError if the line does not come."""
    command = [
        sys.executable, "-m", "introvae_jax.main", f"--config={_CONFIG.value}", f"--workdir={folder}/run_{number}",
        "--config.log.every=1", "--config.objective.warmup_steps=0",
    ]  # fmt: skip
    environment = os.environ | {"INTROVAE_JAX_CACHE": str(folder / "cache")}
    environment.pop("JAX_COMPILATION_CACHE_DIR", None)
    since = time.perf_counter()
    with subprocess.Popen(command, env=environment, stderr=subprocess.PIPE, text=True) as process:
        said = []
        for line in process.stderr:
            said.append(line)
            if line.startswith("step 1/"):
                elapsed = time.perf_counter() - since
                process.kill()
                return elapsed
    raise errors.UserError(f"{' '.join(command)}: no first step: {''.join(said)}")


if __name__ == "__main__":
    errors.run(main)
