"""Restores checkpoints, and distinguishes damaged ones from those that cannot be read at the moment.

`folder` is WORKDIR/checkpoints/STEP. Only proven damage raises `Damaged` (files.py).
"""

from typing import Any

from etils import epath
import jax
import numpy as np
import orbax.checkpoint as ocp

from introvae_jax import bucket
from introvae_jax.checkpoints import digests, files, manager
from introvae_jax.checkpoints.damaged import Damaged
from introvae_jax.errors import EXIT_RETRY, UserError
from introvae_jax.trees import PyTree


def read_run(orbax: ocp.CheckpointManager, folder: epath.Path) -> dict[str, Any]:
    """Restores the metadata of the run: config, identity of the data, versions and checksums.

    Raises Damaged if it differs from what was written, UserError if it cannot be read.
    """
    run = _restore(orbax, folder, run=ocp.args.JsonRestore()).run
    if not isinstance(run, dict):
        raise _damaged(folder, f"the record of the run is {type(run).__name__} instead of an object")
    run = dict[str, Any](digests={}) | run  # older checkpoints have no digests
    for name, kind in (("config", dict), ("data_identity", str), ("digests", dict)):
        if not isinstance(run.get(name), kind):
            raise _damaged(folder, f"the record of the run has no {name}")
    digest = run.pop("digest", None)
    if digest is not None and digest != digests.of_record(run):
        raise _damaged(folder, "the record of the run has changed")
    return run


def read_state(orbax: ocp.CheckpointManager, folder: epath.Path, template: PyTree) -> PyTree:
    """Restores the training state with the shapes and shardings of `template`.

    Raises Damaged if a value differs from what was written or is not finite, UserError if the checkpoint cannot be read
    or has the arrays of another version.
    """
    stored = read_run(orbax, folder)["digests"].get("state")
    if stored and (other := set(stored) ^ set(digests.paths(template))):
        raise UserError(
            f"{folder}: another version of introvae_jax wrote it, with other arrays (such as {min(other)}); resume "
            "with that version"
        )
    target = jax.tree.map(ocp.utils.to_shape_dtype_struct, template)
    return _restore_arrays(orbax, folder, state=ocp.args.StandardRestore(target)).state


def read_model(
    orbax: ocp.CheckpointManager, folder: epath.Path, template: PyTree, statistics: PyTree
) -> tuple[PyTree, PyTree]:
    """Restores the part of the state in `template`, and all statistics, as numpy arrays.

    template, statistics: the expected shapes, which are compared before any array is read.
    Raises UserError if the checkpoint has other shapes, and as `read_state` does.
    """
    for item, expected in (("state", template), ("statistics", statistics)):
        _require_shapes(folder, item, expected)
    as_numpy = jax.tree.map(lambda _: ocp.RestoreArgs(restore_type=np.ndarray), template)
    part = ocp.args.PyTreeRestore(item=template, restore_args=as_numpy, partial_restore=True)
    restored = _restore_arrays(orbax, folder, state=part)
    return restored.state, restored.statistics


def unreadable(folder: epath.Path, error: Exception) -> UserError:
    """The UserError for a failed read that proves no damage."""
    told = files.describe(error, folder)
    return UserError(str(told), EXIT_RETRY) if bucket.is_bucket(folder) else told  # a bucket may respond later


def _require_shapes(folder: epath.Path, item: str, expected: PyTree) -> None:
    """Raises UserError unless the checkpoint lists every array of `expected` with its shape."""
    if not jax.tree.leaves(expected):
        return
    try:
        stored = ocp.PyTreeCheckpointHandler().metadata(folder / item).tree
    except Exception as error:  # as in `_restore`
        raise _explain(folder, error) from error
    arrays = zip(digests.paths(stored), jax.tree.leaves(stored), strict=True)
    there = {path: tuple(leaf.shape) for path, leaf in arrays if hasattr(leaf, "shape")}  # empty nodes have none
    for path, leaf in zip(digests.paths(expected), jax.tree.leaves(expected), strict=True):
        if there.get(path) != leaf.shape:
            found = f"has shape {list(there[path])}" if path in there else "is missing"
            raise UserError(
                f"{folder / item}: {path} {found}, but the checkpoint's config requires {list(leaf.shape)}; the "
                "two belong to different models"
            )


def _restore_arrays(orbax: ocp.CheckpointManager, folder: epath.Path, **items: Any) -> Any:
    """Restores `items` and the statistics. Verifies their checksums and that all numbers are finite."""
    expected = read_run(orbax, folder)["digests"]
    restored = _restore(orbax, folder, statistics=ocp.args.StandardRestore(), **items)
    for item in (*items, "statistics"):
        if changed := digests.differing(restored[item], expected.get(item, {})):
            raise _damaged(folder, f"{changed[0]} of its {item} has changed")
        if non_finite := digests.non_finite(restored[item]):
            raise _damaged(folder, f"{non_finite} of its {item} is not finite")
    return restored


def _restore(orbax: ocp.CheckpointManager, folder: epath.Path, **items: Any) -> Any:
    try:
        return orbax.restore(int(folder.name), args=ocp.args.Composite(**items))
    except Exception as error:  # Orbax and TensorStore raise any type, for damaged files and for failed reads
        raise _explain(folder, error) from error


def _explain(folder: epath.Path, error: Exception) -> UserError:
    """Returns `Damaged` if damage is proven, otherwise a UserError with the reason for the failed read."""
    try:
        if not folder.exists():
            return files.removed(folder)
        damage = files.find_damage(folder, error)
    except FileNotFoundError:
        return files.removed(folder)
    except Exception as trouble:
        return unreadable(folder, trouble)
    return _damaged(folder, damage) if damage else unreadable(folder, error)


def _damaged(folder: epath.Path, reason: str) -> Damaged:
    others = [step for step in manager.steps_in(folder.parent) if step != int(folder.name)]
    remedy = f"there is another one of step {others[-1]}" if others else "there is no other"
    return Damaged(f"{folder}: the checkpoint is damaged ({reason}); {remedy}")
