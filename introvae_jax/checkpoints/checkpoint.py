"""Checkpoints on disk, the only file that knows Orbax.

    WORKDIR/checkpoints/STEP/state        the whole training state
    WORKDIR/checkpoints/STEP/statistics   BatchNorm statistics, of the raw and the averaged weights
    WORKDIR/checkpoints/STEP/run          config, identity of the data, versions (JSON)
    WORKDIR/checkpoints/STEP/metrics      what it scored, if it was scored while training (JSON)

Orbax writes under a temporary name and renames at the end: what is there under its step was whole once. The run's
record holds checksums of all of it, so that what disks and people do to it later is noticed.
"""

from collections.abc import Callable
import functools
import itertools
import json
import math
import os
import pathlib
from typing import Any

from etils import epath
import jax
import numpy as np
import orbax.checkpoint as ocp
from orbax.checkpoint.checkpoint_managers import preservation_policy

from introvae_jax import bucket, disk, processes
from introvae_jax.checkpoints import digests
from introvae_jax.errors import AGAIN, UserError, warn

# How a failed write shows: as the operating system's error, or as TensorStore's, which uses these types.
WRITE_ERRORS = (OSError, RuntimeError, ValueError)
ITEMS = ("state", "statistics", "run")


class Damaged(UserError):
    """A checkpoint is not what was written."""


