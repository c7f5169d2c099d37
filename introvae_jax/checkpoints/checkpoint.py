"""The checkpoints of a work directory. Only this package uses Orbax.

    WORKDIR/checkpoints/STEP/state          the whole training state
    WORKDIR/checkpoints/STEP/statistics     BatchNorm statistics, of the raw and the averaged weights
    WORKDIR/checkpoints/STEP/run            config, identity of the data, versions, checksums of all arrays (JSON)
    WORKDIR/checkpoints/STEP/manifest.json  size and checksum of each file of the above; not in a bucket
    WORKDIR/checkpoints/STEP/metrics        its scores, if it was scored while training (JSON)
    WORKDIR/damaged/STEP_N                  a checkpoint that was proven to be damaged and set aside

Orbax writes to a temporary folder and renames it at the end, so a folder named after a step was complete at that time.
Only a checkpoint that is proven to be damaged is moved to WORKDIR/damaged (files.py); any other read error moves
nothing.
"""

from collections.abc import Callable, Sequence
import functools
import os
import pathlib
from typing import Any

from etils import epath
import jax
import orbax.checkpoint as ocp

from introvae_jax import bucket, disk, processes
from introvae_jax.checkpoints import damaged, digests, files, manager, restore, scores
from introvae_jax.checkpoints.damaged import Damaged
from introvae_jax.errors import EXIT_RETRY, UserError, warn
from introvae_jax.trees import PyTree

__all__ = ["Checkpoints", "Damaged"]

# Errors of a failed write: those of the operating system and of TensorStore.
WRITE_ERRORS = (OSError, RuntimeError, ValueError)


