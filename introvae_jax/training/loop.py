"""A training run, from wherever its work directory stands to the last step, and what ends it before."""

import contextlib
import os
import pathlib

import jax
import ml_collections

from introvae_jax import bucket, disk, processes, progress
from introvae_jax import config as config_lib
from introvae_jax.checkpoints.checkpoint import Checkpoints, Damaged
from introvae_jax.checkpoints.files import PASSING
from introvae_jax.data import source
from introvae_jax.errors import AGAIN, UserError, warn
from introvae_jax.reporting import run_files
from introvae_jax.reporting.logging import NonFinite
from introvae_jax.reporting.records import read_metrics
from introvae_jax.reporting.tracing import Trace
from introvae_jax.training import memory, parallel
from introvae_jax.training.rollbacks import Rollbacks
from introvae_jax.training.run import Run
from introvae_jax.training.scoring import Scoring
from introvae_jax.training.session import Collapsed, Session, last_good, scores_at
from introvae_jax.training.state import State
from introvae_jax.training.stop import StopRequest


def train(
    config: ml_collections.ConfigDict,
    workdir: str | os.PathLike,
    *,
    patience: float = 0,
    silence: float = 60,
    profile: str = "",
    allow_restart: bool = False,
) -> bool:
    """Trains until `config.steps`, or until SIGTERM or Ctrl-C, and leaves a checkpoint either way.

    Called again with the same arguments it goes on from the latest checkpoint, to the same end as a run
    that was never stopped. Of several processes (processes.start) all call it alike. Returns whether it came to the
    last step. Raises UserError for what the user can put right.

    allow_restart: whether to train from step 0 where earlier progress is found but no usable checkpoint.
    patience: seconds that a step may take, 0 for any. silence: seconds without a sign of life of another process of
    the job. Beyond either, this process ends with one line and errors.AGAIN. profile: the steps to trace, as in
    tracing.py.
    """
    config_lib.validate(config)
    trace = Trace(profile)
    replicas = parallel.replicas()
    replicas.check_batch(config.batch_size)
    memory.require_fit(config, replicas)
    workdir = disk.place(workdir)
    with progress.phase("opening the images"):
        splits = source.open_splits(config.data)
    run = Run(config, workdir, splits, replicas)
    stop, watch = StopRequest(), processes.Watch(silence, patience)
    with progress.phase("preparing the metrics"):
        scoring = Scoring(config, run.splits, str(workdir), stop) if config.eval.every else None
    with contextlib.ExitStack() as stack:
        stack.push(processes.leave_on_error)
        _lock(workdir, stack)
        processes.require_shared(workdir)
        stack.enter_context(watch)
        watch.keep("nothing was written or moved")
        with watch.expecting("reading the checkpoints"):
            with progress.phase("opening the checkpoints"):
                checkpoints = _open_checkpoints(workdir, config)
            state = _start_or_resume(run, checkpoints, allow_restart)
        start = int(state.step)
        owes = scoring is not None and start and scores_at(config, start) and not checkpoints.is_scored(start)
        if start >= config.steps and not owes:
            if jax.process_index() == 0:
                print(f"{workdir}: already trained to step {start}; a higher --config.steps trains on")
            return True
        watch.keep(last_good(checkpoints))
        stack.callback(checkpoints.close)
        stack.push(processes.leave_on_error)
        stack.enter_context(stop)
        session = Session(run, checkpoints, scoring, stop, watch, trace)
        rollbacks = Rollbacks(workdir, start)
        try:
            if jax.process_index() == 0:
                run_files.begin(config, workdir)
            while True:
                try:
                    return session.advance(rollbacks.with_other_noise(state))
                except NonFinite as error:
                    _roll_back(run, checkpoints, rollbacks, error)
                    with watch.expecting("reading the last checkpoint"):
                        state = _start_or_resume(run, checkpoints, allow_restart or not checkpoints.steps())
        except Collapsed as error:
            last = last_good(checkpoints, error.well_until)
            raise UserError(f"{error}: stopped (config.log.stop_on_collapse), {last}") from error
        except OSError as error:
            message = f"{error.filename or workdir}: {error.strerror or error}: stopped, {last_good(checkpoints)}"
            raise UserError(message, AGAIN if bucket.is_bucket(workdir) else 1) from error  # a bucket may come back
        except jax.errors.JaxRuntimeError as error:
            if "RESOURCE_EXHAUSTED" in str(error):
                raise UserError(f"{run.advice_on_memory()}: stopped, {last_good(checkpoints)}") from error
            if processes.several():
                watch.keep(last_good(checkpoints))
                watch.leave(f"another process of this job is gone ({str(error).splitlines()[0][:200]})")
            raise


