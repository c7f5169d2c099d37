"""Traces selected steps, devices and threads included, for XProf, TensorBoard or Perfetto."""

import contextlib
import pathlib
import re
import tempfile

from etils import epath
import jax

from introvae_jax.errors import UserError

FOLDER = "profile"  # in the work directory
FORM = re.compile(r"([1-9]\d*)(?::([1-9]\d*))?")


class Trace:
    """A trace of the steps FIRST to LAST, counted from 1, both included. A run takes one trace.

    asked: "FIRST:LAST", "STEP", or "" for no trace. Raises UserError if it is none of these.
    """

    def __init__(self, asked: str = ""):
        match = FORM.fullmatch(asked)
        self._first, self._last = (int(match[1]), int(match[2] or match[1])) if match else (0, 0)
        if asked and not 1 <= self._first <= self._last:
            raise UserError(f"--profile={asked}: must be a step or FIRST:LAST, counted from 1, for instance 500:505")
        self._running: tempfile.TemporaryDirectory[str] | None = None

    def is_past(self, step: int) -> bool:
        """True if the first step of the trace is not after `step`."""
        return 0 < self._first <= step

    def room(self, step: int) -> int:
        """The number of steps after `step` up to the next beginning or end of the trace."""
        return next((edge - step for edge in (self._first - 1, self._last) if edge > step), 2**31)

    def steps_after(self, step: int) -> contextlib.AbstractContextManager[object]:
        """Context for the next steps. Starts the trace before its first step."""
        if self._running is None and step + 1 == self._first:
            self._running = tempfile.TemporaryDirectory(prefix="introvae_jax_")
            jax.profiler.start_trace(self._running.name, create_perfetto_trace=True)
        return jax.profiler.StepTraceAnnotation("train", step_num=step + 1)

    def ends(self, step: int) -> bool:
        """True if `step` is the last one of the trace. Wait for its results before `save`."""
        return self._running is not None and step >= self._last

    def save(self, workdir: pathlib.Path | epath.Path) -> pathlib.Path | epath.Path:
        """Ends the trace and returns its folder."""
        jax.profiler.stop_trace()
        target = workdir / FOLDER
        if jax.process_count() > 1:
            target /= f"process_{jax.process_index()}"
        assert self._running is not None
        with self._running as folder:
            for file in filter(pathlib.Path.is_file, pathlib.Path(folder).rglob("*")):
                place = target / str(file.relative_to(folder))
                place.parent.mkdir(parents=True, exist_ok=True)
                place.write_bytes(file.read_bytes())
        self._running = None
        return target

    def close(self) -> None:
        """Discards a trace whose last step was not reached."""
        if self._running is not None:
            jax.profiler.stop_trace()
            self._running.cleanup()
            self._running = None
