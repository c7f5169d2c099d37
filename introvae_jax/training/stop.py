"""Turns SIGTERM, SIGHUP and Ctrl-C into a stop request, which the train loop checks between steps."""

from collections.abc import Callable
import contextlib
import os
import signal
import sys
import threading
from types import FrameType
from typing import Any

from jax.experimental import multihost_utils

from introvae_jax import processes, startup

Handler = Callable[[int, FrameType | None], Any] | int | None  # what signal.signal returns


class StopRequest(contextlib.AbstractContextManager["StopRequest"]):
    """Context in which the first signal only sets `requested`; a second signal ends the process immediately.

    In a job of several processes any process may receive the signal: JAX's runtime, which then handles SIGTERM, chooses
    one step at which all processes stop. Signals are handled only if the context is entered in the main thread.
    """

    def __init__(self) -> None:
        self.requested: str | None = None
        self._looks = 0
        self._received = False
        self._previous: dict[int, Handler] = {}

    def __enter__(self) -> "StopRequest":
        if threading.current_thread() is threading.main_thread():
            startup.receivers.append(self._receive)
            numbers = [n for n in startup.HANDLED if n != signal.SIGTERM or not processes.several()]
            for number in numbers:
                if number != startup.SIGHUP or signal.getsignal(number) is not signal.SIG_IGN:  # as under nohup
                    self._previous[number] = signal.signal(number, startup.handle)
        return self

    def __exit__(self, *_: object) -> None:
        for number, handler in self._previous.items():
            signal.signal(number, signal.SIG_DFL if handler is None else handler)
        if self._receive in startup.receivers:
            startup.receivers.remove(self._receive)

    def agreed(self) -> bool:
        """True if all processes stop at this step. Every process must call it equally often."""
        if processes.several():
            self._looks += 1
            if multihost_utils.reached_preemption_sync_point(self._looks):
                self.requested = signal.SIGTERM.name
        return self.requested is not None

    def _receive(self, number: int) -> None:
        if self._received:
            startup.end(number)
        self._received = True
        name = signal.Signals(number).name
        advice = "a second one, or Ctrl-C, stops at once without saving"
        print(f"{name}: saving a checkpoint, then stopping; {advice}", file=sys.stderr, flush=True)
        if processes.several():
            os.kill(os.getpid(), signal.SIGTERM)
        else:
            self.requested = name
