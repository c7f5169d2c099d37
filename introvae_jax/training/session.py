"""The steps of a run, one after the other: what is logged, drawn, saved and scored on the way."""

from collections.abc import Iterator
import contextlib
import dataclasses
import math
from typing import Any

from clu import parameter_overview
import jax
import ml_collections

from introvae_jax import model, processes, progress
from introvae_jax.checkpoints import digests
from introvae_jax.checkpoints.checkpoint import Checkpoints
from introvae_jax.reporting.health import Health
from introvae_jax.reporting.logging import NonFinite, Reporter
from introvae_jax.reporting.time_left import Pauses
from introvae_jax.reporting.tracing import Trace
from introvae_jax.training.run import Run
from introvae_jax.training.scoring import Scoring, Stopped, ranked_by
from introvae_jax.training.state import State
from introvae_jax.training.stop import StopRequest


class Collapsed(Exception):
    """The run is past help and its config asks to stop then. well_until: the step up to which it was not."""

    def __init__(self, message: str, well_until: int):
        super().__init__(message)
        self.well_until = well_until


@dataclasses.dataclass
class Session:
    """From a state to the last step, a request to stop, or trouble."""

    run: Run
    checkpoints: Checkpoints
    scoring: Scoring | None
    stop: StopRequest
    watch: processes.Watch
    trace: Trace

    def advance(self, state: State) -> bool:
        """Trains on from `state`; returns whether it came to the last step."""
        config, start = self.run.config, int(state.step)
        self._pauses = _pauses(config)
        self._reporter = Reporter(
            self.run.workdir, start=start, total=config.steps, batch_size=config.batch_size,
            enabled=jax.process_index() == 0, scored=not self._owes_scores(start),
            learning_rate=self.run.learning_rate, pauses=self._pauses,
        )  # fmt: skip
        with contextlib.closing(self._reporter), contextlib.closing(self.trace):
            _introduce(self._reporter, self.run, state)
            if self.trace.is_past(start):
                self._reporter.say(f"--profile: no trace, its first step was taken before; this is step {start}")
            step = self._loop(state)
            with progress.phase(f"waiting until the checkpoint of step {step} is written"):
                self.checkpoints.wait()
            if step < config.steps or self.stop.requested is not None:
                self._reporter.say(f"{self.stop.requested}: saved step {step}; the same command goes on from here")
                return False
            best = self.checkpoints.best()
            more = f", the best one of step {best}" if best is not None else ""
            failing = f", but failing: {'; '.join(self._health.failing)}" if self._health.failing else ""
            self._reporter.say(
                f"done{failing}: {self.run.workdir} holds the checkpoint of step {step}{more}, pictures/ and curves.png"
            )
            return True

    def _loop(self, state: State) -> int:
        """The step that was reached."""
        run, config, step, leads = self.run, self.run.config, int(state.step), jax.process_index() == 0
        with progress.phase("measuring the error of the mean image"):
            reporter, health = self._reporter, Health(run.facts(), self._reporter.losses())
        self._health = health
        last = step >= config.steps
        if self._owes_scores(step):  # a stop or a kill cut it short
            last = self._score(run.trained(state, run.statistics(state, "ema")["ema"]), last)
        with progress.phase("reading the first batches"):
            feed = run.make_feed(step)
        objective, compiled, saved = None, set(), False
        while not last:
            due = run.objective_at(step)
            if due != objective:
                objective = due
                feed.use(run.make_step(objective[0], beta=objective[1]))
            count = _steps_at_once(config, feed.longest, min(_next_stop(config, step) - step, self.trace.room(step)))
            compiles = (objective, count) not in compiled
            reporter.resume(compiles=compiles)
            compiled.add((objective, count))
            at_once = f", {count} at once" if count > 1 else ""
            what = f"compiling the step ({objective[0]}{at_once})" if compiles else ""
            with self.watch.expecting(f"step {step + 1}"), self.trace.steps_after(step), _phase_if(what):
                state, terms = feed.advance(state, count)
                step += count
                reporter.collect(step, terms)
            if self.trace.ends(step):
                reporter.pause()
                reporter.say(f"step {step}: {self.trace.save(run.workdir)} holds the trace")

            last = step == config.steps or self.stop.agreed()
            scores = self._scores_at(step)
            saves = last or scores or step % config.checkpoint.every == 0
            draws = last or step % config.log.pictures_every == 0
            if saves or draws or step % config.log.every == 0:
                with self.watch.expecting(f"step {step}"):
                    record = reporter.report()  # before saving: a state with non-finite numbers is never saved
                if saved and not self.checkpoints.is_writing():
                    saved = False
                    self.watch.keep(last_good(self.checkpoints))
                for advice in health.advise(record):
                    reporter.say(f"step {step}: {advice}")
                if health.has_collapsed and config.log.stop_on_collapse:
                    raise Collapsed(f"collapsed before step {step}", health.well_until)
            if not (saves or draws):
                continue
            with self._pause("statistics", "measuring BatchNorm statistics"):
                statistics = run.statistics(state, *(("ema", "raw") if saves else ("ema",)))
            if saves and (poisoned := digests.non_finite({"state": state, "statistics": statistics})):
                raise NonFinite(f"{poisoned} is not finite at step {step}", step)
            if draws and leads:
                with self._pause("pictures", "drawing pictures"):
                    run.draw_pictures(state, statistics["ema"], reporter)
            reporter.flush()  # what a checkpoint follows is there before it
            if last and leads:
                with progress.phase("drawing the curves"):
                    run.draw_curves()  # before the last checkpoint, with which the run counts as done
            if saves:
                saved = True
                with self._pause("checkpoints", f"saving the checkpoint of step {step}"):
                    self.checkpoints.save(step, run.replicas.to_global(state), statistics, run.record())
            if scores and self.stop.requested is not None:
                last = True  # the next start makes up for it
            elif scores:
                last = self._score(run.trained(state, statistics["ema"]), last)
        return step

    def _scores_at(self, step: int) -> bool:
        """Whether the checkpoint of this step is to be scored."""
        return self.scoring is not None and scores_at(self.run.config, step)

    def _owes_scores(self, step: int) -> bool:
        """Whether the checkpoint of this step should have been scored and is not."""
        return step > 0 and self._scores_at(step) and not self.checkpoints.is_scored(step)

    def _score(self, trained: model.Model, last: bool) -> bool:
        """Scores a checkpoint that is being saved; whether it is the last one: a stop may be asked for meanwhile.

        One process does, while the others wait.
        """
        scored = None
        if jax.process_index() == 0:
            try:
                with self._pause("scores", f"scoring step {trained.step}"):
                    scores, rank = self.scoring.score(trained)
            except Stopped:
                last = True
            else:
                self._reporter.scored(trained.step, scores)
                figures = {score.name: score.value for score in scores}
                scored = {**figures, "rank": rank, "rank_of": ranked_by(trained.config)}
        self.checkpoints.add_scores(trained.step, scored)
        if last and scored:
            with progress.phase("drawing the curves"):
                self.run.draw_curves()
        return last

    @contextlib.contextmanager
    def _pause(self, kind: str, doing: str) -> Iterator[None]:
        """What is done between steps: announced where it takes long, and timed."""
        with self._pauses.timed(kind), progress.phase(doing):
            yield


