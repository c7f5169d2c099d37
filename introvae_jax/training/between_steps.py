"""The work between training steps: reports, advice, pictures, checkpoints and scores."""

from collections.abc import Iterator
import contextlib
import pathlib

import jax

from introvae_jax import model, objectives, progress
from introvae_jax.checkpoints import digests
from introvae_jax.checkpoints.checkpoint import Checkpoints
from introvae_jax.data import source
from introvae_jax.experiment import Experiment
from introvae_jax.reporting import health, run_files
from introvae_jax.reporting.drawing import Drawings
from introvae_jax.reporting.logging import NonFinite, Reporter
from introvae_jax.training import intervals, resume
from introvae_jax.training.calibrate import Calibration, Statistics
from introvae_jax.training.scoring import Scoring, Stopped, ranked_by
from introvae_jax.training.state import State
from introvae_jax.training.watch import Watch

MEAN_OF = 128  # number of images whose mean is the mean image


class BetweenSteps:
    """Reports, draws, saves and scores. The main process reports, draws and scores; all processes save."""

    def __init__(
        self, experiment: Experiment, splits: source.Splits, workdir: pathlib.Path, checkpoints: Checkpoints,
        scoring: Scoring | None, watch: Watch,
    ):  # fmt: skip
        self.splits, self.workdir = splits, workdir
        self._experiment, self._config, self._checkpoints = experiment, experiment.config, checkpoints
        self._scoring, self._watch = scoring, watch
        self._calibration = Calibration(self._config, experiment.networks, splits.train)
        self._drawings = Drawings(self._config, workdir)
        self._is_main_process = jax.process_index() == 0
        self._saved = False  # True if a checkpoint was saved since the last call of `Watch.keep`
        self.statistics = self._calibration.statistics

    @contextlib.contextmanager
    def reporting(self, state: State) -> Iterator[Reporter]:
        """Context in which `reporter` is open. The first line of the log describes the run."""
        config, start = self._config, int(state.step)
        self._pauses = intervals.pauses(config)
        self.reporter = Reporter(
            self.workdir, start=start, total=config.steps, batch_size=config.batch_size,
            enabled=self._is_main_process, scored=not self.owes_scores(start),
            learning_rate=self._experiment.learning_rate, pauses=self._pauses,
            objective=objectives.kind(config.objective),
        )  # fmt: skip
        with contextlib.closing(self.reporter):
            self.reporter.say(run_files.introduction(self._experiment, self.splits, state, self.workdir))
            yield self.reporter

    def measure_mean_image(self) -> None:
        """Creates the health rules, which compare losses with the error of the mean image."""
        with progress.phase("measuring the error of the mean image"):
            error = health.error_of_mean_image(self.splits.train, self._calibration.rows.ravel()[:MEAN_OF])
            facts = health.Facts(self._config.objective.to_dict(), error)
            self._health = health.Health(facts, self.reporter.losses())

    def report(self, step: int) -> None:
        """Writes the record of the last steps, with advice.

        Raises NonFinite for a term that is not finite, and Collapsed if `log.stop_on_collapse` is set.
        """
        with self._watch.expecting(f"step {step}"):
            record = self.reporter.report()
        if self._saved and not self._checkpoints.is_writing():
            self._saved = False
            self._watch.keep(resume.last_good(self._checkpoints))
        for advice in self._health.advise(record):
            self.reporter.say(f"step {step}: {advice}")
        if self._health.has_collapsed and self._config.log.stop_on_collapse:
            raise resume.Collapsed(f"collapsed before step {step}", self._health.well_until)

    def save_and_draw(self, state: State, *, saves: bool, draws: bool, last: bool) -> Statistics:
        """Draws pictures and starts saving a checkpoint. Returns the BatchNorm statistics of the averaged weights.

        saves, draws: which of the two to do. last: True at the end of the run, which also draws the curves.
        Raises NonFinite if the state has a non-finite number.
        """
        step = int(state.step)
        with self._pause("statistics", "measuring BatchNorm statistics"):
            statistics = self.statistics(state, *(("ema", "raw") if saves else ("ema",)))
        if saves and (poisoned := digests.non_finite({"state": state, "statistics": statistics})):
            raise NonFinite(f"{poisoned} is not finite at step {step}", step)
        if draws and self._is_main_process:
            with self._pause("pictures", "drawing pictures"):
                self._drawings.pictures(self._averaged(state, statistics["ema"]), self.splits.test, self.reporter)
        self.reporter.flush()  # the records must be on disk before the checkpoint of the same step
        if last and self._is_main_process:
            with progress.phase("drawing the curves"):
                self._drawings.curves()  # before the last checkpoint, because a run with that checkpoint is complete
        if saves:
            self._saved = True
            with self._pause("checkpoints", f"saving the checkpoint of step {step}"):
                record = resume.run_record(self._config, self.splits.identity)
                self._checkpoints.save(step, self._experiment.replicas.to_global(state), statistics, record)
        return statistics["ema"]

    def is_done(self, step: int) -> bool:
        """True if all steps are taken and the last checkpoint needs no scores."""
        return step >= self._config.steps and not self.owes_scores(step)

    def owes_scores(self, step: int) -> bool:
        """True if the checkpoint of `step` is to be scored and has no scores yet."""
        return step > 0 and intervals.scores_at(self._config, step) and not self._checkpoints.is_scored(step)

    def score(self, state: State, statistics: Statistics, last: bool) -> bool:
        """Scores a checkpoint while it is being saved. Returns `last`, or True if a stop was requested meanwhile.

        The main process computes the scores; the other processes wait.
        """
        scored, step = None, int(state.step)
        if self._is_main_process:
            assert self._scoring is not None  # eval.every is above 0
            try:
                with self._pause("scores", f"scoring step {step}"):
                    scores, rank = self._scoring.score(self._averaged(state, statistics))
            except Stopped:
                last = True
            else:
                self.reporter.scored(step, scores)
                values = {score.name: score.value for score in scores}
                scored = {**values, "rank": rank, "rank_of": ranked_by(self._config)}
        self._checkpoints.add_scores(step, scored)
        if last and scored:
            with progress.phase("drawing the curves"):
                self._drawings.curves()
        return last

    def wait(self, step: int) -> None:
        """Blocks until the checkpoint of `step` is written."""
        with progress.phase(f"waiting until the checkpoint of step {step} is written"):
            self._checkpoints.wait()

    def summary(self, step: int) -> str:
        """The last log line of a complete run."""
        best = self._checkpoints.best()
        more = f", the best one is step {best}" if best is not None else ""
        failing = f", but failing: {'; '.join(self._health.failing)}" if self._health.failing else ""
        return f"done{failing}: {self.workdir} holds the checkpoint of step {step}{more}, pictures/ and curves.png"

    def _averaged(self, state: State, statistics: Statistics) -> model.Model:
        """A model with the averaged weights."""
        return model.Model.create(
            self._config, state.encoder.ema, state.decoder.ema, statistics,
            step=int(state.step), weights="ema", batch_size=min(64, self._config.batch_size),
        )  # fmt: skip

    @contextlib.contextmanager
    def _pause(self, kind: str, doing: str) -> Iterator[None]:
        """Context for work between steps: it is timed, and announced if it takes long."""
        with self._pauses.timed(kind), progress.phase(doing):
            yield
