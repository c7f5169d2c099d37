"""The training loop: from wherever the work directory stands to the last step."""

import contextlib
import math
import os
import pathlib
from typing import Any

from clu import parameter_overview
import jax
import ml_collections

from introvae_jax import config as config_lib
from introvae_jax import disk, model
from introvae_jax.data import source
from introvae_jax.errors import UserError
from introvae_jax.training import parallel
from introvae_jax.training.checkpoint import Checkpoints
from introvae_jax.training.health import Health
from introvae_jax.training.logging import NonFinite, Reporter
from introvae_jax.training.run import Run
from introvae_jax.training.scoring import Scoring, Stopped, ranked_by
from introvae_jax.training.state import State
from introvae_jax.training.stop import StopRequest


class Collapsed(Exception):
    """The run is past help and its config asks to stop then. well_until: the step up to which it was not."""

    def __init__(self, message: str, well_until: int):
        super().__init__(message)
        self.well_until = well_until


def train(config: ml_collections.ConfigDict, workdir: str | os.PathLike) -> None:
    """Trains until `config.steps`, or until SIGTERM or Ctrl-C, and leaves a checkpoint either way.

    Called again with the same arguments it goes on from the latest checkpoint, to the same end as a run
    that was never stopped. Raises UserError for what the user can put right.
    """
    config_lib.validate(config)
    replicas = parallel.replicas()
    replicas.check_batch(config.batch_size, config.accumulate)
    workdir = disk.expand(workdir)
    run = Run(config, workdir, source.open_splits(config.data), replicas)
    stop = StopRequest()
    scoring = Scoring(config, run.splits, str(workdir), stop) if config.eval.every else None
    checkpoints = _open_checkpoints(workdir, config)
    state = _start_or_resume(run, checkpoints)
    start = int(state.step)
    owes = scoring is not None and start and _scores_at(config, start) and not checkpoints.is_scored(start)
    if start >= config.steps and not owes:
        print(f"{workdir}: already trained to step {start}; a higher --config.steps trains on")
        return
    try:
        with contextlib.ExitStack() as stack:
            stack.callback(checkpoints.close)
            reporter = Reporter(
                workdir, start=start, total=config.steps, batch_size=config.batch_size,
                enabled=jax.process_index() == 0,
            )  # fmt: skip
            stack.callback(reporter.close)
            stack.enter_context(stop)
            _introduce(reporter, run, state)
            _loop(run, state, checkpoints, reporter, stop, scoring, owes)
    except Collapsed as error:
        last = _last(checkpoints, error.well_until)
        raise UserError(f"{error}: stopped (config.log.stop_on_collapse), {last}") from error
    except NonFinite as error:
        raise UserError(f"{error}: stopped, {_last(checkpoints)}. {run.advice_on_non_finite()}") from error
    except OSError as error:
        raise UserError(f"{error.filename or workdir}: {error.strerror}: stopped, {_last(checkpoints)}") from error