def scores_at(config: ml_collections.ConfigDict, step: int) -> bool:
    """Whether the checkpoint of this step is to be scored, in a run that is."""
    return step == config.steps or step % config.eval.every == 0


def last_good(checkpoints: Checkpoints, until: float = math.inf) -> str:
    """The latest checkpoint of a step up to `until`, in words."""
    steps = [step for step in checkpoints.steps() if step <= until]
    if not steps:
        return "no checkpoint from before is left" if checkpoints.steps() else "no checkpoint had been written"
    return f"the last good checkpoint is step {steps[-1]} in {checkpoints.directory}"


def _next_stop(config: ml_collections.ConfigDict, step: int) -> int:
    """The next step after which there is more to do than to take another."""
    intervals = [config.log.every, config.log.pictures_every, config.checkpoint.every]
    intervals += [config.eval.every] if config.eval.every else []
    stops = [config.steps, *(step + every - step % every for every in intervals)]
    if step < config.objective.warmup_steps:
        stops.append(config.objective.warmup_steps)
    return min(stops)


def _steps_at_once(config: ml_collections.ConfigDict, longest: int, room: int) -> int:
    """How many of the next `room` steps one call takes: an interval of the log, or else a power of two.

    Each number compiles a program of its own, and intervals that do not divide each other have many.
    """
    count = min(longest, room)
    return count if count == config.log.every else 1 << (count.bit_length() - 1)


def _pauses(config: ml_collections.ConfigDict) -> Pauses:
    """What comes besides steps, and when."""
    scores = [config.eval.every] if config.eval.every else []
    saves, draws = [config.checkpoint.every, *scores], [config.log.pictures_every]
    kinds = {"statistics": [*saves, *draws], "pictures": draws, "checkpoints": saves}
    return Pauses(kinds | ({"scores": scores} if scores else {}), config.steps)


def _phase_if(doing: str) -> contextlib.AbstractContextManager:
    return progress.phase(doing) if doing else contextlib.nullcontext()


def _introduce(reporter: Reporter, run: Run, state: State) -> None:
    """What is about to be trained, on what, from where."""
    count: Any = parameter_overview.count_parameters
    shape = model.example_shape(run.config)
    kind = f"images of {'x'.join(map(str, shape))}" if len(shape) == 3 else "points"
    reporter.say(
        f"{run.workdir}: {len(run.splits.train)} training and {len(run.splits.test)} held-out {kind}; "
        f"encoder {count(state.encoder.params):,} and decoder {count(state.decoder.params):,} parameters; "
        f"{run.replicas.count} x {run.replicas.local[0].device_kind}; "
        f"{run.config.objective.name} from step {int(state.step)} to {run.config.steps}"
    )