class Checkpoints:
    """The checkpoints of one work directory.

    keep: the number of latest checkpoints to keep, besides the best one by each ranking metric. None opens the
    checkpoints for reading only.
    Raises UserError if there are none to read, or if Orbax cannot store checkpoints in this path.
    """

    def __init__(self, workdir: str | os.PathLike[str], keep: int | None = None):
        place = disk.resolve(workdir)
        files.require_supported_path(_absolute(place))
        self.directory = _absolute(place) / "checkpoints"
        if bucket.is_bucket(self.directory):
            bucket.require(self.directory.parent, writes=keep is not None)
        self._keep = keep
        self._saving: int | None = None
        self._aside = damaged.Aside(self.directory.parent)
        if keep is not None:
            if jax.process_index() == 0:
                self.directory.mkdir(parents=True, exist_ok=True)
                self._set_damaged_scores_aside()
            processes.wait_for_all("checkpoints opened")
        elif not self.directory.is_dir():
            raise UserError(f"{workdir}: no checkpoints there; --workdir must be the work directory of a run")
        disk.require_files(self.directory)
        self._manager = self._open()

    def _folder(self, step: int) -> epath.Path:
        return self.directory / str(step)

    def _open(self) -> ocp.CheckpointManager:
        return manager.open_manager(
            self.directory, writes=self._keep is not None, staying=self._staying, written=self._write_manifest
        )

    def steps(self) -> list[int]:
        """The steps on disk, oldest first. Raises UserError if the disk or the bucket cannot list them."""
        return manager.steps_in(self.directory)

    def damaged_steps(self) -> list[int]:
        """The steps of the damaged checkpoints in WORKDIR/damaged."""
        return self._aside.steps()

    def best(self) -> int | None:
        """The step with the highest rank by the metric used last; None if no checkpoint on disk is scored."""
        scored = self._scored(self.steps())
        return scores.best(scored, scored[max(scored)].get("rank_of")) if scored else None

    def is_scored(self, step: int) -> bool:
        """True if scores were saved with the checkpoint."""
        return self._scores(step) is not None

    def add_scores(self, step: int, scored: dict[str, Any] | None) -> None:
        """Adds scores to a checkpoint, after waiting until it is on disk. Every process must call it.

        scored: includes "rank", a number that is higher for better checkpoints, and "rank_of", the metric of the rank;
        None on processes that do not write. Deletes the previous best checkpoint by this metric unless another rule
        keeps it. Raises UserError as `save` does.
        """
        self.wait()
        if scored is not None:
            self._guard_write(lambda: scores.write(self._folder(step), scored))
        processes.wait_for_all(f"scored {step}")
        steps = self.steps()
        for left in set(steps) & set(self._manager.all_steps()) - self._staying(steps):
            self._guard_write(functools.partial(self._manager.delete, left))

    def save(self, step: int, state: PyTree, statistics: PyTree, run: dict[str, Any]) -> None:
        """Starts writing a checkpoint in the background.

        state, statistics: pytrees of arrays. run: metadata of the run, JSON. Raises UserError if this or an earlier
        checkpoint could not be written, or if the disk is full.
        """
        sums = {"state": digests.of_arrays(state), "statistics": digests.of_arrays(statistics)}
        record = {**run, "digests": sums}
        items = ocp.args.Composite(
            state=ocp.args.StandardSave(state),
            statistics=ocp.args.StandardSave(statistics),
            run=ocp.args.JsonSave({**record, "digest": digests.of_record(record)}),
        )
        size = sum(leaf.nbytes for leaf in jax.tree.leaves((state, statistics)))
        disk.require_space(self.directory, size, f"the checkpoint of step {step}")
        self.wait()  # Orbax would wait too, but the step of the manifest must not change before
        self._saving = step
        self._guard_write(lambda: self._manager.save(step, args=items, force=True))

    def is_writing(self) -> bool:
        """True while a checkpoint is being written."""
        return self._manager.is_saving_in_progress()

    def wait(self) -> None:
        """Blocks until all checkpoints are on disk. Raises UserError if one could not be written."""
        self._guard_write(self._manager.wait_until_finished)

    def close(self) -> None:
        """Waits, then ends the writing threads. Raises UserError if a checkpoint could not be written."""
        self._guard_write(self._manager.close)

    def restore_run(self, step: int) -> dict[str, Any]:
        """Reads the metadata of the run; see `restore.read_run`."""
        return restore.read_run(self._manager, self._folder(step))

    def restore_state(self, step: int, template: PyTree) -> PyTree:
        """Restores the training state; see `restore.read_state`."""
        return restore.read_state(self._manager, self._folder(step), template)

    def restore_model(self, step: int, template: PyTree, statistics: PyTree) -> tuple[PyTree, PyTree]:
        """Restores the weights and statistics of a model; see `restore.read_model`."""
        return restore.read_model(self._manager, self._folder(step), template, statistics)

    def set_aside(self, step: int) -> os.PathLike[str]:
        """Moves a damaged checkpoint to WORKDIR/damaged and returns its new path. Every process must call it.

        Raises UserError if it cannot be moved.
        """
        processes.wait_for_all(f"step {step} is to be set aside")
        place = self._aside.free_place(str(step))
        processes.wait_for_all(f"a place for step {step} was found")
        if jax.process_index() == 0:
            self._aside.move(self._folder(step), place)
        processes.wait_for_all(f"step {step} was set aside")
        self.close()
        self._manager = self._open()  # the old manager has cached the step
        return place

    def _set_damaged_scores_aside(self) -> None:
        """Moves damaged scores to WORKDIR/damaged. Their checkpoint then counts as not scored."""
        for step in self.steps():
            try:
                scores.read(self._folder(step))
            except ValueError as error:
                place = self._aside.free_place(f"{step}_metrics")
                self._aside.move(scores.path(self._folder(step)).parent, place)
                warn(f"{self._folder(step)}: its scores are damaged ({error}); moved to {place}")
            except OSError as error:
                raise files.describe(error, self._folder(step)) from error

    def _scored(self, steps: Sequence[int]) -> dict[int, scores.Scores]:
        """The scores by step, for the steps that have scores."""
        return {step: found for step in steps if (found := self._scores(step)) is not None}

    def _scores(self, step: int) -> scores.Scores | None:
        folder = self._folder(step)
        try:
            return scores.read(folder)
        except ValueError as error:
            warn(f"{folder}: its scores are damaged ({error}); it counts as not scored")
            return None
        except Exception as error:  # a bucket raises errors of any type
            raise restore.unreadable(folder, error) from error

    def _staying(self, steps: Sequence[int]) -> set[int]:
        """The steps that must not be deleted. Orbax may list some that no longer exist."""
        there = {*self.steps(), self._saving}
        left = [step for step in steps if step in there]
        latest = left[-self._keep :] if self._keep else left
        return {*latest, *scores.best_of_each_metric(self._scored(left)), *set(steps) - there}

    def _write_manifest(self) -> None:
        """Callback of Orbax when all files of a checkpoint are written, before the final rename."""
        if jax.process_index() != 0 or bucket.is_bucket(self.directory):
            return
        for folder in self.directory.iterdir():
            if folder.name.startswith(f"{self._saving}{manager.TEMPORARY}"):
                files.write_manifest(folder)

    def _guard_write(self, write: Callable[[], object]) -> None:
        try:
            write()
        except WRITE_ERRORS as error:
            steps = self.steps()
            last = f"the last good checkpoint is step {steps[-1]}" if steps else "there is no earlier one"
            # A rerun may succeed: a bucket may respond later, or another process of the job may have died.
            passing = bucket.is_bucket(self.directory) or (processes.several() and not isinstance(error, OSError))
            more = "; rerun the same command to resume" if passing else ""
            raise UserError(
                f"{self.directory}: could not write a checkpoint ({files.first_line(error)}); {last}{more}",
                EXIT_RETRY if passing else 1,
            ) from error


def _absolute(place: pathlib.Path | epath.Path) -> epath.Path:
    return place if bucket.is_bucket(place) else epath.Path(place).resolve()  # `resolve` would turn gs:// into a folder
