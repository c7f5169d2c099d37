"""Checkpoints on disk, the only package that knows Orbax.

    WORKDIR/checkpoints/STEP/state          the whole training state
    WORKDIR/checkpoints/STEP/statistics     BatchNorm statistics, of the raw and the averaged weights
    WORKDIR/checkpoints/STEP/run            config, identity of the data, versions, checksums of all arrays (JSON)
    WORKDIR/checkpoints/STEP/manifest.json  size and checksum of each file of the above; not in a bucket
    WORKDIR/checkpoints/STEP/metrics        what it scored, if it was scored while training (JSON)
    WORKDIR/damaged/STEP_N                  a checkpoint that was proven to be damaged and set aside

Orbax writes under a temporary name and renames at the end, so what is there under its step was whole once. Only what
is proven to be damaged is ever set aside (files.py); any other error of a read leaves everything where it is.
"""

from collections.abc import Callable, Sequence
import functools
import os
import pathlib
from typing import Any

from etils import epath
import jax
import numpy as np
import orbax.checkpoint as ocp

from introvae_jax import bucket, disk, processes
from introvae_jax.checkpoints import aside, digests, files, manager, scores
from introvae_jax.errors import EXIT_RETRY, UserError, warn

# How a failed write shows: as the operating system's error, or as TensorStore's, which uses these types.
WRITE_ERRORS = (OSError, RuntimeError, ValueError)


class Damaged(UserError):
    """A checkpoint is proven to be not what was written, or of no use."""


