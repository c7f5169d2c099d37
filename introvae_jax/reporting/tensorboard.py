"""TensorBoard's event files, without TensorFlow."""

import math
import pathlib
import time
from typing import Any

import numpy as np
from PIL import Image
from tensorboardX import summary
from tensorboardX.event_file_writer import EventsWriter
from tensorboardX.proto import event_pb2


class TensorBoard:
    """Writes at once, unlike tensorboardX's own writer: an error reaches the caller, where there it hangs a thread.

    start: steps after it that an interrupted run has written are taken back.
    part_bytes: a new file begins after so many, which readers follow; one file without it.
    """

    def __init__(self, folder: pathlib.Path, start: int, part_bytes: float = math.inf):
        folder.mkdir(parents=True, exist_ok=True)
        self._prefix, self._part_bytes, self._part, self._size = str(folder / "events"), part_bytes, 0, 0
        self._events = EventsWriter(self._prefix)
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
            self._events = EventsWriter(self._prefix, f".{self._part:04d}")
        self._events.write_event(event)
        self._size += event.ByteSize()
