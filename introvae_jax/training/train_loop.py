"""Training: config -> data -> experiment -> state -> steps. `train` sets up a run, `TrainLoop` runs the loop.

training/step.py defines the step (Algorithm 1 of the IntroVAE paper); objectives/ defines the losses (equations 11 and
12).
"""

from collections.abc import Iterator, Mapping
import contextlib
import dataclasses
import functools
import os

import jax
import ml_collections

from introvae_jax import config as config_lib
from introvae_jax import disk, parallel, progress
from introvae_jax.data import source
from introvae_jax.experiment import Experiment
from introvae_jax.reporting import run_files
from introvae_jax.reporting.logging import NonFinite
from introvae_jax.reporting.tracing import Trace
from introvae_jax.training import feed, intervals, memory, resume
from introvae_jax.training.between_steps import BetweenSteps
from introvae_jax.training.resume import Rollbacks
from introvae_jax.training.scoring import Scoring
from introvae_jax.training.state import State
from introvae_jax.training.stop import StopRequest
from introvae_jax.training.watch import Watch

Phase = tuple[str, float]  # objective and beta


def train(
    config: ml_collections.ConfigDict,
    workdir: str | os.PathLike[str],
    *,
    step_timeout: float = 0,
    peer_timeout: float = 60,
    profile: str = "",
    allow_restart: bool = False,
) -> bool:
    """Trains to step `config.steps`, or until SIGTERM or Ctrl-C, and saves a checkpoint in both cases.

    A second call with the same arguments resumes from the latest checkpoint. A resumed run ends with the same weights
    as a run that was never stopped. In a job of several processes (processes.start) every process makes the same call.
    Returns True if the last step was reached without a request to stop. Raises UserError for every problem that the
    user can fix.

    allow_restart: train from step 0 if earlier progress is found but no usable checkpoint.
    step_timeout: seconds that a step may take, 0 for no limit. peer_timeout: seconds without a heartbeat from another
    process of the job. After either, this process ends with one line and exit status errors.EXIT_RETRY.
    profile: the steps to trace, as in reporting/tracing.py.
    """
    config_lib.validate(config)
    trace, replicas = Trace(profile), parallel.replicas()
    memory.require_fit(config, replicas)
    workdir = disk.resolve(workdir)
    with progress.phase("opening the images"):
        splits = source.open_splits(config.data)
    experiment = Experiment(config, replicas)
    # One step(state, images) -> (state, terms) per phase: Algorithm 1, see training/step.py.
    steps = {(name, beta): experiment.make_step(name, beta=beta) for name, beta in experiment.phases}
    stop, watch = StopRequest(), Watch(peer_timeout, step_timeout)
    with progress.phase("preparing the metrics"):
        scoring = Scoring(config, splits, str(workdir), stop) if config.eval.every else None
    with resume.exclusive(workdir, watch):
        with watch.expecting("reading the checkpoints"):
            checkpoints = resume.open_checkpoints(workdir, config.checkpoint.keep)
            restore = functools.partial(resume.restore_or_init, experiment, splits.identity, checkpoints, workdir)
            state = restore(allow_restart)
        between = BetweenSteps(experiment, splits, workdir, checkpoints, scoring, watch)
        if between.is_done(int(state.step)):
            if jax.process_index() == 0:
                print(f"{workdir}: already trained to step {int(state.step)}; raise --config.steps to train longer")
            return True
        with resume.error_exits(experiment, checkpoints, workdir, watch), stop:
            if jax.process_index() == 0:
                run_files.begin(config, workdir)
            rollbacks = Rollbacks(workdir, int(state.step))
            loop = TrainLoop(experiment, steps, between, stop, watch, trace)
            while True:
                try:
                    return loop.run(rollbacks.with_other_noise(state))
                except NonFinite as error:
                    resume.roll_back(config, checkpoints, rollbacks, error)
                    with watch.expecting("reading the last checkpoint"):
                        state = restore(allow_restart or not checkpoints.steps())


@dataclasses.dataclass
class TrainLoop:
    """The step loop. steps: the step function of each of `experiment.phases`. between: the work between steps."""

    experiment: Experiment
    steps: Mapping[Phase, feed.Step]
    between: BetweenSteps
    stop: StopRequest
    watch: Watch
    trace: Trace

    def run(self, state: State) -> bool:
        """Trains from `state` to the last step or a request to stop; returns True if the last step was reached."""
        start, between = int(state.step), self.between
        with between.reporting(state) as reporter, contextlib.closing(self.trace):
            if self.trace.is_past(start):
                reporter.say(f"--profile: no trace is written: the run resumes at step {start}, after its first step")
            step = self._take_steps(state)
            between.wait(step)
            if step < self.experiment.config.steps or self.stop.requested is not None:
                reporter.say(f"{self.stop.requested}: saved step {step}; rerun the same command to resume")
                return False
            reporter.say(between.summary(step))
            return True

    def _take_steps(self, state: State) -> int:
        """Takes steps until the last one or a request to stop. Returns the step that was reached."""
        config, between, step = self.experiment.config, self.between, int(state.step)
        between.measure_mean_image()
        last = step >= config.steps
        if between.owes_scores(step):  # the previous start was stopped before it had scored this checkpoint
            last = between.score(state, between.statistics(state, "ema")["ema"], last)
        with progress.phase("reading the first batches"):
            batches = self.make_feed(step)
        phase: Phase | None = None
        self._compiled: set[tuple[Phase, int]] = set()
        while not last:
            if phase is None or phase != self.experiment.phase_at(step):
                phase = self.experiment.phase_at(step)
                batches.use(self.steps[phase])
            room = min(intervals.next_stop(config, step) - step, self.trace.room(step))
            count = intervals.steps_at_once(config, batches.longest, room)
            with self._stepping(step, count, phase):
                state, terms = batches.advance(state, count)
                step += count
                between.reporter.collect(step, terms)
            if self.trace.ends(step):
                between.reporter.pause()
                between.reporter.say(f"step {step}: saved the trace in {self.trace.save(between.workdir)}")

            last = step == config.steps or self.stop.agreed()
            scores = intervals.scores_at(config, step)
            saves = last or scores or step % config.checkpoint.every == 0
            draws = last or step % config.log.pictures_every == 0
            if saves or draws or step % config.log.every == 0:
                between.report(step)  # before saving: a state with non-finite numbers is never saved
            if saves or draws:
                statistics = between.save_and_draw(state, saves=saves, draws=draws, last=last)
            if scores and self.stop.requested is not None:
                last = True  # the next start scores this checkpoint
            elif scores:
                last = between.score(state, statistics, last)
        return step

    def make_feed(self, start: int) -> feed.Feed:
        """Creates the feed of training images, in the order of the run. Its first batch is that of step `start` + 1."""
        return feed.create(self.experiment.config, self.between.splits.train, self.experiment.replicas, start=start)

    @contextlib.contextmanager
    def _stepping(self, step: int, count: int, phase: Phase) -> Iterator[None]:
        """Context for the next `count` steps: times, watches and traces them, and announces a compilation."""
        compiles = (phase, count) not in self._compiled
        self._compiled.add((phase, count))
        self.between.reporter.resume(compiles=compiles)
        at_once = f", {count} at once" if count > 1 else ""
        doing = f"compiling the step ({phase[0]}{at_once})"
        announced = progress.phase(doing) if compiles else contextlib.nullcontext()
        with self.watch.expecting(f"step {step + 1}"), self.trace.steps_after(step), announced:
            yield
