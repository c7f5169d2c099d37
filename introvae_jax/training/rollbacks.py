"""Going back to the last good checkpoint after a non-finite number, with other noise, and keeping count.

WORKDIR/rollbacks.jsonl holds a line for each: the step and term that were not finite and the step gone back to. The
noise from there on depends on how often that checkpoint was gone back to, so that a run that is killed meanwhile
resumes to the same end.
"""

import pathlib
from typing import Any

import jax

from introvae_jax.reporting import records
from introvae_jax.training.state import State


class Rollbacks:
    """Those of one work directory up to the step `start`: later ones belong to a past that is trained anew."""

    def __init__(self, workdir: pathlib.Path, start: int):
        self._path = workdir / "rollbacks.jsonl"
        leads, found = jax.process_index() == 0, []
        if leads:
            found = records.clean(self._path, records.is_rollback)
        elif self._path.exists():
            found = records.read(self._path, records.is_rollback)[0]
        self._entries = [entry for entry in found if entry["to"] <= start]

    def __len__(self) -> int:
        return len(self._entries)

    def add(self, to: int, reason: str, failed: int) -> None:
        """Remembers one to step `to` after step `failed`; one process of the job writes it down."""
        self._entries.append({"to": to, "reason": reason, "failed": failed})
        if jax.process_index() == 0:
            records.write(self._path, self._entries)

    def has_repeated(self, to: int, failed: int) -> bool:
        """True if the run has gone back to step `to` before and has failed at the same step as now."""
        return any((entry["to"], entry.get("failed")) == (to, failed) for entry in self._entries)

    def with_other_noise(self, state: State) -> State:
        """The state of a checkpoint with the key that follows from how often it was gone back to; as it is if never."""
        times = sum(entry["to"] == int(state.step) for entry in self._entries)
        return state.replace(key=_rekeyed(state.key, times)) if times else state


def _rekeyed(key: Any, times: int) -> Any:
    fold = jax.jit(lambda key, number: jax.random.key_data(jax.random.fold_in(jax.random.wrap_key_data(key), number)))
    return jax.device_put(fold(key, times), key.sharding)