class Checkpoints:
    """The checkpoints of one work directory. None for `keep` opens them for reading only.

    Of those that are written, `keep` of the latest stay, and beside them the best by each metric that ranked any.
    """

    def __init__(self, workdir: str | os.PathLike, keep: int | None = None):
        place = disk.place(workdir)
        files.require_supported_path(_absolute(place))
        self.directory = _absolute(place) / "checkpoints"
        if bucket.is_bucket(self.directory):
            bucket.require(self.directory.parent, writes=keep is not None)
        self._keep, self._saving = keep, None
        self._aside = aside.Aside(self.directory.parent)
        if keep is not None:
            if jax.process_index() == 0:
                self.directory.mkdir(parents=True, exist_ok=True)
                self._set_damaged_scores_aside()
            processes.wait_for_all("checkpoints opened")
        elif not self.directory.is_dir():
            raise UserError(f"{workdir}: no checkpoints there; --workdir must be the work directory of a run")
        disk.require_files(self.directory)
        self._manager = self._open()

    def _open(self) -> ocp.CheckpointManager:
        return manager.open_manager(
            self.directory, writes=self._keep is not None, staying=self._staying, written=self._write_manifest
        )

    def steps(self) -> list[int]:
        """The steps on disk, oldest first. Raises UserError if the disk or the bucket does not tell."""
        try:
            return manager.steps_in(self.directory)
        except Exception as error:  # gcsfs and those below it have many
            if bucket.is_bucket(self.directory):
                reason = files.first_line(error)
                raise UserError(f"{self.directory}: the bucket does not answer ({reason})", EXIT_RETRY) from error
            if isinstance(error, OSError):
                raise files.describe(error, self.directory) from error
            raise

    def damaged_steps(self) -> list[int]:
        """The steps of the checkpoints that were set aside."""
        return self._aside.steps()

    def best(self) -> int | None:
        """The step that scored best, by the metric that ranked last; None if none on disk was scored."""
        scored = self._scored(self.steps())
        return scores.best(scored, scored[max(scored)].get("rank_of")) if scored else None

    def is_scored(self, step: int) -> bool:
        """Whether scores were saved with the checkpoint."""
        return self._scores(step) is not None

    def add_scores(self, step: int, scored: dict[str, Any] | None) -> None:
        """Adds scores to a checkpoint, once it is on disk; None on processes that leave it to another.

        scored: under "rank" a number that is higher for better ones, and under "rank_of" the metric behind it. A
        checkpoint that stayed because it had been the best by this metric goes. Raises UserError as `save` does.
        """
        self.wait()
        if scored is not None:
            self._guard_write(lambda: scores.write(self.directory / str(step), scored))
        processes.wait_for_all(f"scored {step}")
        steps = self.steps()
        for left in set(steps) & set(self._manager.all_steps()) - self._staying(steps):
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
        self.wait()  # as Orbax would itself, before the step of the manifest changes
        self._saving = step
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
        """Config, identity of the data, versions and checksums.

        Raises Damaged if it is not what was written, UserError if it cannot be read.
        """
        run = self._restore(step, run=ocp.args.JsonRestore()).run
        if not isinstance(run, dict):
            raise self._damaged(step, f"the record of the run is {type(run).__name__} instead of an object")
        run = {"digests": {}} | run  # older checkpoints have no digests
        for name, kind in (("config", dict), ("data_identity", str), ("digests", dict)):
            if not isinstance(run.get(name), kind):
                raise self._damaged(step, f"the record of the run has no {name}")
        digest = run.pop("digest", None)
        if digest is not None and digest != digests.of_record(run):
            raise self._damaged(step, "the record of the run has changed")
        return run

    def restore_state(self, step: int, template: Any) -> Any:
        """The training state, shaped and placed as `template`.

        Raises Damaged if anything is not what was written or not finite, UserError if it cannot be read or another
        version wrote other arrays.
        """
        stored = self.restore_run(step)["digests"].get("state")
        if stored and (other := set(stored) ^ set(digests.paths(template))):
            raise UserError(
                f"{self.directory / str(step)}: another version of introvae_jax wrote it, with other arrays (such as "
                f"{min(other)}); go on with that one"
            )
        target = jax.tree.map(ocp.utils.to_shape_dtype_struct, template)
        return self._restore_arrays(step, state=ocp.args.StandardRestore(target)).state

    def restore_model(self, step: int, template: Any, statistics: Any) -> tuple[Any, Any]:
        """The part of the state that `template` names, and all statistics, as numpy arrays.

        template, statistics: shapes that the checkpoint must have, which is asked before anything is read.
        Raises UserError if it has others, and as `restore_state` does.
        """
        for item, expected in (("state", template), ("statistics", statistics)):
            self._require_shapes(step, item, expected)
        as_numpy = jax.tree.map(lambda _: ocp.RestoreArgs(restore_type=np.ndarray), template)
        part = ocp.args.PyTreeRestore(item=template, restore_args=as_numpy, partial_restore=True)
        restored = self._restore_arrays(step, state=part)
        return restored.state, restored.statistics

    def set_aside(self, step: int) -> os.PathLike:
        """Moves a damaged checkpoint out of the way; returns where to. Raises UserError if it cannot be moved."""
        processes.wait_for_all(f"step {step} is to be set aside")
        place = self._aside.free_place(str(step))
        processes.wait_for_all(f"a place for step {step} was found")
        if jax.process_index() == 0:
            self._aside.move(self.directory / str(step), place)
        processes.wait_for_all(f"step {step} was set aside")
        self.close()
        self._manager = self._open()  # the old one remembers the step
        return place

    def _set_damaged_scores_aside(self) -> None:
        """A checkpoint whose scores are damaged counts as not scored."""
        for step in self.steps():
            try:
                scores.read(self.directory / str(step))
            except ValueError as error:
                place = self._aside.free_place(f"{step}_metrics")
                self._aside.move(scores.path(self.directory / str(step)).parent, place)
                warn(f"{self.directory / str(step)}: its scores are damaged ({error}); moved to {place}")
            except OSError as error:
                raise files.describe(error, self.directory / str(step)) from error

    def _scored(self, steps: Sequence[int]) -> dict[int, scores.Scores]:
        """The scores of those that have any."""
        return {step: found for step in steps if (found := self._scores(step)) is not None}

    def _scores(self, step: int) -> scores.Scores | None:
        folder = self.directory / str(step)
        try:
            return scores.read(folder)
        except ValueError as error:
            warn(f"{folder}: its scores are damaged ({error}); it counts as not scored")
        except Exception as error:  # a bucket's errors are of any type
            raise self._unreadable(folder, error) from error

    def _staying(self, steps: Sequence[int]) -> set[int]:
        """Those of `steps` that must not be deleted; Orbax may also know some that are no longer there."""
        there = {*self.steps(), self._saving}
        left = [step for step in steps if step in there]
        return {*left[-self._keep :], *scores.best_of_each_metric(self._scored(left)), *set(steps) - there}

    def _write_manifest(self) -> None:
        """Called by Orbax when all files of a checkpoint are there, before it gets its final name."""
        if jax.process_index() != 0 or bucket.is_bucket(self.directory):
            return
        for folder in self.directory.iterdir():
            if folder.name.startswith(f"{self._saving}{manager.TEMPORARY}"):
                files.write_manifest(folder)

    def _require_shapes(self, step: int, item: str, expected: Any) -> None:
        """Raises UserError unless the checkpoint lists every array of `expected` with its shape."""
        if not jax.tree.leaves(expected):
            return
        place = self.directory / str(step) / item
        try:
            stored = ocp.PyTreeCheckpointHandler().metadata(place).tree
        except Exception as error:  # as in `_restore`
            raise self._explain(step, error) from error
        arrays = zip(digests.paths(stored), jax.tree.leaves(stored), strict=True)
        there = {path: tuple(leaf.shape) for path, leaf in arrays if hasattr(leaf, "shape")}  # empty nodes have none
        for path, leaf in zip(digests.paths(expected), jax.tree.leaves(expected), strict=True):
            if there.get(path) != leaf.shape:
                found = f"has shape {list(there[path])}" if path in there else "is missing"
                raise UserError(
                    f"{place}: {path} {found}, and by the checkpoint's config it must have {list(leaf.shape)}; the two "
                    "are not of one model"
                )

    def _restore_arrays(self, step: int, **items: Any) -> Any:
        """`items` and the statistics, compared with their checksums and checked for non-finite numbers."""
        expected = self.restore_run(step)["digests"]
        restored = self._restore(step, statistics=ocp.args.StandardRestore(), **items)
        for item in (*items, "statistics"):
            if changed := digests.differing(restored[item], expected.get(item, {})):
                raise self._damaged(step, f"{changed[0]} of its {item} has changed")
            if poisoned := digests.non_finite(restored[item]):
                raise self._damaged(step, f"{poisoned} of its {item} is not finite")
        return restored

    def _restore(self, step: int, **items: Any) -> Any:
        try:
            return self._manager.restore(step, args=ocp.args.Composite(**items))
        except Exception as error:  # Orbax and TensorStore raise any type, for damaged files and for failed reads
            raise self._explain(step, error) from error

    def _explain(self, step: int, error: Exception) -> UserError:
        """Damaged if that is proven, or else what kept a checkpoint from being read."""
        folder = self.directory / str(step)
        try:
            if not folder.exists():
                return files.removed(folder)
            damage = files.find_damage(folder, error)
        except FileNotFoundError:
            return files.removed(folder)
        except Exception as trouble:
            return self._unreadable(folder, trouble)
        return self._damaged(step, damage) if damage else self._unreadable(folder, error)

    def _unreadable(self, folder: epath.Path, error: Exception) -> UserError:
        told = files.describe(error, folder)
        return UserError(str(told), EXIT_RETRY) if bucket.is_bucket(folder) else told  # a bucket may come back

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
                f"{self.directory}: could not write a checkpoint ({files.first_line(error)}); {last}{more}",
                EXIT_RETRY if passing else 1,
            ) from error


def _absolute(place: pathlib.Path | epath.Path) -> epath.Path:
    return place if bucket.is_bucket(place) else epath.Path(place).resolve()  # which would turn gs:// into a folder
