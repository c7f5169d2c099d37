"""Checkpoints on disk, the only file that knows Orbax.

    WORKDIR/checkpoints/STEP/state        the whole training state
    WORKDIR/checkpoints/STEP/statistics   BatchNorm statistics, of the raw and the averaged weights
    WORKDIR/checkpoints/STEP/run          config, identity of the data, versions (JSON)
    WORKDIR/checkpoints/STEP/metrics      what it scored, if it was scored while training (JSON)

Orbax writes under a temporary name and renames at the end: what is there under its step is whole.
"""

from collections.abc import Callable
import functools
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

from introvae_jax import bucket, disk
from introvae_jax.errors import UserError

# How a failed write shows: as the operating system's error, or as TensorStore's, which uses these types.
WRITE_ERRORS = (OSError, RuntimeError, ValueError)
ITEMS = ("state", "statistics", "run")


class Checkpoints:
    """The checkpoints of one work directory. None for `keep` opens them for reading only.

    Of those that are written, `keep` of the latest stay, and beside them the best of those ranked by the figure
    `ranked_by`: ranks by different figures cannot be compared.
    """

    def __init__(self, workdir: str | os.PathLike, keep: int | None = None, ranked_by: str | None = None):
        self.directory = _absolute(disk.place(workdir)) / "checkpoints"
        if bucket.is_bucket(self.directory):
            bucket.require(self.directory.parent, writes=keep is not None)
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
            self.directory.mkdir(parents=True, exist_ok=True)
        elif not self.directory.is_dir():
            raise UserError(f"{workdir}: no checkpoints there; --workdir must be the work directory of a run")
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

    def add_scores(self, step: int, scored: dict[str, Any]) -> None:
        """Puts figures to a checkpoint that was saved without, as `save` does. Raises UserError as it does."""
        write = ocp.Checkpointer(ocp.JsonCheckpointHandler("metrics")).save
        self._guard_write(lambda: write(self.directory / str(step) / "metrics", scored))
        self._manager.reload()  # it remembers what it found at first

    def save(
        self, step: int, state: Any, statistics: Any, run: dict[str, Any], scored: dict[str, Any] | None = None
    ) -> None:
        """Starts writing; training may go on. Raises UserError if this or an earlier one could not be written.

        scored: figures of this checkpoint, under "rank" a number that is higher for better ones, and under "rank_of"
        what it was made of.
        """
        items = ocp.args.Composite(
            state=ocp.args.StandardSave(state),
            statistics=ocp.args.StandardSave(statistics),
            run=ocp.args.JsonSave(run),
        )
        size = sum(leaf.nbytes for leaf in jax.tree.leaves((state, statistics)))
        disk.require_space(self.directory, size, f"the checkpoint of step {step}")
        self._guard_write(lambda: self._manager.save(step, args=items, metrics=scored))

    def wait(self) -> None:
        """Returns once everything is on disk. Raises UserError if something could not be written."""
        self._guard_write(self._manager.wait_until_finished)

    def close(self) -> None:
        """Ends the writing threads. Raises UserError if something could not be written."""
        self._guard_write(self._manager.close)

    def restore_run(self, step: int) -> dict[str, Any]:
        """Config, identity of the data and versions."""
        return self._restore(step, run=ocp.args.JsonRestore()).run

    def restore_state(self, step: int, template: Any) -> Any:
        """The training state, shaped and placed as `template`."""
        target = jax.tree.map(ocp.utils.to_shape_dtype_struct, template)
        return self._restore(step, state=ocp.args.StandardRestore(target)).state

    def restore_model(self, step: int, template: Any) -> tuple[Any, Any]:
        """The part of the state that `template` (arrays' shapes) names, and the statistics, as numpy arrays."""
        as_numpy = jax.tree.map(lambda _: ocp.RestoreArgs(restore_type=np.ndarray), template)
        part = ocp.args.PyTreeRestore(item=template, restore_args=as_numpy, partial_restore=True)
        restored = self._restore(step, state=part, statistics=ocp.args.StandardRestore())
        return restored.state, restored.statistics

    def _restore(self, step: int, **items: Any) -> Any:
        try:
            return self._manager.restore(step, args=ocp.args.Composite(**items))
        except Exception as error:  # Orbax and TensorStore raise what they like on damaged files
            others = [s for s in self.steps() if s != step]
            way_out = f"remove that folder to go on from step {others[-1]}" if others else "there is no other"
            raise UserError(
                f"{self.directory / str(step)}: the checkpoint is damaged or of another shape "
                f"({_first_line(error)}); {way_out}"
            ) from error

    def _guard_write(self, write: Callable[[], Any]) -> None:
        try:
            write()
        except WRITE_ERRORS as error:
            steps = self.steps()
            last = f"the last good checkpoint is step {steps[-1]}" if steps else "there is no earlier one"
            raise UserError(f"{self.directory}: could not write a checkpoint ({_first_line(error)}); {last}") from error


def _absolute(place: pathlib.Path | epath.Path) -> epath.Path:
    return place if bucket.is_bucket(place) else epath.Path(place).resolve()  # which would turn gs:// into a folder


def _rank(scored: dict[str, Any], by: str | None) -> float:
    """By which checkpoints are ordered, higher for better; those ranked by something else come last."""
    return scored["rank"] if scored.get("rank_of") == by else -math.inf


def _first_line(error: Exception) -> str:
    return (str(error).strip() or type(error).__name__).splitlines()[0][:300]
