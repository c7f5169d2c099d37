"""Ends this process when another one of the job is gone or a step does not end, with one line."""

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
    """While entered, ends this process with one line when another is gone or a step does not end.

    peer_timeout: seconds without a sign of life of another process. step_timeout: seconds that a step may take, 0 for
    any.
    """

    BEAT = 1.0  # seconds between two signs of life

    def __init__(self, peer_timeout: float, step_timeout: float):
        self._peer_timeout, self._step_timeout = peer_timeout, step_timeout
        self._last_good = "no checkpoint had been written"
        self._since: float | None = None  # when the step that is waited for began
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
        """What to say about the last good checkpoint from now on."""
        self._last_good = last_good

    @contextlib.contextmanager
    def expecting(self, what: str) -> Iterator[None]:
        """While entered, what is done should end within `step_timeout`."""
        self._doing, self._since = what, time.monotonic()
        try:
            yield
        finally:  # a non-finite number may send the run back, and it goes on
            self._since = None

    def leave(self, reason: str) -> NoReturn:
        """Ends the process at once, without waiting for others: there is nobody to wait for."""
        processes.leave(f"{reason}: stopped, {self._last_good}; the same command goes on from there", EXIT_RETRY)

    def _guard(self) -> None:
        """Looks at the clocks."""
        while not self._done.wait(self.BEAT):
            now, since = time.monotonic(), self._since
            if self._step_timeout and since is not None and now - since > self._step_timeout:
                self.leave(f"{self._doing} has taken more than {self._step_timeout:g} s (--step_timeout)")
            if not processes.several():
                continue
            if now - self._answered > self._peer_timeout:
                self.leave(
                    f"process 0, the coordinator, has not answered for {self._peer_timeout:g} s (--peer_timeout)"
                )
            for index, (_, heard) in self._heard.copy().items():
                if now - heard > self._peer_timeout:
                    self.leave(
                        f"process {index} has given no sign of life for {self._peer_timeout:g} s (--peer_timeout)"
                    )

    def _listen(self) -> None:
        """Gives and takes signs of life; a call that hangs is noticed by the guard."""
        client, me, beat = processes.key_value_store(), jax.process_index(), 0
        while not self._done.wait(self.BEAT):
            beat += 1
            try:
                client.key_value_set(f"{_ALIVE}{me}", str(beat), allow_overwrite=True)
                signs = client.key_value_dir_get(_ALIVE)
            except jax.errors.JaxRuntimeError as error:
                if not self._done.is_set():
                    self.leave(f"process 0, the coordinator, is gone ({processes.first_line(error)})")
                return
            now = self._answered = time.monotonic()
            for key, value in signs:
                index = int(key.rpartition("/")[2])
                if index != me and self._heard.get(index, ("", 0.0))[0] != value:
                    self._heard[index] = value, now
