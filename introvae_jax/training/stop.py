"""SIGTERM and Ctrl-C as a request that the loop looks at between two steps."""

import contextlib
import os
import signal
import sys

from jax.experimental import multihost_utils

from introvae_jax import processes


class StopRequest(contextlib.AbstractContextManager):
    """While entered, the first signal only sets `requested`; a second one ends the process at once.

    Of several processes each may be told; JAX's runtime, which then holds SIGTERM, agrees on where all stop.
    """

    def __init__(self) -> None:
        self.requested: str | None = None
        self._looks = 0
        self._signals = (signal.SIGINT,) if processes.several() else (signal.SIGTERM, signal.SIGINT)

    def __enter__(self) -> "StopRequest":
        handle = self._pass_on if processes.several() else self._handle
        self._previous = {s: signal.signal(s, handle) for s in self._signals}
        return self

    def __exit__(self, *_) -> None:
        for number, handler in self._previous.items():
            signal.signal(number, handler)

    def agreed(self) -> bool:
        """Whether all processes stop here. Every one of them asks equally often."""
        if processes.several():
            self._looks += 1
            if multihost_utils.reached_preemption_sync_point(self._looks):
                self.requested = signal.SIGTERM.name
        return self.requested is not None

    def _handle(self, number: int, _) -> None:
        self.requested = signal.Signals(number).name
        print(f"{self.requested}: saving soon; once more ends at once", file=sys.stderr, flush=True)
        for each, handler in self._previous.items():
            signal.signal(each, handler)

    def _pass_on(self, number: int, _) -> None:
        os.kill(os.getpid(), signal.SIGTERM)