def _roll_back(run: Run, checkpoints: Checkpoints, rollbacks: Rollbacks, error: NonFinite) -> None:
    """Notes that the run goes back to its latest checkpoint. Raises UserError if it may not, or no more."""
    allowed, reason = run.config.checkpoint.rollbacks, str(error)
    checkpoints.wait()
    to = max(checkpoints.steps(), default=0)
    repeated = ""
    if rollbacks.has_repeated(to, error.step):
        repeated = (
            f". It failed at the same step before: another RNG key does not help from the checkpoint of step {to}"
        )
    if len(rollbacks) >= allowed:
        tried = f" after {allowed} times back to a checkpoint" if allowed else ""
        raise UserError(
            f"{reason}: stopped{tried}, {last_good(checkpoints)}{repeated}. {run.advice_on_non_finite()}"
        ) from error
    rollbacks.add(to, reason, error.step)
    if jax.process_index() == 0:
        warn(f"{reason}: back to step {to} with other noise ({len(rollbacks)} of {allowed} times){repeated}")


def _lock(workdir: pathlib.Path, stack: contextlib.ExitStack) -> None:
    """Keeps other jobs out of the work directory until the stack ends. Raises UserError if one is there.

    Process 0 holds the lock for all processes of its job. A bucket has no locks.
    """
    refused = ""
    if jax.process_index() == 0 and not bucket.is_bucket(workdir):
        try:
            workdir.mkdir(parents=True, exist_ok=True)
            stack.enter_context(disk.only_one(workdir / ".lock", "training"))
        except UserError as error:
            refused = str(error)
        except OSError as error:
            refused = f"--workdir={workdir}: {error.strerror or error}; choose one that can be written"
    if refused := processes.from_first(refused):
        raise UserError(refused)


def _open_checkpoints(workdir: pathlib.Path, config: ml_collections.ConfigDict) -> Checkpoints:
    try:
        return Checkpoints(workdir, config.checkpoint.keep)
    except OSError as error:
        passing = error.errno in PASSING
        advice = "rerun the same command" if passing else "choose one that can be written"
        message = f"--workdir={workdir}: {error.strerror or error}; {advice}"
        raise UserError(message, AGAIN if passing else 1) from error


def _start_or_resume(run: Run, checkpoints: Checkpoints, allow_restart: bool) -> State:
    """The state of the latest usable checkpoint, if it is of this experiment and of these images, or a fresh one.

    Those that are proven to be damaged are moved out of the way. Raises UserError if one cannot be read, or without
    `allow_restart` if a fresh state would throw away earlier progress.
    """
    with progress.phase("creating the networks"):
        state = run.replicas.replicate(jax.jit(run.fresh_state)())  # compiled: a third faster than one call at a time
    steps = checkpoints.steps()
    for step in reversed(steps):
        try:
            stored = checkpoints.restore_run(step)
            config_lib.check_resume(stored["config"], run.config, run.workdir)
            place = run.config.data.name or run.config.data.path or run.config.data.source
            if stored["data_identity"] not in ("", run.splits.identity):  # converted weights know no images
                raise UserError(
                    f"{run.workdir} was trained on other images than {place!r} holds now. "
                    "Restore them, or start over in another --workdir"
                )
            with progress.phase(f"loading the checkpoint of step {step}"):
                return run.replicas.to_local(checkpoints.restore_state(step, run.replicas.to_global(state)))
        except Damaged as error:
            aside = checkpoints.set_aside(step)
            warn(f"{error}; moved to {aside}")
    if not allow_restart and (found := _earlier_progress(run, checkpoints, steps)):
        raise UserError(
            f"{run.workdir}: {found}; there is no usable checkpoint. Put one back into {checkpoints.directory}, choose "
            "another --workdir, or train from step 0 with --allow_restart"
        )
    return state


def _earlier_progress(run: Run, checkpoints: Checkpoints, steps: list[int]) -> str | None:
    """What shows that a run without a usable checkpoint had one. steps: of the checkpoints that were there."""
    if steps:
        return f"all of its checkpoints are damaged and were moved to {run.workdir / 'damaged'}"
    if damaged := checkpoints.damaged_steps():
        return f"{run.workdir / 'damaged'} holds the checkpoint of step {damaged[-1]}"
    path = run.workdir / "metrics.jsonl"
    records = read_metrics(path) if path.exists() else []
    last = max((record["step"] for record in records), default=0)
    # The first checkpoint is complete at the latest when the second one begins; a kill before that is no loss.
    return f"{path} ends at step {last}" if last > 2 * run.config.checkpoint.every else None
