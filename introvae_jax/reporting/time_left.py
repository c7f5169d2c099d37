"""How long the rest of a run takes: its steps, and what happens between them and after the last one."""

from collections.abc import Iterator, Mapping, Sequence
import contextlib
import time


class Pauses:
    """What a run does besides steps: pictures, checkpoints and the like.

    intervals: for each kind of pause the numbers of steps after which it comes; all come after the last step, `total`,
    too. A kind counts as long as it took the last time, and as nothing before it was seen.
    """

    def __init__(self, intervals: Mapping[str, Sequence[int]], total: int):
        self._intervals, self._total = intervals, total
        self._seconds: dict[str, float] = {}  # of the kinds seen so far

    @contextlib.contextmanager
    def timed(self, kind: str) -> Iterator[None]:
        """To be entered for a pause of this kind."""
        since = time.perf_counter()
        yield
        self._seconds[kind] = time.perf_counter() - since

    def left(self, step: int) -> float:
        """Seconds of all pauses that are to come, that after `step` among them."""
        return sum(seconds * self._times(kind, step) for kind, seconds in self._seconds.items())

    @property
    def all_seen(self) -> bool:
        """Whether `left` knows every kind."""
        return self._seconds.keys() == self._intervals.keys()

    def _times(self, kind: str, step: int) -> int:
        """How often a pause of this kind comes from the one after `step` on."""
        first = max(step, 1)
        due = (range(first + -first % every, self._total, every) for every in self._intervals[kind] if every)
        return len(set().union(*due)) + 1
