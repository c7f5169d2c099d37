"""Quality of the digits: IntroVAE against a VAE with the same networks, steps and seeds, scored by a classifier.

    python -m benchmarks.digits_quality --out=runs/digits_quality        about 25 minutes on two CPU cores

Trains configs/digits.py with objective.name "introvae" and "vae" under each seed (runs that are there are not
repeated), samples 2,000 images from each checkpoint and prints a table in Markdown, a JSON line per run before it.

    recognised   share of samples that the classifier names with a probability over 0.9
    entropy      of the named classes, in nats; log 10 = 2.303 when all are equally frequent
    rarest       share of the rarest class, 0.1 when all are equally frequent
    distance     median Euclidean distance to the nearest training image, pixels in [0, 1]
    PSNR         of reconstructions of the held-out images, in dB, the mean over images
    same digit   share of reconstructions that the classifier gives the original's label
"""

from collections.abc import Callable
import json
import pathlib
import sys
import time

from absl import flags
import numpy as np

from benchmarks import digits_classifier
from configs import digits as digits_config
from introvae_jax import errors, model
from introvae_jax.data import digits
from introvae_jax.training import train_loop

_OUT = flags.DEFINE_string("out", "runs/digits_quality", "Folder of the runs.")
_SEEDS = flags.DEFINE_list("seeds", ["0", "1", "2"], "Seeds of the runs.")
NUM_SAMPLES, NEEDED_ACCURACY = 2_000, 0.97
COLUMNS = ("recognised", "entropy", "rarest", "distance", "PSNR", "same digit")


def main(_) -> None:
    judge, accuracy = digits_classifier.train()
    print(f"classifier: {accuracy:.1%} on held-out digits", file=sys.stderr)
    if accuracy < NEEDED_ACCURACY:
        raise errors.UserError(f"the classifier reaches {accuracy:.1%} only, {NEEDED_ACCURACY:.0%} are needed to judge")
    rows = {"held-out images": [score_images(held_out(), judge)]}
    for name in ("introvae", "vae"):
        for seed in map(int, _SEEDS.value):
            scores, minutes = score_run(name, seed, judge)
            rows.setdefault(name, []).append(scores)
            print(json.dumps({"objective": name, "seed": seed, "minutes": minutes, **scores}), flush=True)
    print(table(rows))


def held_out() -> np.ndarray:
    images, _ = digits.load()
    return np.float32(images[digits.is_test()]) / 255


def score_run(name: str, seed: int, judge: Callable[[np.ndarray], np.ndarray]) -> tuple[dict[str, float], float]:
    """Trains if necessary, and scores. Also returns the minutes of training, 0 if the run existed already."""
    config = digits_config.get_config()
    config.objective.name, config.seed = name, seed
    workdir, since = pathlib.Path(_OUT.value, f"{name}_{seed}"), time.monotonic()
    train_loop.train(config, workdir)
    minutes = round((time.monotonic() - since) / 60, 1)

    trained = model.load(workdir)
    scores = score_images(trained.sample(NUM_SAMPLES), judge)
    originals, labels = held_out(), digits.load()[1][digits.is_test()]
    copies = trained.reconstruct(originals)
    squared_error = np.mean((copies - originals) ** 2, axis=(1, 2, 3))
    scores["PSNR"] = float(np.mean(-10 * np.log10(squared_error)))
    scores["same digit"] = float(np.mean(judge(copies).argmax(1) == labels))
    return scores, minutes


def score_images(images: np.ndarray, judge: Callable[[np.ndarray], np.ndarray]) -> dict[str, float]:
    """Metrics of images [N, 32, 32, 1] in [0, 1] that depend on the images only."""
    distance = float(np.median(nearest_training_distance(images)))
    return {**digits_classifier.verdict(judge(images)), "distance": distance}


def nearest_training_distance(images: np.ndarray) -> np.ndarray:
    """Euclidean distance of each image to the closest training image, [N]."""
    everything, _ = digits.load()
    train = np.float32(everything[~digits.is_test()]).reshape(-1, 1024) / 255
    flat = images.reshape(len(images), -1)
    squares = np.square(flat).sum(1)[:, None] + np.square(train).sum(1)[None] - 2 * flat @ train.T
    return np.sqrt(np.maximum(squares.min(1), 0))


def table(rows: dict[str, list[dict[str, float]]]) -> str:
    """Mean over the runs of each row, and from lowest to highest where there are several."""
    lines = ["| | " + " | ".join(COLUMNS) + " |", "|---" * (len(COLUMNS) + 1) + "|"]
    for name, runs in rows.items():
        cells = []
        for column in COLUMNS:
            values = [run[column] for run in runs if column in run]
            text = f"{np.mean(values):.3g}" if values else "-"
            cells.append(text + (f" ({min(values):.3g} to {max(values):.3g})" if len(values) > 1 else ""))
        lines.append(f"| {name} | " + " | ".join(cells) + " |")
    return "\n".join(lines)


if __name__ == "__main__":
    errors.run(main)
