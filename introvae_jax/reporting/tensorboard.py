"""TensorBoard's event files, without TensorFlow."""

import math
import pathlib
import re
import socket
import time
from typing import Any

import numpy as np
from PIL import Image
from tensorboardX import summary
from tensorboardX.proto import event_pb2
from tensorboardX.record_writer import RecordWriter


class TensorBoard:
    """Writes synchronously, unlike tensorboardX's own writer, whose thread hangs on errors: here the caller gets them.

    start: later steps, which an interrupted run has written, are invalidated.
    part_bytes: bytes after which a new file begins; by default there is a single file.
    published: the folder of the files of earlier starts, by default `folder`.
    """

    def __init__(
        self, folder: pathlib.Path, start: int, part_bytes: float = math.inf, published: pathlib.Path | None = None
    ):
        folder.mkdir(parents=True, exist_ok=True)
        stamp = _stamp_after(published or folder)
        self._path = str(folder / f"events.out.tfevents.{stamp:010d}.{socket.gethostname()}")
        self._part_bytes, self._part, self._size = part_bytes, 0, 0
        self._open(self._path)
        restart = event_pb2.SessionLog(status=event_pb2.SessionLog.START)
        self._write(start + 1, session_log=restart)

    def scalars(self, step: int, values: dict[str, float]) -> None:
        for name, value in values.items():
            self._write(step, summary=summary.scalar(name, value))
        self._events.flush()

    def image(self, step: int, name: str, picture: Image.Image) -> None:
        array = np.asarray(picture.convert("RGB"))
        self._write(step, summary=summary.image(name, array, dataformats="HWC"))
        self._events.flush()

    def close(self) -> None:
        self._events.close()

    def _write(self, step: int, **content: Any) -> None:
        event = event_pb2.Event(wall_time=time.time(), step=step, **content)
        if self._size > self._part_bytes:
            self._events.close()
            self._part, self._size = self._part + 1, 0
            self._open(f"{self._path}.{self._part:04d}")
        self._events.write(event.SerializeToString())
        self._size += event.ByteSize()

    def _open(self, path: str) -> None:
        self._events = RecordWriter(path)
        self._events.write(event_pb2.Event(wall_time=time.time(), file_version="brain.Event:2").SerializeToString())


def _stamp_after(folder: pathlib.Path) -> int:
    """The time in seconds, but above all earlier stamps: readers sort files by name, and clocks may be set back."""
    names = [path.name for path in folder.iterdir()] if folder.is_dir() else []
    found = [int(match[1]) for name in names if (match := re.search(r"\.tfevents\.(\d{10})\.", name))]
    return max([int(time.time()), *(stamp + 1 for stamp in found)])
