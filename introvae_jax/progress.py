"""Progress output of a command on stderr: lines, and phases that take more than two seconds.

    with progress.phase("compiling the step"):
        ...
    with progress.phase("reading images", total=len(names)) as reading:
        reading.advance()

A phase that ends within two seconds prints nothing. On a terminal, a longer phase is a progress bar. In a log file it
is a line, which is repeated with the elapsed time and the count while nothing else is printed, and a last line with the
duration. Only commands announce phases (`start`, called by errors.run), not programs that import the package. In a job
of several processes, the main process prints; the others print only their errors, with a label.
"""

import collections
from collections.abc import Callable, Iterable, Iterator, Mapping
import contextlib
import datetime
import math
import os
import sys
import threading
import time
from typing import Any, TextIO, TypeVar

from introvae_jax.formatting import duration

T = TypeVar("T")
VARIABLE = "INTROVAE_JAX_ANNOUNCE_AFTER"  # seconds until a phase is announced: 0 for immediately, inf for never
AFTER = 2.0  # seconds, default of the variable
REPEAT = 4.0  # least seconds between two lines of a phase; in a long phase 1/60 of it, and at most:
RARELY = 60.0
LOOK = 0.5  # seconds between two checks of the clock
EARLIER = 1_000  # most lines that are kept until a log file is opened
# Environment variables with the index of a process, of launch/, Kubernetes, Slurm and Open MPI.
NUMBERS = ("JAX_PROCESS_ID", "JOB_COMPLETION_INDEX", "SLURM_PROCID", "OMPI_COMM_WORLD_RANK")


class Phase(contextlib.AbstractContextManager["Phase"]):
    """A phase, from its creation to `close`. done: the number of finished items of `total` (None if unknown)."""

    def __init__(
        self, console: "Console", since: float, doing: str, total: int | None, unit: str, done: int, stays: bool
    ):
        self.since, self.doing, self.total, self.unit, self.done, self.stays = since, doing, total, unit, done, stays
        self.announced = False
        self.bar: Any = None  # of tqdm, which has no type information
        self._console = console

    def advance(self, count: int = 1) -> None:
        self.done += count

    def close(self, *, finished: bool = True) -> None:
        """Ends the phase. finished: False if an error ended it; the error is printed separately."""
        self._console.end(self, finished)

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        self.close(finished=kind is None)


class Console:
    """Prints lines and phases. There is one per process; tests create others, with their own clock."""

    def __init__(self, clock: Callable[[], float] = time.monotonic):
        self._clock, self._lock = clock, threading.RLock()
        self._after, self._terminal = math.inf, False
        self._thread: threading.Thread | None = None
        self._phases: list[Phase] = []
        self._said = clock()  # when the last line was printed
        self._process: int | None = None
        self._log: TextIO | None = None
        self._earlier: collections.deque[str] = collections.deque(maxlen=EARLIER)

    def start(self, after: float, *, terminal: bool) -> None:
        """Starts announcing phases that last longer than `after` seconds. terminal: True for progress bars."""
        self._after, self._terminal = after, terminal

    def watch(self) -> None:
        """Starts a thread that announces phases in time."""
        if self._thread is None:
            self._thread = threading.Thread(target=self._watch, daemon=True)
            self._thread.start()

    def _watch(self) -> None:
        try:
            while True:
                time.sleep(LOOK)
                self.look()
        except (OSError, ValueError):  # stderr is closed
            return

    def of_process(self, index: int | None) -> None:
        """Sets the index of this process, None for a single one. Processes other than 0 print labelled errors only."""
        self._process = index

    def say(self, text: str, *, always: bool = False) -> None:
        """Prints a line, above any progress bars. always: True to print it in every process."""
        with self._lock:
            if self._process and not always:
                return
            if any(phase.bar is not None for phase in self._phases):
                import tqdm

                tqdm.tqdm.write(text, file=sys.stderr)
            else:
                print(text, file=sys.stderr, flush=True)
            self._said = self._clock()
            self._keep(text)

    @property
    def label(self) -> str:
        """The prefix of error lines in a job of several processes, otherwise ""."""
        return "" if self._process is None else f"process {self._process}: "

    def begin(
        self, doing: str, total: int | None, unit: str, *, done: int = 0, at_once: bool = False, stays: bool = False
    ) -> Phase:
        """Begins a phase."""
        phase = Phase(self, self._clock(), doing, total, unit, done, stays)
        with self._lock:
            self._phases.append(phase)
            if at_once or self._after == 0:
                self._announce(phase)
        return phase

    def end(self, phase: Phase, finished: bool) -> None:
        with self._lock:
            if phase not in self._phases:
                return
            self._phases.remove(phase)
            if phase.bar is not None:
                _refresh(phase)
                phase.bar.close()
            if phase.announced and finished and not phase.stays:
                self.say(f"{phase.doing}: {_count(phase)}{duration(self._clock() - phase.since)}")

    def look(self) -> None:
        """Announces the current phases that are due."""
        with self._lock:
            if not self._phases or self._process or self._after == math.inf:
                return
            now = self._clock()
            lasting = [phase for phase in self._phases if now - phase.since >= self._after]
            if self._terminal:
                for phase in lasting:
                    if phase.announced:
                        _refresh(phase)
                    else:
                        self._announce(phase)
                return
            phase = (lasting or self._phases)[-1]
            if phase.announced:
                wait = min(max(REPEAT, (now - phase.since) / 60), RARELY)
            else:  # a short phase is announced too, if nothing was printed during several short ones
                wait = self._after if lasting else self._after + 1
            if now - self._said >= wait:
                self._announce(phase)

    def _announce(self, phase: Phase) -> None:
        phase.announced = True
        if self._process:
            return
        elapsed = self._clock() - phase.since
        if self._terminal:
            phase.bar = _bar(phase, elapsed)
            return
        so_far = f"{_count(phase)}{duration(elapsed)}" if elapsed >= 1 else _count(phase).removesuffix(", ")
        self.say(f"{phase.doing} ... {so_far}".rstrip())

    def log_to(self, path: os.PathLike[str]) -> None:
        """Appends all lines, including earlier ones, to a file, each with its time. Raises OSError if it fails."""
        with self._lock:
            if self._log is not None:
                self._log.close()
            self._log = open(path, "a", buffering=1, encoding="utf-8")  # noqa: PTH123, SIM115 - open to the end
            self._log.writelines(self._earlier)
            self._log.flush()
            self._earlier.clear()

    def _keep(self, text: str) -> None:
        line = f"{datetime.datetime.now().isoformat(sep=' ', timespec='seconds')} {text}\n"
        if self._log is None:
            self._earlier.append(line)
            return
        try:
            self._log.write(line)
        except OSError as error:  # a full disk must not suppress the line
            self._log = None
            print(f"introvae_jax: warning: the log file ends here ({error.strerror})", file=sys.stderr, flush=True)


