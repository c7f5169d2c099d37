"""Ablation: compares variants that differ from a base in one setting, with three seeds each.

    python -m benchmarks.ablation --on=digits --out=runs/ablation        trains what is missing, scores, prints tables

Every run takes the base's number of steps, and as many as fit in the base's time: the time of a step of each
variant is measured first, in turn with the others. Existing runs and scores are not repeated.
"""

import json
import pathlib
import statistics
import sys
import time

from absl import flags
import jax
import ml_collections

from benchmarks import ablation_variants
from introvae_jax import errors, parallel
from introvae_jax.data import source
from introvae_jax.experiment import Experiment
from introvae_jax.reporting.logging import NonFinite
from introvae_jax.training import feed, train_loop

_ON = flags.DEFINE_enum("on", "digits", sorted(ablation_variants.BASES), "The images.")
_OUT = flags.DEFINE_string("out", "runs/ablation", "Folder of the runs.")
_SEEDS = flags.DEFINE_list("seeds", ["0", "1", "2"], "Seeds of the runs.")
_ONLY = flags.DEFINE_list("only", None, "Names of variants; by default all but the failing ones.")
TIMED_STEPS, ROUNDS = 10, 5


def main(_) -> None:
    out = pathlib.Path(_OUT.value).expanduser() / _ON.value
    names = _ONLY.value or [*ablation_variants.CHANGES, *ablation_variants.OBJECTIVES]
    for name in names:
        if name not in ablation_variants.ALL:
            raise errors.UserError(f"--only={name}: must be of {', '.join(ablation_variants.ALL)}")
    costs = relative_costs(names, out / "costs.json")
    for seed in map(int, _SEEDS.value):
        for name in names:
            train(name, seed, costs[name], out)


def config_of(name: str, seed: int, cost: float) -> ml_collections.ConfigDict:
    """The variant's config, which checkpoints at the base's steps and at the steps of the base's time."""
    config = ablation_variants.config(_ON.value, name)
    equal_steps, equal_time = config.steps, round(config.steps / cost)
    if abs(cost - 1) < 0.03:
        equal_time = equal_steps
    config.seed = seed
    config.steps = max(equal_steps, equal_time)
    config.checkpoint.every = min(equal_steps, equal_time)
    config.checkpoint.keep = 10
    config.log.pictures_every = config.steps
    return config


def train(name: str, seed: int, cost: float, out: pathlib.Path) -> None:
    """Trains a run to its last step; a run that fails writes the reason to a file."""
    workdir = out / f"{name}_{seed}"
    failed = workdir / "failed.txt"
    if failed.exists():
        return
    since = time.monotonic()
    try:
        train_loop.train(config_of(name, seed, cost), workdir)
    except errors.UserError as error:
        if not isinstance(error.__cause__, NonFinite):
            raise
        failed.write_text(str(error), encoding="utf-8")
    print(f"{workdir}: {time.monotonic() - since:.0f} s", file=sys.stderr, flush=True)
    jax.clear_caches()  # some hundred programs otherwise pile up


def relative_costs(names: list[str], path: pathlib.Path) -> dict[str, float]:
    """Time of a step relative to the base's: the median over rounds, in which the variants alternate."""
    known = json.loads(path.read_text(encoding="utf-8")) if path.exists() else {"base": 1.0}
    missing = [name for name in names if name not in known]
    if missing:
        timed = {name: _stepper(name) for name in ["base", *missing]}
        seconds = {name: [] for name in timed}
        for _ in range(ROUNDS):
            for name, advance in timed.items():
                since = time.perf_counter()
                advance()
                seconds[name].append(time.perf_counter() - since)
        for name in missing:
            ratios = [a / b for a, b in zip(seconds[name], seconds["base"], strict=True)]
            known[name] = round(statistics.median(ratios), 3)
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(json.dumps(known, indent=1), encoding="utf-8")
        jax.clear_caches()
    return known


def _stepper(name: str):
    """A function that takes TIMED_STEPS steps of a variant, compiled before."""
    config = ablation_variants.config(_ON.value, name)
    experiment, train = Experiment(config, parallel.replicas()), source.open_splits(config.data).train
    state = experiment.replicas.replicate(experiment.init_state())
    batches = feed.create(config, train, experiment.replicas)
    batches.use(experiment.make_step(config.objective.name))

    def advance() -> None:
        nonlocal state
        for _ in range(TIMED_STEPS):
            state, terms = batches.advance(state, 1)
        jax.block_until_ready(terms)

    advance()
    return advance


if __name__ == "__main__":
    errors.run(main)