class Checkpoints:
    """The checkpoints of one work directory. None for `keep` opens them for reading only.

    Of those that are written, `keep` of the latest stay, and beside them the best of those ranked by the figure
    `ranked_by`: ranks by different figures cannot be compared.
    """

    def __init__(self, workdir: str | os.PathLike, keep: int | None = None, ranked_by: str | None = None):
        self.directory = _absolute(disk.place(workdir)) / "checkpoints"
        if bucket.is_bucket(self.directory):
            bucket.require(self.directory.parent, writes=keep is not None)
        self._keep = keep
        self._aside = self.directory.parent / "damaged"
        rank = functools.partial(_rank, by=ranked_by)
        policies = [
            preservation_policy.LatestN(keep),
            preservation_policy.BestN(get_metric_fn=rank, n=1, keep_checkpoints_without_metrics=False),
        ]  # max_to_keep beside best_fn would delete the latest checkpoint
        options = ocp.CheckpointManagerOptions(
            preservation_policy=preservation_policy.AnyPreservationPolicy(policies), best_fn=rank, create=False,
            cleanup_tmp_directories=keep is not None,
        )  # fmt: skip
        if keep is not None:
            if jax.process_index() == 0:
                self.directory.mkdir(parents=True, exist_ok=True)
                self._set_damaged_figures_aside()
            processes.wait_for_all("checkpoints opened")
        elif not self.directory.is_dir():
            raise UserError(f"{workdir}: no checkpoints there; --workdir must be the work directory of a run")
        disk.require_files(self.directory)
        try:
            self._manager = ocp.CheckpointManager(self.directory, options=options, item_names=ITEMS)
        except json.JSONDecodeError as error:  # Orbax reads all of them at once and does not say which
            raise UserError(
                f"{self.directory}: a checkpoint's figures are damaged ({error}); remove its folder STEP/metrics, and "
                "it counts as not scored"
            ) from error

    def steps(self) -> list[int]:
        """The steps on disk, oldest first. Raises UserError if a bucket does not tell."""
        try:
            self._manager.reload()
        except Exception as error:  # gcsfs and those below it have many
            if not bucket.is_bucket(self.directory):
                raise
            raise UserError(f"{self.directory}: the bucket does not answer ({_first_line(error)})") from error
        return sorted(self._manager.all_steps())

    def best(self) -> int | None:
        """The step that scored best, by the figure that ranked last; None if none on disk was scored."""
        scored = {step: metrics for step in self.steps() if (metrics := self._manager.metrics(step))}
        by = scored[max(scored)].get("rank_of") if scored else None
        return max(scored, key=lambda step: _rank(scored[step], by), default=None)

    def is_scored(self, step: int) -> bool:
        """Whether figures were saved with the checkpoint."""
        return self._manager.metrics(step) is not None

    def add_scores(self, step: int, scored: dict[str, Any] | None) -> None:
        """Puts figures to a checkpoint, once it is on disk; None on processes that leave it to another.

        scored: under "rank" a number that is higher for better ones, and under "rank_of" what it was made of. A
        checkpoint that stayed because it had been the best goes. Raises UserError as `save` does.
        """
        self.wait()
        if scored is not None:
            file = self.directory / str(step) / "metrics" / "metrics"
            self._guard_write(lambda: _write_json(file, scored))
        processes.wait_for_all(f"scored {step}")
        stay = {*self.steps()[-self._keep :], self.best()}
        for left in set(self.steps()) - stay:
            self._guard_write(functools.partial(self._manager.delete, left))

    def save(self, step: int, state: Any, statistics: Any, run: dict[str, Any]) -> None:
        """Starts writing; training may go on. Raises UserError if this or an earlier one could not be written."""
        sums = {"state": digests.of_arrays(state), "statistics": digests.of_arrays(statistics)}
        record = {**run, "digests": sums}
        items = ocp.args.Composite(
            state=ocp.args.StandardSave(state),
            statistics=ocp.args.StandardSave(statistics),
            run=ocp.args.JsonSave({**record, "digest": digests.of_record(record)}),
        )
        size = sum(leaf.nbytes for leaf in jax.tree.leaves((state, statistics)))
        disk.require_space(self.directory, size, f"the checkpoint of step {step}")
        self._guard_write(lambda: self._manager.save(step, args=items, force=True))

    def is_writing(self) -> bool:
        """Whether one is still on its way to the disk."""
        return self._manager.is_saving_in_progress()

    def wait(self) -> None:
        """Returns once everything is on disk. Raises UserError if something could not be written."""
        self._guard_write(self._manager.wait_until_finished)

    def close(self) -> None:
        """Ends the writing threads. Raises UserError if something could not be written."""
        self._guard_write(self._manager.close)

    def restore_run(self, step: int) -> dict[str, Any]:
        """Config, identity of the data, versions and checksums. Raises Damaged if it is not what was written."""
        run = self._restore(step, run=ocp.args.JsonRestore()).run
        digest = run.pop("digest", None)  # older checkpoints have none
        if digest is not None and digest != digests.of_record(run):
            raise self._damaged(step, "the record of the run has changed")
        return run

    def restore_state(self, step: int, template: Any) -> Any:
        """The training state, shaped and placed as `template`.

        Raises Damaged if anything is not what was written, UserError if another version wrote other arrays.
        """
        stored = self.restore_run(step).get("digests", {}).get("state")
        if stored and (other := set(stored) ^ set(digests.paths(template))):
            raise UserError(
                f"{self.directory / str(step)}: another version of introvae_jax wrote it, with other arrays (such as "
                f"{min(other)}); go on with that one"
            )
        target = jax.tree.map(ocp.utils.to_shape_dtype_struct, template)
        return self._restore_arrays(step, state=ocp.args.StandardRestore(target)).state

    def restore_model(self, step: int, template: Any) -> tuple[Any, Any]:
        """The part of the state that `template` (arrays' shapes) names, and the statistics, as numpy arrays.

        Raises Damaged if it is not what was written.
        """
        as_numpy = jax.tree.map(lambda _: ocp.RestoreArgs(restore_type=np.ndarray), template)
        part = ocp.args.PyTreeRestore(item=template, restore_args=as_numpy, partial_restore=True)
        restored = self._restore_arrays(step, state=part)
        return restored.state, restored.statistics

    def set_aside(self, step: int) -> os.PathLike:
        """Moves a damaged checkpoint out of the way; returns where to."""
        place = self._free_place(str(step))
        processes.wait_for_all(f"step {step} is to be set aside")
        if jax.process_index() == 0:
            (self.directory / str(step)).rename(place)
        processes.wait_for_all(f"step {step} was set aside")
        return place

    def _set_damaged_figures_aside(self) -> None:
        """Orbax would not open any checkpoint beside them; theirs counts as not scored."""
        for file in self.directory.glob("*/metrics/metrics"):
            try:
                json.loads(file.read_text())
            except ValueError as error:
                step = file.parent.parent.name
                place = self._free_place(f"{step}_metrics")
                file.parent.rename(place)
                warn(f"{file}: the figures of step {step} are damaged ({error}); moved to {place}")

    def _free_place(self, name: str) -> epath.Path:
        self._aside.mkdir(exist_ok=True)
        return next(p for i in itertools.count() if not (p := self._aside / f"{name}_{i}").exists())

    def _restore_arrays(self, step: int, **items: Any) -> Any:
        """`items` and the statistics, compared with their checksums."""
        expected = self.restore_run(step).get("digests", {})
        restored = self._restore(step, statistics=ocp.args.StandardRestore(), **items)
        for item, sums in expected.items():
            if changed := digests.differing(restored[item], sums):
                raise self._damaged(step, f"{changed[0]} of its {item} has changed")
        return restored

    def _restore(self, step: int, **items: Any) -> Any:
        try:
            return self._manager.restore(step, args=ocp.args.Composite(**items))
        except Exception as error:  # Orbax and TensorStore raise what they like on damaged files
            raise self._damaged(step, f"or of another shape: {_first_line(error)[:120]}") from error

    def _damaged(self, step: int, reason: str) -> Damaged:
        others = [s for s in self.steps() if s != step]
        way_out = f"there is another one of step {others[-1]}" if others else "there is no other"
        return Damaged(f"{self.directory / str(step)}: the checkpoint is damaged ({reason}); {way_out}")

    def _guard_write(self, write: Callable[[], Any]) -> None:
        try:
            write()
        except WRITE_ERRORS as error:
            steps = self.steps()
            last = f"the last good checkpoint is step {steps[-1]}" if steps else "there is no earlier one"
            # A bucket may come back, and of several processes another one may be gone, with which this one writes.
            passing = bucket.is_bucket(self.directory) or (processes.several() and not isinstance(error, OSError))
            more = "; the same command goes on from there" if passing else ""
            raise UserError(
                f"{self.directory}: could not write a checkpoint ({_first_line(error)}); {last}{more}",
                AGAIN if passing else 1,
            ) from error


def _write_json(file: epath.Path, values: dict[str, Any]) -> None:
    """As Orbax writes the metrics of a checkpoint; in a folder, which appears whole. A bucket has none."""
    partly = file.parent if bucket.is_bucket(file) else file.parent.with_name("metrics.partly")
    partly.mkdir(exist_ok=True)
    (partly / file.name).write_text(json.dumps(values))
    if partly != file.parent:
        partly.rename(file.parent)


def _absolute(place: pathlib.Path | epath.Path) -> epath.Path:
    return place if bucket.is_bucket(place) else epath.Path(place).resolve()  # which would turn gs:// into a folder


def _rank(scored: dict[str, Any], by: str | None) -> float:
    """By which checkpoints are ordered, higher for better; those ranked by something else come last."""
    return scored["rank"] if scored.get("rank_of") == by else -math.inf


def _first_line(error: Exception) -> str:
    return (str(error).strip() or type(error).__name__).splitlines()[0][:300]
