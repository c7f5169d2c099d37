"""SIGTERM and Ctrl-C as a request that the loop looks at between two steps."""

import contextlib
import signal
import sys


class StopRequest(contextlib.AbstractContextManager):
    """While entered, the first signal only sets `requested`; a second one ends the process at once."""

    SIGNALS = (signal.SIGTERM, signal.SIGINT)

    def __init__(self) -> None:
        self.requested: str | None = None

    def __enter__(self) -> "StopRequest":
        self._previous = {s: signal.signal(s, self._handle) for s in self.SIGNALS}
        return self

    def __exit__(self, *_) -> None:
        for number, handler in self._previous.items():
            signal.signal(number, handler)

    def _handle(self, number: int, _) -> None:
        self.requested = signal.Signals(number).name
        print(f"{self.requested}: saving soon; once more ends at once", file=sys.stderr, flush=True)
        for each, handler in self._previous.items():
            signal.signal(each, handler)
