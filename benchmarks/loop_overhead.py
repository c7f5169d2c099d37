"""Overhead of the train loop over the bare step: reading images, waiting, checking, logging.

    python -m benchmarks.loop_overhead --config=configs/digits.py

Stretches of a real run, as training/train_loop.py takes them (with its log, no pictures or checkpoints), and as many
bare steps of the same compiled program on one batch that is there already, in turn.
"""

import contextlib
import pathlib
import statistics
import tempfile
import time

from absl import flags
import jax
from ml_collections import config_flags
import numpy as np

from introvae_jax import config as config_lib
from introvae_jax import errors, parallel
from introvae_jax.checkpoints.checkpoint import Checkpoints
from introvae_jax.data import source
from introvae_jax.experiment import Experiment
from introvae_jax.objectives.base import Terms
from introvae_jax.reporting.tracing import Trace
from introvae_jax.training.between_steps import BetweenSteps
from introvae_jax.training.feed import Feed, Step
from introvae_jax.training.state import State
from introvae_jax.training.stop import StopRequest
from introvae_jax.training.train_loop import TrainLoop
from introvae_jax.training.watch import Watch

_CONFIG = config_flags.DEFINE_config_file("config", help_string="The experiment.")
_ROUNDS = flags.DEFINE_integer("rounds", 7, "Stretches of each.", lower_bound=3)
_STEPS = flags.DEFINE_integer("steps", 200, "Of a stretch.", lower_bound=10)


class Interrupted:
    """A run's feed that takes as many bare steps after each stretch of `steps`; `seconds` of both, round by round."""

    def __init__(self, feed: Feed, run: Experiment, train: source.Source, steps: int):
        self._feed, self._steps, self._taken, self._since = feed, steps, 0, 0.0
        self.longest, self.seconds = min(feed.longest, steps), {"loop": [], "bare": []}
        self._mapped = run.replicas.map(run.make_step(run.config.objective.name))
        self._batch = run.replicas.split(train[np.arange(run.config.batch_size)])

    def use(self, step: Step) -> None:
        self._feed.use(step)

    def advance(self, state: State, count: int) -> tuple[State, Terms]:
        if self._taken % self._steps == 0:
            jax.block_until_ready(state)
            if self._taken > self._steps:  # the first stretch compiles
                self.seconds["loop"].append(time.perf_counter() - self._since)
            state = self._bare(state)
            self._since = time.perf_counter()
        self._taken += count
        return self._feed.advance(state, count)

    def _bare(self, state: State) -> State:
        since = time.perf_counter()
        for _ in range(self._steps):
            state, _ = self._mapped(state, self._batch)
        jax.block_until_ready(state)
        if self._taken > self._steps:
            self.seconds["bare"].append(time.perf_counter() - since)
        return state


class InterruptedLoop(TrainLoop):
    """A loop whose feed is `Interrupted`."""

    def make_feed(self, start: int) -> Interrupted:
        self.feed = Interrupted(super().make_feed(start), self.experiment, self.between.splits.train, _STEPS.value)
        return self.feed


def main(_) -> None:
    config = _CONFIG.value
    config.steps = (_ROUNDS.value + 2) * _STEPS.value
    config.objective.warmup_steps, config.eval.every = 0, 0
    config.checkpoint.every = config.log.pictures_every = config.steps
    config_lib.validate(config)
    with tempfile.TemporaryDirectory(prefix="introvae_jax_") as folder:
        workdir = pathlib.Path(folder)
        experiment, splits = Experiment(config, parallel.replicas()), source.open_splits(config.data)
        steps = {phase: experiment.make_step(phase[0], beta=phase[1]) for phase in experiment.phases}
        with Watch(60, 0) as watch, contextlib.closing(Checkpoints(workdir, 1)) as checkpoints:
            between = BetweenSteps(experiment, splits, workdir, checkpoints, None, watch)
            loop = InterruptedLoop(experiment, steps, between, StopRequest(), watch, Trace())
            loop.run(experiment.replicas.replicate(jax.jit(experiment.init_state)()))
    seconds = loop.feed.seconds
    ratios = [loop / bare for loop, bare in zip(seconds["loop"], seconds["bare"], strict=True)]
    bare = statistics.median(seconds["bare"]) / _STEPS.value
    print(f"| bare step, ms | loop / bare, {len(ratios)} stretches of {_STEPS.value} |")
    print("|---|---|")
    print(f"| {1e3 * bare:.2f} | {statistics.median(ratios):.3f} ({min(ratios):.3f} to {max(ratios):.3f}) |")


if __name__ == "__main__":
    flags.mark_flag_as_required("config")
    errors.run(main)
