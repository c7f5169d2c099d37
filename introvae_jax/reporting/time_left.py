"""Estimates the time of the work besides steps, for the time left of a run."""

from collections.abc import Iterator, Mapping, Sequence
import contextlib
import time


class Pauses:
    """Work besides steps: pictures, checkpoints and the like.

    intervals: for each kind of pause, its intervals in steps; each kind also occurs after the last step, `total`. The
    estimate for a kind is its last duration, or 0 if it has not occurred yet.
    """

    def __init__(self, intervals: Mapping[str, Sequence[int]], total: int):
        self._intervals, self._total = intervals, total
        self._seconds: dict[str, float] = {}  # last duration, by kind

    @contextlib.contextmanager
    def timed(self, kind: str) -> Iterator[None]:
        """Context that measures a pause of this kind."""
        since = time.perf_counter()
        yield
        self._seconds[kind] = time.perf_counter() - since

    def left(self, step: int) -> float:
        """Estimated seconds of all remaining pauses, including the one after `step`."""
        return sum(seconds * self._times(kind, step) for kind, seconds in self._seconds.items())

    @property
    def all_seen(self) -> bool:
        """True if every kind has been measured."""
        return self._seconds.keys() == self._intervals.keys()

    def _times(self, kind: str, step: int) -> int:
        """The number of remaining pauses of this kind, including the one after `step`."""
        first = max(step, 1)
        due = (range(first + -first % every, self._total, every) for every in self._intervals[kind] if every)
        return len(set().union(*due)) + 1