def _loop(
    run: Run, state: State, checkpoints: Checkpoints, reporter: Reporter, stop: StopRequest, scoring: Scoring | None,
    owes: bool,
) -> None:  # fmt: skip
    config, step, leads = run.config, int(state.step), jax.process_index() == 0
    health = Health(run.facts(), reporter.losses())
    last = step >= config.steps
    if owes:  # an evaluation that a signal or a kill cut short
        scored, last = _score(scoring, run.trained(state, run.statistics(state, "ema")["ema"]), reporter, last)
        if scored is not None and leads:
            checkpoints.add_scores(step, scored)
            run.draw_curves()
    feed, name, compiled = run.make_feed(step), "", set()
    while not last:
        due = "vae" if step < config.objective.warmup_steps else config.objective.name
        if due != name:
            name = due
            feed.use(run.make_step(name))
        count = _steps_at_once(config, feed.longest, _next_stop(config, step) - step)
        reporter.resume(compiles=(name, count) not in compiled)
        compiled.add((name, count))
        state, terms = feed.advance(state, count)
        step += count
        reporter.collect(step, terms)

        last = step == config.steps or stop.requested is not None
        scored = None
        scores = scoring is not None and _scores_at(config, step)
        saves = last or scores or step % config.checkpoint.every == 0
        draws = last or step % config.log.pictures_every == 0
        if saves or draws or step % config.log.every == 0:
            record = reporter.report()  # before saving: a state with non-finite numbers is never saved
            for advice in health.advise(record):
                reporter.say(f"step {step}: {advice}")
            if health.has_collapsed and config.log.stop_on_collapse:
                raise Collapsed(f"collapsed before step {step}", health.well_until)
        if saves or draws:
            statistics = run.statistics(state, *(("ema", "raw") if saves else ("ema",)))
            if scores:
                scored, last = _score(scoring, run.trained(state, statistics["ema"]), reporter, last)
            if draws and leads:
                run.draw_pictures(state, statistics["ema"], reporter)
            if last and leads:
                run.draw_curves()  # before the last checkpoint, with which the run counts as done
            if saves:
                checkpoints.save(step, run.replicas.to_global(state), statistics, run.record(), scored)

    checkpoints.wait()
    if step >= config.steps:
        best = checkpoints.best()
        more = f", the best one of step {best}" if best is not None else ""
        reporter.say(f"done: {run.workdir} holds the checkpoint of step {step}{more}, pictures/ and curves.png")
    else:
        reporter.say(f"{stop.requested}: saved step {step}; the same command goes on from here")


def _scores_at(config: ml_collections.ConfigDict, step: int) -> bool:
    """Whether the checkpoint of this step is to be scored, in a run that is."""
    return step == config.steps or step % config.eval.every == 0


def _score(
    scoring: Scoring, trained: model.Model, reporter: Reporter, last: bool
) -> tuple[dict[str, Any] | None, bool]:
    """What the checkpoint scored, and whether it is the last one: a stop may be asked for meanwhile."""
    try:
        scores, rank = scoring.score(trained)
    except Stopped:
        return None, True
    reporter.scored(trained.step, scores)
    figures = {score.name: score.value for score in scores}
    return {**figures, "rank": rank, "rank_of": ranked_by(trained.config)}, last


def _open_checkpoints(workdir: pathlib.Path, config: ml_collections.ConfigDict) -> Checkpoints:
    try:
        return Checkpoints(workdir, config.checkpoint.keep, ranked_by(config) if config.eval.every else None)
    except OSError as error:
        raise UserError(f"--workdir={workdir}: {error.strerror or error}; choose one that can be written") from error


def _start_or_resume(run: Run, checkpoints: Checkpoints) -> State:
    """A fresh state, or the latest checkpoint's if it is of this experiment and of these images."""
    state = run.replicas.replicate(jax.jit(run.fresh_state)())  # compiled: a third faster than one call at a time
    if not checkpoints.steps():
        return state
    step = checkpoints.steps()[-1]
    stored = checkpoints.restore_run(step)
    config_lib.check_resume(stored["config"], run.config, run.workdir)
    place = run.config.data.name or run.config.data.path or run.config.data.source
    if stored["data_identity"] not in ("", run.splits.identity):  # converted weights know no images
        raise UserError(
            f"{run.workdir} was trained on other images than {place!r} holds now. "
            "Restore them, or start over in another --workdir"
        )
    return checkpoints.restore_state(step, state)


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


def _last(checkpoints: Checkpoints, until: float = math.inf) -> str:
    """The latest checkpoint of a step up to `until`, in words."""
    steps = [step for step in checkpoints.steps() if step <= until]
    if not steps:
        return "no checkpoint from before is left" if checkpoints.steps() else "no checkpoint had been written"
    return f"the last good checkpoint is step {steps[-1]} in {checkpoints.directory}"
