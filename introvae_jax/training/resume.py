"""Start and end of a run: the work directory, the state to resume from, rollbacks and errors.

A rollback restarts the run from its last checkpoint after a non-finite number. WORKDIR/rollbacks.jsonl has one line per
rollback: the step and term that were not finite, and the step of the checkpoint. The RNG key after a rollback depends
on the number of rollbacks to that checkpoint, so a run that is killed and resumed ends with the same weights.
"""

from collections.abc import Iterator
import contextlib
import importlib.metadata
import math
import pathlib
from typing import Any

import jax
import ml_collections

import introvae_jax
from introvae_jax import bucket, disk, processes, progress
from introvae_jax import config as config_lib
from introvae_jax.checkpoints.checkpoint import Checkpoints, Damaged
from introvae_jax.checkpoints.files import PASSING
from introvae_jax.errors import EXIT_RETRY, UserError, warn
from introvae_jax.experiment import Experiment
from introvae_jax.reporting import records
from introvae_jax.reporting.logging import NonFinite
from introvae_jax.training import memory
from introvae_jax.training.state import State
from introvae_jax.training.watch import Watch


class Collapsed(Exception):
    """The reconstructions have collapsed and `log.stop_on_collapse` is set. well_until: the last healthy step."""

    def __init__(self, message: str, well_until: int):
        super().__init__(message)
        self.well_until = well_until


@contextlib.contextmanager
def exclusive(workdir: pathlib.Path, watch: Watch) -> Iterator[None]:
    """Context that locks the work directory for this job, checks that all processes see it, and runs `watch`.

    Process 0 holds the lock for all processes of its job. A bucket has no locks. Raises UserError if another job uses
    the directory or it cannot be written.
    """
    with contextlib.ExitStack() as stack:
        stack.push(processes.leave_on_error)
        refused = ""
        if jax.process_index() == 0 and not bucket.is_bucket(workdir):
            try:
                workdir.mkdir(parents=True, exist_ok=True)
                stack.enter_context(disk.file_lock(workdir / ".lock", "training"))
            except UserError as error:
                refused = str(error)
            except OSError as error:
                refused = f"--workdir={workdir}: {error.strerror or error}; choose one that can be written"
        if refused := processes.from_first(refused):
            raise UserError(refused)
        processes.require_shared(workdir)
        stack.enter_context(watch)
        watch.keep("nothing was written or moved")
        yield


def open_checkpoints(workdir: pathlib.Path, keep: int) -> Checkpoints:
    """Opens the checkpoints of a work directory for writing. Raises UserError if they cannot be opened."""
    try:
        with progress.phase("opening the checkpoints"):
            return Checkpoints(workdir, keep)
    except OSError as error:
        passing = error.errno in PASSING
        advice = "rerun the same command" if passing else "choose one that can be written"
        message = f"--workdir={workdir}: {error.strerror or error}; {advice}"
        raise UserError(message, EXIT_RETRY if passing else 1) from error


def restore_or_init(
    experiment: Experiment, data_identity: str, checkpoints: Checkpoints, workdir: pathlib.Path, allow_restart: bool
) -> State:
    """Restores the latest usable checkpoint, or returns the initial state if there is none.

    Checkpoints that are proven to be damaged are moved to WORKDIR/damaged. Raises UserError if the checkpoint is of
    another experiment or of other images, if it cannot be read, or, without `allow_restart`, if starting from step 0
    would discard earlier progress.
    """
    config, replicas = experiment.config, experiment.replicas
    with progress.phase("creating the networks"):
        state = replicas.replicate(jax.jit(experiment.init_state)())  # jitted: a third faster
    steps = checkpoints.steps()
    for step in reversed(steps):
        try:
            stored = checkpoints.restore_run(step)
            config_lib.check_resume(stored["config"], config, workdir)
            place = config.data.name or config.data.path or config.data.source
            if stored["data_identity"] not in ("", data_identity):  # "" for converted weights
                raise UserError(
                    f"{workdir} was trained on images other than those in {place!r} now. "
                    "Restore them, or start over in another --workdir"
                )
            with progress.phase(f"loading the checkpoint of step {step}"):
                return replicas.to_local(checkpoints.restore_state(step, replicas.to_global(state)))
        except Damaged as error:
            aside = checkpoints.set_aside(step)
            warn(f"{error}; moved to {aside}")
    if not allow_restart and (found := _earlier_progress(config, checkpoints, workdir, steps)):
        raise UserError(
            f"{workdir}: {found}; there is no usable checkpoint. Put one back into {checkpoints.directory}, choose "
            "another --workdir, or train from step 0 with --allow_restart"
        )
    return state


def _earlier_progress(
    config: ml_collections.ConfigDict, checkpoints: Checkpoints, workdir: pathlib.Path, steps: list[int]
) -> str | None:
    """A message if a run without a usable checkpoint had made progress, otherwise None.

    steps: of the checkpoints that were there.
    """
    if steps:
        return f"all of its checkpoints are damaged and were moved to {workdir / 'damaged'}"
    if damaged := checkpoints.damaged_steps():
        return f"{workdir / 'damaged'} holds the checkpoint of step {damaged[-1]}"
    path = workdir / "metrics.jsonl"
    last = max((record["step"] for record in (records.read_metrics(path) if path.exists() else [])), default=0)
    # The first checkpoint is complete before the second one starts. A run killed before that had no checkpoint yet.
    return f"{path} ends at step {last}" if last > 2 * config.checkpoint.every else None


