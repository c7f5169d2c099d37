"""Ends this process with one line if another process of the job has ended or a step hangs."""

from collections.abc import Iterator
import contextlib
import threading
import time
from typing import NoReturn

import jax

from introvae_jax import processes
from introvae_jax.errors import EXIT_RETRY

_ALIVE = "introvae_jax/alive/"


class Watch(contextlib.AbstractContextManager["Watch"]):
    """Context that ends this process with one line if another process of the job has ended or a step hangs.

    peer_timeout: seconds without a heartbeat from another process. step_timeout: seconds that a step may take, 0 for no
    limit.
    """

    BEAT = 1.0  # seconds between two heartbeats

    def __init__(self, peer_timeout: float, step_timeout: float):
        self._peer_timeout, self._step_timeout = peer_timeout, step_timeout
        self._last_good = "no checkpoint had been written"
        self._since: float | None = None  # start time of the current step
        self._doing, self._done = "", threading.Event()
        self._heard: dict[int, tuple[str, float]] = {}
        self._answered = time.monotonic()

    def __enter__(self) -> "Watch":
        tasks = [self._guard] + ([self._listen] if processes.several() else [])
        self._threads = [threading.Thread(target=task, daemon=True) for task in tasks]
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._done.set()

    def keep(self, last_good: str) -> None:
        """Sets the phrase about the last good checkpoint for the final line."""
        self._last_good = last_good

    @contextlib.contextmanager
    def expecting(self, what: str) -> Iterator[None]:
        """Context for work that must end within `step_timeout`. what: the work, for the final line."""
        self._doing, self._since = what, time.monotonic()
        try:
            yield
        finally:  # after an error too: a rollback continues the run
            self._since = None

    def leave(self, reason: str) -> NoReturn:
        """Ends the process immediately, without waiting for the other processes, which may never answer."""
        processes.leave(f"{reason}: stopped, {self._last_good}; rerun the same command to resume", EXIT_RETRY)

    def _guard(self) -> None:
        """Checks the timeouts, in a thread."""
        while not self._done.wait(self.BEAT):
            now, since = time.monotonic(), self._since
            if self._step_timeout and since is not None and now - since > self._step_timeout:
                self.leave(f"{self._doing} has taken more than {self._step_timeout:g} s (--step_timeout)")
            if not processes.several():
                continue
            if now - self._answered > self._peer_timeout:
                self.leave(
                    f"process 0, the coordinator, has not responded for {self._peer_timeout:g} s (--peer_timeout)"
                )
            for index, (_, heard) in self._heard.copy().items():
                if now - heard > self._peer_timeout:
                    self.leave(f"process {index} has sent no heartbeat for {self._peer_timeout:g} s (--peer_timeout)")

    def _listen(self) -> None:
        """Sends and receives heartbeats, in a thread. If a call hangs, `_guard` ends the process."""
        client, me, beat = processes.key_value_store(), jax.process_index(), 0
        while not self._done.wait(self.BEAT):
            beat += 1
            try:
                client.key_value_set(f"{_ALIVE}{me}", str(beat), allow_overwrite=True)
                signs = client.key_value_dir_get(_ALIVE)
            except jax.errors.JaxRuntimeError as error:
                if not self._done.is_set():
                    self.leave(f"process 0, the coordinator, has ended ({processes.first_line(error)})")
                return
            now = self._answered = time.monotonic()
            for key, value in signs:
                index = int(key.rpartition("/")[2])
                if index != me and self._heard.get(index, ("", 0.0))[0] != value:
                    self._heard[index] = value, now
