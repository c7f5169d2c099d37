"""TensorBoard's event files, without TensorFlow."""

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
    """

    def __init__(self, folder: pathlib.Path, start: int):
        folder.mkdir(parents=True, exist_ok=True)
        self._events = EventsWriter(str(folder / "events"))
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
        self._events.write_event(event_pb2.Event(wall_time=time.time(), step=step, **content))
