"""The checkpoints of a work directory. Only this package uses Orbax.

    WORKDIR/checkpoints/STEP/state          the whole training state
    WORKDIR/checkpoints/STEP/statistics     BatchNorm statistics, of the raw and the averaged weights
    WORKDIR/checkpoints/STEP/run            config, identity of the data, versions, checksums of all arrays (JSON)
    WORKDIR/checkpoints/STEP/manifest.json  size and checksum of each file of the above; not in a bucket
    WORKDIR/checkpoints/STEP/metrics        its scores, if it was scored while training (JSON)
    WORKDIR/damaged/STEP_N                  a checkpoint that was proven to be damaged and set aside

Orbax writes under a temporary name and renames at the end, so a folder with the name of a step was complete once. Only
a checkpoint that is proven to be damaged is set aside (files.py); any other read error leaves everything where it is.
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

# What a failed write raises: the error of the operating system, or of TensorStore, which uses these types.
WRITE_ERRORS = (OSError, RuntimeError, ValueError)


class Checkpoints:
    """The checkpoints of one work directory.

    keep: None opens them for reading only; else the latest `keep` stay, and the best by each metric that ranked any.
    Raises UserError if there are none to read, or the place cannot hold checkpoints.
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
        """The steps of the checkpoints that were set aside."""
        return self._aside.steps()

    def best(self) -> int | None:
        """The step with the highest rank by the metric used last; None if no checkpoint on disk is scored."""
        scored = self._scored(self.steps())
        return scores.best(scored, scored[max(scored)].get("rank_of")) if scored else None

    def is_scored(self, step: int) -> bool:
        """True if scores were saved with the checkpoint."""
        return self._scores(step) is not None

    def add_scores(self, step: int, scored: dict[str, Any] | None) -> None:
        """Adds scores to a checkpoint, once it is on disk. Every process calls it.

        scored: under "rank" a number that is higher for better ones, and under "rank_of" the metric behind it; None on
        processes that do not write. The checkpoint that was the best by this metric before is deleted if nothing else
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
        """Starts writing in the background.

        state, statistics: trees of arrays. run: the record of the run, JSON. Raises UserError if this or an earlier
        checkpoint could not be written, or the disk is full.
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
        self.wait()  # as Orbax would itself, before the step of the manifest changes
        self._saving = step
        self._guard_write(lambda: self._manager.save(step, args=items, force=True))

    def is_writing(self) -> bool:
        """True while a checkpoint is being written."""
        return self._manager.is_saving_in_progress()

    def wait(self) -> None:
        """Blocks until everything is on disk. Raises UserError if something could not be written."""
        self._guard_write(self._manager.wait_until_finished)

    def close(self) -> None:
        """Waits, then ends the writing threads. Raises UserError if something could not be written."""
        self._guard_write(self._manager.close)

    def restore_run(self, step: int) -> dict[str, Any]:
        """As `restore.read_run`."""
        return restore.read_run(self._manager, self._folder(step))

    def restore_state(self, step: int, template: PyTree) -> PyTree:
        """As `restore.read_state`."""
        return restore.read_state(self._manager, self._folder(step), template)

    def restore_model(self, step: int, template: PyTree, statistics: PyTree) -> tuple[PyTree, PyTree]:
        """As `restore.read_model`."""
        return restore.read_model(self._manager, self._folder(step), template, statistics)

    def set_aside(self, step: int) -> os.PathLike[str]:
        """Moves a damaged checkpoint to WORKDIR/damaged; returns its new place. Every process calls it.

        Raises UserError if it cannot be moved.
        """
        processes.wait_for_all(f"step {step} is to be set aside")
        place = self._aside.free_place(str(step))
        processes.wait_for_all(f"a place for step {step} was found")
        if jax.process_index() == 0:
            self._aside.move(self._folder(step), place)
        processes.wait_for_all(f"step {step} was set aside")
        self.close()
        self._manager = self._open()  # the old one has the step in memory
        return place

    def _set_damaged_scores_aside(self) -> None:
        """Moves damaged scores away; their checkpoint counts as not scored."""
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
        """The scores of the steps that have any."""
        return {step: found for step in steps if (found := self._scores(step)) is not None}

    def _scores(self, step: int) -> scores.Scores | None:
        folder = self._folder(step)
        try:
            return scores.read(folder)
        except ValueError as error:
            warn(f"{folder}: its scores are damaged ({error}); it counts as not scored")
            return None
        except Exception as error:  # a bucket's errors are of any type
            raise restore.unreadable(folder, error) from error

    def _staying(self, steps: Sequence[int]) -> set[int]:
        """The steps that must not be deleted. Orbax may list some that no longer exist."""
        there = {*self.steps(), self._saving}
        left = [step for step in steps if step in there]
        latest = left[-self._keep :] if self._keep else left
        return {*latest, *scores.best_of_each_metric(self._scored(left)), *set(steps) - there}

    def _write_manifest(self) -> None:
        """Called by Orbax when all files of a checkpoint are written, before it gets its final name."""
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
            # A bucket may answer later; of several processes that write together, another one may have died.
            passing = bucket.is_bucket(self.directory) or (processes.several() and not isinstance(error, OSError))
            more = "; rerun the same command to resume from there" if passing else ""
            raise UserError(
                f"{self.directory}: could not write a checkpoint ({files.first_line(error)}); {last}{more}",
                EXIT_RETRY if passing else 1,
            ) from error


def _absolute(place: pathlib.Path | epath.Path) -> epath.Path:
    return place if bucket.is_bucket(place) else epath.Path(place).resolve()  # `resolve` would turn gs:// into a folder