def _count(phase: Phase) -> str:
    if phase.total is None:
        return ""
    return f"{phase.done:,}/{phase.total:,}{' ' if phase.unit else ''}{phase.unit}, "


def _bar(phase: Phase, elapsed: float) -> Any:
    import tqdm

    form = None if phase.total is not None else "{desc} {elapsed}"
    bar = tqdm.tqdm(
        desc=phase.doing, total=phase.total, initial=phase.done, unit=f" {phase.unit or 'it'}", bar_format=form,
        leave=phase.stays, dynamic_ncols=True, smoothing=0.05, file=sys.stderr,
    )  # fmt: skip
    bar.start_t -= elapsed
    return bar


def _refresh(phase: Phase) -> None:
    if phase.bar is not None:
        phase.bar.update(phase.done - phase.bar.n)
        phase.bar.refresh()


console = Console()
say, of_process, log_to = console.say, console.of_process, console.log_to


def start(environment: Mapping[str, str]) -> None:
    """Starts announcing phases, in a command. Raises ValueError if the environment variable is not a number."""
    try:
        after = float(environment.get(VARIABLE) or AFTER)
    except ValueError as error:
        raise ValueError(f"{VARIABLE}={environment[VARIABLE]}: must be a number of seconds, or inf") from error
    console.start(after, terminal=sys.stderr.isatty())
    console.watch()


def phase(
    doing: str, total: int | None = None, unit: str = "", *, done: int = 0, at_once: bool = False, stays: bool = False
) -> Phase:
    """Begins a phase. Close it, or use it in a `with` statement.

    total: number of items, in `unit`, if known; `advance` counts them, starting at `done`. at_once: True to announce it
    immediately, for work that always takes long. stays: True to keep the bar at the end, instead of a line with the
    duration.
    """
    return console.begin(doing, total, unit, done=done, at_once=at_once, stays=stays)


def counted(items: Iterable[T], doing: str, total: int, unit: str = "") -> Iterator[T]:
    """Yields the same items and counts them in a phase."""
    with phase(doing, total, unit) as counting:
        for item in items:
            yield item
            counting.advance()


def process_number(environment: Mapping[str, str]) -> int | None:
    """The index of this process from environment variables, before the processes have joined; None if unset."""
    found = next((environment[name] for name in NUMBERS if environment.get(name)), "")
    return int(found) if found.isdecimal() else None
