"""Scores each checkpoint of benchmarks/ablation.py and prints the tables.

    python -m benchmarks.ablation_scores --on=digits --out=runs/ablation

    recognised   digits: share of samples that the classifier of benchmarks/digits_classifier.py names for sure
    entropy      digits: of the named classes, in nats; log 10 = 2.303 when all are equally frequent
    SWD          sliced Wasserstein distance of 500 samples to 500 training images, x 1000; lower is better
    PSNR         of reconstructions of held-out images, in dB

Means over the seeds and the range. Weights are the averaged ones but in the rows that say raw.
"""

import functools
import json
import pathlib

from absl import flags
import jax
import numpy as np

from benchmarks import ablation_variants
from introvae_jax import errors, model, pictures
from introvae_jax.checkpoints.checkpoint import Checkpoints
from introvae_jax.data import source
from introvae_jax.metrics import swd

_ON = flags.DEFINE_enum("on", "digits", sorted(ablation_variants.BASES), "The images.")
_OUT = flags.DEFINE_string("out", "runs/ablation", "Folder of the runs.")
NUM_SAMPLES, NUM_SWD = 2_000, 500


def main(_) -> None:
    out = pathlib.Path(_OUT.value).expanduser() / _ON.value
    if not (out / "costs.json").is_file():
        raise errors.UserError(f"{out}: no runs there; benchmarks.ablation trains them")
    costs = json.loads((out / "costs.json").read_text(encoding="utf-8"))
    config = ablation_variants.config(_ON.value, "base")
    judge, splits = _Judge(_ON.value), source.open_splits(config.data)
    real = splits.train[np.random.default_rng(0).permutation(len(splits.train))[:NUM_SAMPLES]]
    floor = swd.swd(real[:NUM_SWD], real[NUM_SWD : 2 * NUM_SWD])["mean"]
    print(f"floor: SWD {floor:.1f} between two sets of {NUM_SWD} training images")
    rows: dict[tuple[str, str, str], list[dict[str, float]]] = {}
    for workdir in sorted(path.parent for path in out.glob("*/checkpoints")):
        name = workdir.name.rpartition("_")[0]
        if name in ablation_variants.SICK:
            continue
        steps = Checkpoints(workdir).steps()
        wanted = {"steps": config.steps, "time": round(config.steps / costs[name])}
        for equal, step in wanted.items():
            nearest = min(steps, key=lambda s: abs(s - step), default=None)
            if nearest is None or abs(nearest - step) > 0.05 * step:
                continue
            for weights in ("ema", "raw") if name == "base" else ("ema",):
                scores = _scored(workdir, nearest, weights, judge, real, splits.test)
                rows.setdefault((name, equal, weights), []).append(scores)
    print(table(rows, costs))


class _Judge:
    """Metrics of samples besides SWD: for digits, those of a classifier."""

    def __init__(self, on: str):
        self._on = on

    @functools.cached_property
    def _classify(self):
        from benchmarks import digits_classifier

        return digits_classifier.train()[0]

    def __call__(self, samples: np.ndarray) -> dict[str, float]:
        if self._on != "digits":
            return {}
        from benchmarks import digits_classifier

        said = digits_classifier.verdict(self._classify(samples))
        return {name: said[name] for name in ("recognised", "entropy")}


def _scored(
    workdir: pathlib.Path, step: int, weights: str, judge: _Judge, real: np.ndarray, test: source.Source
) -> dict[str, float]:
    """The scores of one checkpoint, cached beside it."""
    path = workdir / f"scores_{step}_{weights}.json"
    if not path.exists():
        trained = model.load(workdir, step=step, weights=weights)
        samples = trained.sample(NUM_SAMPLES)
        held_out = test[np.arange(min(len(test), 500))]
        errors_ = np.mean((trained.reconstruct(held_out) - held_out / 255.0) ** 2, axis=(1, 2, 3))
        scores = judge(samples) | {
            "SWD": swd.swd(real[:NUM_SWD], pictures.to_uint8(samples[:NUM_SWD]))["mean"],
            "PSNR": float(np.mean(-10 * np.log10(errors_))),
        }
        path.write_text(json.dumps(scores), encoding="utf-8")
        jax.clear_caches()
    return json.loads(path.read_text(encoding="utf-8"))


def table(rows: dict[tuple[str, str, str], list[dict[str, float]]], costs: dict[str, float]) -> str:
    """A line for each variant, at equal steps and, where a step's time differs, at equal time."""
    columns = list(next(iter(rows.values()))[0])
    lines = ["| variant | equal | seeds | step time | " + " | ".join(columns) + " |", "|---" * (len(columns) + 4) + "|"]
    for (name, equal, weights), runs in rows.items():
        if equal == "time" and abs(costs[name] - 1) < 0.03:
            continue
        cells = []
        for column in columns:
            values = [run[column] for run in runs]
            cells.append(f"{np.mean(values):.3g} ({min(values):.3g} to {max(values):.3g})")
        label = name + (", raw weights" if weights == "raw" else "")
        lines.append(f"| {label} | {equal} | {len(runs)} | {costs[name]:.2f} | " + " | ".join(cells) + " |")
    return "\n".join(lines)


if __name__ == "__main__":
    errors.run(main)
