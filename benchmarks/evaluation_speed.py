"""Speed and memory of the FID of two folders of 64px images, compared with pytorch-fid.

    python -m benchmarks.evaluation_speed --pytorch_fid=PYTHON      PYTHON: of an environment with pytorch-fid and torch
    python -m benchmarks.evaluation_speed --counts=2000,10000,50000 --metrics=alexnet_frechet,alexnet_kernel,swd

Both tools are started as users start them, in turn, on the same files with the same weights: random ones, as speed does
not depend on them. Each row is a number of images in each of the two folders; images per second are the difference
between two rows, so that starting and compiling do not count, and memory is the largest that the process ever had.
"""

import os
import pathlib
import subprocess
import sys
import tempfile
import time

from absl import flags
import numpy as np
from PIL import Image
import tqdm

from configs import avatars
from introvae_jax import errors, hashes
from introvae_jax.data import source
from introvae_jax.features import weights
from tests.features import random_weights as recipe

_PYTORCH_FID = flags.DEFINE_string("pytorch_fid", "", "Python with pytorch-fid; without it, ours alone.")
_INCEPTION = flags.DEFINE_string("inception", "", "A file of Inception weights; of random ones without it.")
_COUNTS = flags.DEFINE_list("counts", ["256", "768"], "Images in each folder.")
_ROUNDS = flags.DEFINE_integer("rounds", 3, "How often each is timed.", lower_bound=1)
_METRICS = flags.DEFINE_list("metrics", ["fid"], "What ours computes.")
_BATCH_SIZE = flags.DEFINE_integer("batch_size", 50, "Of both; pytorch-fid's own is 50.", lower_bound=2)


def main(_) -> None:
    counts = sorted(map(int, _COUNTS.value))
    with tempfile.TemporaryDirectory() as place:
        root = pathlib.Path(place)
        file = random_weights(root) if not _INCEPTION.value else pathlib.Path(_INCEPTION.value)
        folders = {count: write_images(root / str(count), count) for count in counts}
        tools = {"introvae_jax": lambda f, n: ours(f, n, file)}
        if _PYTORCH_FID.value:
            tools["pytorch-fid"] = lambda f, n: pytorch_fid(f, file, root)
        rows: dict[tuple[str, int], list[tuple[float, float]]] = {}
        for _ in range(_ROUNDS.value):
            for count in counts:
                for name, run in tools.items():
                    rows.setdefault((name, count), []).append(measured(*run(folders[count], count)))
                    print(f"{name} {count}: {rows[name, count][-1]}", file=sys.stderr, flush=True)
    report(rows, counts, list(tools))


def write_images(folder: pathlib.Path, count: int) -> pathlib.Path:
    """Folders "real" and "fake" of `count` 64px PNGs each: faces, shifted where the set is too small."""
    train = source.open_splits(avatars.get_config("64").data).train
    rng = np.random.default_rng(0)
    for kind in ("real", "fake"):
        (folder / kind).mkdir(parents=True)
        for i in tqdm.tqdm(range(count), f"writing {kind}", leave=False, disable=None):
            face = train[rng.integers(len(train), size=1)][0]
            shifted = np.roll(face, rng.integers(-4, 5, 2), axis=(0, 1))
            Image.fromarray(shifted).save(folder / kind / f"{i:06d}.png")
    return folder


def random_weights(root: pathlib.Path) -> pathlib.Path:
    """A file of random weights, in torch's form, where pytorch-fid looks for the true one."""
    file = root / "hub" / "checkpoints" / weights.INCEPTION_NAMES[0]
    file.parent.mkdir(parents=True)
    recipe.save(file, recipe.state(0))
    return file


def ours(folder: pathlib.Path, count: int, file: pathlib.Path) -> tuple[list[str], dict[str, str]]:
    counts = {"swd": min(count, 16_384), "msssim": count // 2}
    metrics = ",".join(f"{metric}{counts.get(metric, count)}" for metric in _METRICS.value)
    command = [
        sys.executable, "-m", "introvae_jax.evaluate", f"--real={folder / 'real'}", f"--fake={folder / 'fake'}",
        f"--metrics={metrics}", "--nocache", f"--batch_size={_BATCH_SIZE.value}", f"--inception={file}",
        f"--inception_sha256={hashes.sha256_file(file)}",
    ]  # fmt: skip
    return command, {}


def pytorch_fid(folder: pathlib.Path, file: pathlib.Path, root: pathlib.Path) -> tuple[list[str], dict[str, str]]:
    """Runs pytorch-fid, which takes its weights from torch's cache without checking their hash."""
    command = [
        _PYTORCH_FID.value, "-m", "pytorch_fid", str(folder / "real"), str(folder / "fake"),
        "--batch-size", str(_BATCH_SIZE.value),
    ]  # fmt: skip
    return command, {"TORCH_HOME": str(file.parent.parent.parent)}


def measured(command: list[str], environment: dict[str, str]) -> tuple[float, float]:
    """Seconds and largest resident memory in MiB of a process that must succeed."""
    since = time.perf_counter()
    process = subprocess.Popen(command, env={**os.environ, **environment}, stdout=subprocess.DEVNULL)
    _, status, usage = os.wait4(process.pid, 0)
    if status:
        raise errors.UserError(f"{' '.join(command)}: exit status {os.waitstatus_to_exitcode(status)}")
    return time.perf_counter() - since, usage.ru_maxrss / 1024


def report(rows: dict[tuple[str, int], list[tuple[float, float]]], counts: list[int], names: list[str]) -> None:
    """Medians over the rounds, and the rates from the smallest to the largest count."""
    print("| images in each folder | " + " | ".join(f"{n}: seconds | {n}: MiB" for n in names) + " |")
    print("|---" * (1 + 2 * len(names)) + "|")
    for count in counts:
        cells = [f"{np.median(part):.4g}" for n in names for part in zip(*rows[n, count], strict=True)]
        print(f"| {count:,} | " + " | ".join(cells) + " |")
    if len(counts) > 1:
        images = 2 * (counts[-1] - counts[0])
        ends = {n: zip(rows[n, counts[0]], rows[n, counts[-1]], strict=True) for n in names}
        per_round = {n: [images / (last[0] - first[0]) for first, last in pairs] for n, pairs in ends.items()}
        for n in names:
            print(f"{n}: {np.median(per_round[n]):.4g} images/s ({min(per_round[n]):.4g} to {max(per_round[n]):.4g})")
        if len(names) > 1:
            ratios = np.divide(*(per_round[n] for n in names))
            print(f"ratio: {np.median(ratios):.3g} ({min(ratios):.3g} to {max(ratios):.3g})")


if __name__ == "__main__":
    errors.run(main)
