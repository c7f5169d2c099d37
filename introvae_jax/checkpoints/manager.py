"""Opens and lists a directory of checkpoints. An unreadable checkpoint does not affect the others."""

from collections.abc import Callable, Sequence
from typing import Any

from etils import epath
import orbax.checkpoint as ocp
from orbax.checkpoint.checkpoint_managers import preservation_policy

from introvae_jax import bucket
from introvae_jax.checkpoints import files
from introvae_jax.errors import EXIT_RETRY, UserError

TEMPORARY = ".orbax-checkpoint-tmp"  # Orbax appends it to the name of a checkpoint that is being written

Staying = Callable[[Sequence[int]], set[int]]


def open_manager(
    directory: epath.Path, *, writes: bool, staying: Staying, written: Callable[[], None]
) -> ocp.CheckpointManager:
    """Creates Orbax's manager of `directory`, which must exist. Checkpoints are not read at this point.

    staying: (steps) -> those of the steps that must not be deleted. written: called in a thread when all files of a
    checkpoint are written, before it is committed.
    """
    options = ocp.CheckpointManagerOptions(
        preservation_policy=_Policy(staying), create=False, cleanup_tmp_directories=writes, lightweight_initialize=True,
        async_options=ocp.AsyncOptions(post_finalization_callback=written),
    )  # fmt: skip
    return ocp.CheckpointManager(directory, options=options, item_names=files.ITEMS)


def steps_in(directory: epath.Path) -> list[int]:
    """The steps of the committed checkpoints in `directory`, oldest first; their files are not read.

    Raises UserError if the disk or the bucket cannot list them.
    """
    try:
        return sorted(found.step for found in ocp.path.step.standard_name_format().find_all(directory))
    except Exception as error:  # gcsfs and the libraries below it raise many types
        if bucket.is_bucket(directory):
            reason = files.first_line(error)
            raise UserError(f"{directory}: the bucket does not answer ({reason})", EXIT_RETRY) from error
        if isinstance(error, OSError):
            raise files.describe(error, directory) from error
        raise


class _Policy(preservation_policy.PreservationPolicy):
    def __init__(self, staying: Staying):
        self._staying = staying

    def should_preserve(self, checkpoints: Sequence[Any], *, context: Any) -> list[bool]:
        steps = [checkpoint.step for checkpoint in checkpoints]
        stay = self._staying(steps)
        return [step in stay for step in steps]
