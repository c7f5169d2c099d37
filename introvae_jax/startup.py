"""Setup of a command before its slow imports: signal handlers, and a standard output that cannot fail.

Python's KeyboardInterrupt is lost if a C++ library calls back into Python, and is delayed while a library computes.
Here a thread receives the signals, so the process reacts immediately whatever the main thread does.
"""

from collections.abc import Callable
import errno
import io
import os
import select
import signal
import socket
import sys
import threading
from types import FrameType
from typing import Any, TextIO

SIGHUP = getattr(signal, "SIGHUP", None)  # Windows has none
HANDLED = (signal.SIGINT, signal.SIGTERM) if SIGHUP is None else (signal.SIGINT, signal.SIGTERM, SIGHUP)
receivers: list[Callable[[int], None]] = []  # the last one is called; without any, the process ends
_threads: list[threading.Thread] = []


def start() -> None:
    """Makes standard output safe and handles signals. Call it in the main thread, before other imports."""
    _open_missing_streams()
    sys.stdout, sys.stderr = _safe(sys.stdout, 1), _safe(sys.stderr, 2)
    reader, writer = socket.socketpair()  # on Windows a pipe always blocks
    writer.setblocking(False)
    _threads.append(threading.Thread(target=_listen, args=(reader,), daemon=True))
    _threads[0].start()
    signal.set_wakeup_fd(writer.detach(), warn_on_full_buffer=False)
    for number in HANDLED:
        if signal.getsignal(number) is not signal.SIG_IGN:  # nohup and a shell's & ignore signals
            signal.signal(number, handle)


def handle(number: int, _: FrameType | None) -> None:
    """The signal handler. Does nothing in a command, where the thread receives the signal."""
    if not _threads:
        _receive(number)


def end(number: int) -> None:
    """Ends the process immediately, with one line and the exit status that a shell reports for this signal."""
    line = f"introvae_jax: error: {signal.Signals(number).name}: interrupted; what was written before stays\n"
    # Not through sys.stderr: the main thread may hold its lock, or a full pipe may block it forever.
    try:
        if select.select([], [2], [], 1)[1]:
            os.write(2, line.encode())
    finally:
        os._exit(128 + number)


def _listen(reader: socket.socket) -> None:
    """Reads the numbers of signals, which Python's C handler writes to a pipe, and handles them."""
    while True:
        number = reader.recv(1)[0]
        if signal.getsignal(number) is handle:
            _receive(number)


def _receive(number: int) -> None:
    (receivers[-1] if receivers else end)(number)


class _Unfailing(io.FileIO):
    """A standard stream that ignores write errors: a closed terminal or pipe or a full disk does not end a run."""

    _failed = False

    def write(self, data: Any) -> int:  # whatever has a buffer
        try:
            written = super().write(data)
        except OSError as error:
            written = None
            if self.fileno() == 1 and not self._failed and error.errno != errno.EPIPE:  # a closed pipe: `| head`
                print(f"introvae_jax: warning: cannot write to standard output: {error.strerror}", file=sys.stderr)
            self._failed = True
        return memoryview(data).nbytes if written is None else written  # None: a full non-blocking pipe


def _safe(stream: TextIO | None, descriptor: int) -> io.TextIOWrapper:
    """The same stream, but it escapes characters that its encoding lacks and ignores write errors."""
    return io.TextIOWrapper(
        io.BufferedWriter(_Unfailing(descriptor, "w", closefd=False)),
        encoding=stream.encoding if stream else "utf-8", errors="backslashreplace", newline="\n",
        line_buffering=True, write_through=bool(getattr(stream, "write_through", False)),
    )  # fmt: skip


def _open_missing_streams() -> None:
    """Opens /dev/null for closed standard streams; otherwise a file would get their descriptor and output."""
    for descriptor in (0, 1, 2):
        try:
            os.fstat(descriptor)
        except OSError:
            os.set_inheritable(
                os.open(os.devnull, os.O_RDWR), True
            )  # gets the lowest free descriptor, which is this one