def run_record(config: ml_collections.ConfigDict, data_identity: str) -> dict[str, Any]:
    """The metadata that a checkpoint stores about its run; `restore_or_init` compares it with the current run."""
    packages = ("jax", "flax", "optax", "orbax-checkpoint", "grain")
    versions = {name: importlib.metadata.version(name) for name in packages}
    return {
        "config": config_lib.to_dict(config),
        "data_identity": data_identity,
        "versions": {"introvae_jax": introvae_jax.__version__, **versions},
    }


def last_good(checkpoints: Checkpoints, until: float = math.inf) -> str:
    """A phrase for messages that names the latest checkpoint of a step up to `until`."""
    steps = [step for step in checkpoints.steps() if step <= until]
    if not steps:
        return "no earlier checkpoint is left" if checkpoints.steps() else "no checkpoint had been written"
    return f"the last good checkpoint is step {steps[-1]} in {checkpoints.directory}"


class Rollbacks:
    """The rollbacks of a work directory up to step `start`. Later ones belong to steps that are taken again."""

    def __init__(self, workdir: pathlib.Path, start: int):
        self._path, found = workdir / "rollbacks.jsonl", []
        if jax.process_index() == 0:
            found = records.clean(self._path, records.is_rollback)
        elif self._path.exists():
            found = records.read(self._path, records.is_rollback)[0]
        self._entries = [entry for entry in found if entry["to"] <= start]

    def __len__(self) -> int:
        return len(self._entries)

    def add(self, to: int, reason: str, failed: int) -> None:
        """Records a rollback to step `to` after a failure at step `failed`. The main process writes the file."""
        self._entries.append({"to": to, "reason": reason, "failed": failed})
        if jax.process_index() == 0:
            records.write(self._path, self._entries)

    def has_repeated(self, to: int, failed: int) -> bool:
        """True if an earlier rollback to step `to` was followed by a failure at the same step `failed`."""
        return any((entry["to"], entry.get("failed")) == (to, failed) for entry in self._entries)

    def with_other_noise(self, state: State) -> State:
        """The state with an RNG key that depends on the number of rollbacks to its step."""
        times = sum(entry["to"] == int(state.step) for entry in self._entries)
        return state.replace(key=_rekeyed(state.key, times)) if times else state


def _rekeyed(key: Any, times: int) -> Any:
    fold = jax.jit(lambda key, number: jax.random.key_data(jax.random.fold_in(jax.random.wrap_key_data(key), number)))
    return jax.device_put(fold(key, times), key.sharding)


def roll_back(
    config: ml_collections.ConfigDict, checkpoints: Checkpoints, rollbacks: Rollbacks, error: NonFinite
) -> None:
    """Records a rollback to the latest checkpoint. Raises UserError if `checkpoint.rollbacks` are used up."""
    allowed, reason, optim = config.checkpoint.rollbacks, str(error), config.optim
    checkpoints.wait()
    to = max(checkpoints.steps(), default=0)
    repeated = ""
    if rollbacks.has_repeated(to, error.step):
        repeated = f". It failed at the same step before: a new RNG key does not help from the checkpoint of step {to}"
    if len(rollbacks) >= allowed:
        tried = f" after {allowed} rollbacks" if allowed else ""
        raise UserError(
            f"{reason}: stopped{tried}, {last_good(checkpoints)}{repeated}. "
            "Try a new --workdir with a lower --config.optim.learning_rate, with --config.optim.clip_norm or with more "
            f"--config.objective.warmup_steps (now {optim.learning_rate:g}, "
            f"{optim.clip_norm:g}, {config.objective.warmup_steps})"
        ) from error
    rollbacks.add(to, reason, error.step)
    if jax.process_index() == 0:
        warn(f"{reason}: rollback {len(rollbacks)} of {allowed}, to step {to} with a new RNG key{repeated}")


@contextlib.contextmanager
def error_exits(
    experiment: Experiment, checkpoints: Checkpoints, workdir: pathlib.Path, watch: Watch
) -> Iterator[None]:
    """Context that turns errors of the run into a UserError naming the last good checkpoint. Closes `checkpoints`."""
    watch.keep(last_good(checkpoints))
    with contextlib.ExitStack() as stack:
        stack.callback(checkpoints.close)
        stack.push(processes.leave_on_error)
        try:
            yield
        except Collapsed as error:
            last = last_good(checkpoints, error.well_until)
            raise UserError(f"{error}: stopped (config.log.stop_on_collapse), {last}") from error
        except OSError as error:
            message = f"{error.filename or workdir}: {error.strerror or error}: stopped, {last_good(checkpoints)}"
            raise UserError(
                message, EXIT_RETRY if bucket.is_bucket(workdir) else 1
            ) from error  # an unreachable bucket may become reachable again
        except jax.errors.JaxRuntimeError as error:
            if "RESOURCE_EXHAUSTED" in str(error):
                advice = memory.out_of_memory(experiment.config, experiment.replicas)
                raise UserError(f"{advice}: stopped, {last_good(checkpoints)}") from error
            if processes.several():
                watch.keep(last_good(checkpoints))
                watch.leave(f"another process of this job has ended ({str(error).splitlines()[0][:200]})")
            raise
