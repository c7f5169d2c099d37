"""Reports of a run: log lines, metrics.jsonl and TensorBoard, with a check for non-finite numbers."""

from collections.abc import Callable, Sequence
import json
import math
import pathlib
import time

import jax
import numpy as np
from PIL import Image

from introvae_jax import disk, progress
from introvae_jax.bucket import Spool
from introvae_jax.evaluation.results import Result
from introvae_jax.formatting import duration, number
from introvae_jax.metrics import headlines
from introvae_jax.objectives.base import Objective, Terms
from introvae_jax.reporting import records
from introvae_jax.reporting.tensorboard import TensorBoard
from introvae_jax.reporting.time_left import Pauses

PART_BYTES = 2**20  # of an event file in a bucket, where a file is uploaded again each time it grows
RUN_AHEAD = 2  # most steps that are dispatched and not yet waited for
# TensorBoard's group of a term, by the prefix of its name; the rest of the name follows the slash.
GROUPS = ("loss", "kl", "hinge", "exp_elbo", "grad_norm")
OTHER_TAGS = {
    "learning_rate": "optim/learning_rate", "images_per_second": "speed/images_per_second", "kimg": "speed/kimg",
    "seconds": "speed/seconds",
}  # fmt: skip
NO_TERMS = ("step", "kimg", "images_per_second", "seconds", "wall_time", "learning_rate")  # of a record


class NonFinite(Exception):
    """A loss term or gradient norm is infinite or NaN at `step`."""

    def __init__(self, message: str, step: int):
        super().__init__(message)
        self.step = step


class Reporter:
    """Collects the terms of each step and reports their means.

    start: the step from which the run resumes; later records of an interrupted run are dropped. scored: True to keep
    the evaluation of that step.
    enabled: False on processes that write nothing; they still check for non-finite numbers.
    learning_rate: by step. pauses: the work besides steps, for the time left. objective: adds its part to log lines.
    """

    def __init__(
        self, workdir: pathlib.Path, *, start: int, total: int, batch_size: int, enabled: bool, scored: bool = True,
        learning_rate: Callable[[int], float] | None = None, pauses: Pauses | None = None,
        objective: type[Objective] = Objective,
    ):  # fmt: skip
        self.records_path = workdir / "metrics.jsonl"
        self._total, self._batch_size, self._enabled, self._start = total, batch_size, enabled, start
        self._pending: list[tuple[int, Terms]] = []
        self._since: float | None = None
        self._seconds, self._timed_steps, self._compiles = 0.0, 0, True
        self._learning_rate, self._pauses, self._objective = learning_rate, pauses, objective
        if enabled:
            self._spool = Spool(workdir)
            self.records_path = self._spool.local / "metrics.jsonl"
            for name in ("metrics.jsonl", "metrics.jsonl.bad"):
                self._spool.fetch(name)
            _drop_records_after(self.records_path, start, scored)
            self._records = self.records_path.open("a", encoding="utf-8")
            part_bytes = PART_BYTES if self._spool.remote else math.inf
            events = self._spool.local / "tensorboard"
            self._tensorboard = TensorBoard(events, start, part_bytes, published=workdir / "tensorboard")
            trained = max((record.get("seconds", 0.0) for record in self._written()), default=0.0)
            self._began = time.monotonic() - trained  # as if the run had never been stopped
            self._training = progress.phase("training", total, "steps", done=start, stays=True)

    def resume(self, *, compiles: bool) -> None:
        """Starts or continues the clock. A step that `compiles` is not timed."""
        if compiles:
            self.pause()
        self._compiles = compiles
        if self._since is None and not compiles:
            self._since = time.perf_counter()

    def collect(self, step: int, terms: Terms) -> None:
        """Collects the terms of the steps up to `step`, which may not be computed yet (asynchronous dispatch).

        terms: scalars of one step, or arrays [K] of the last K. Blocks until the terms of an earlier call are computed.
        """
        count = max(np.size(next(iter(terms.values()))), 1)
        self._pending.append((step, terms))
        if len(self._pending) > RUN_AHEAD:
            jax.block_until_ready(self._pending[-1 - RUN_AHEAD][1])
        if self._compiles:
            jax.block_until_ready(terms)
        else:
            self._timed_steps += count
        if self._enabled:
            self._training.advance(count)

    def pause(self) -> None:
        """Stops the clock, for work besides steps: pictures, checkpoints, compilation."""
        if self._pending:
            jax.block_until_ready(self._pending[-1][1])
        if self._since is not None:
            self._seconds += time.perf_counter() - self._since
            self._since = None

    def report(self) -> dict[str, float]:
        """Writes and returns the means of all terms since the last report, up to the first non-finite one.

        Raises NonFinite with the step and the term of a non-finite one.
        """
        self.pause()
        steps = [single for last, terms in self._pending for single in _single_steps(last, jax.device_get(terms))]
        self._pending.clear()
        found = _first_non_finite(steps)
        good = [(step, terms) for step, terms in steps if found is None or step < found[0]]
        record = self._means(good) if good else {}
        if record and self._enabled:
            self._write(record)
        if found is not None:
            step, name, value = found
            raise NonFinite(f"{name} is {value} at step {step}", step)
        return record

    def _means(self, steps: list[tuple[int, Terms]]) -> dict[str, float]:
        last = steps[-1][0]
        record = self._place(last)
        if self._learning_rate is not None:
            record["learning_rate"] = self._learning_rate(last)
        if self._timed_steps:
            record["images_per_second"] = self._batch_size * self._timed_steps / self._seconds
        self._seconds, self._timed_steps = 0.0, 0
        names = dict.fromkeys(name for _, terms in steps for name in terms)
        return record | {n: float(np.mean([terms[n] for _, terms in steps if n in terms])) for n in names}

    def _place(self, step: int) -> dict[str, float]:
        """The first fields of every record: step and times. seconds: of training, including earlier starts."""
        place = {"step": step, "kimg": step * self._batch_size / 1000}
        if self._enabled:
            place |= {"seconds": round(time.monotonic() - self._began, 3), "wall_time": round(time.time(), 3)}
        return place

    def _write(self, record: dict[str, float]) -> None:
        self._append(record)
        shown = {tag(name): value for name, value in record.items() if name not in ("step", "wall_time")}
        self._tensorboard.scalars(int(record["step"]), shown)
        self._spool.publish()
        progress.say(summary(record, self._total, self._batch_size, self._pauses, self._objective))

    def _written(self) -> list[dict[str, float]]:
        return records.read(self.records_path, records.is_metrics)[0] if self.records_path.exists() else []

    def losses(self) -> list[dict[str, float]]:
        """The records of training so far, without those of evaluations."""
        return [record for record in self._written() if "loss_rec" in record and record["step"] <= self._start]

    def scored(self, step: int, results: Sequence[Result]) -> None:
        """Writes the results of an evaluation as a record of their own."""
        if not self._enabled:
            return
        values = {result.name: result.value for result in results}
        self._append(self._place(step) | values)
        self._tensorboard.scalars(step, {f"eval/{name}": value for name, value in values.items()})
        self.flush()
        shown = " | ".join(f"{name} {number(values[name])}" for name in headlines(values))
        progress.say(f"step {step}/{self._total} | evaluation | {shown}")

    def picture(self, name: str, image: Image.Image, step: int) -> None:
        """Writes a picture to TensorBoard."""
        self._tensorboard.image(step, f"pictures/{name}", image)
        self._spool.publish()

    def flush(self) -> None:
        """Blocks until everything written so far is in the work directory. Raises OSError if it cannot be written."""
        if self._enabled:
            self._spool.publish()
            self._spool.wait()

    def say(self, text: str) -> None:
        """Prints a log line."""
        if self._enabled:
            progress.say(text)

    def _append(self, record: dict[str, float]) -> None:
        disk.require_space(self.records_path.parent, 0, "the log")
        self._records.write(json.dumps(record) + "\n")
        self._records.flush()

    def close(self) -> None:
        if self._enabled:
            self._training.close()
            self._records.close()
            self._tensorboard.close()
            self._spool.close()


def tag(name: str) -> str:
    """A term's tag in TensorBoard, which groups tags by the part before the slash: "kl_real" becomes "kl/real"."""
    group = next((group for group in GROUPS if name.startswith(f"{group}_")), None)
    return OTHER_TAGS.get(name) or (f"{group}/{name.removeprefix(f'{group}_')}" if group else f"terms/{name}")


def summary(
    record: dict[str, float], total: int, batch_size: int, pauses: Pauses | None = None,
    objective: type[Objective] = Objective,
) -> str:  # fmt: skip
    """A record as a log line: progress, loss terms, and the part of the objective.

    pauses: the work besides steps, for the time left; "at least" if one kind of it has not been measured yet.
    """
    parts = [f"step {record['step']}/{total}", f"{record['kimg']:.1f} kimg"]
    if "images_per_second" in record:
        left, least = (total - record["step"]) * batch_size / record["images_per_second"], ""
        if pauses is not None:
            left, least = left + pauses.left(int(record["step"])), "" if pauses.all_seen else "at least "
        parts.append(f"{record['images_per_second']:.0f} images/s, {least}{duration(left)} left")
    parts.append(f"error {record['loss_rec']:.2f}")
    kls = [f"{name} {record[f'kl_{name}']:.1f}" for name in ("real", "rec", "fake") if f"kl_{name}" in record]
    parts.append("kl " + " ".join(kls) + (f" gap {record['kl_gap']:+.1f}" if "kl_gap" in record else ""))
    parts += objective.describe(record)
    parts.append(f"loss E {record['loss_encoder']:.2f} D {record['loss_decoder']:.2f}")
    return " | ".join(parts)


def _single_steps(last: int, terms: Terms) -> list[tuple[int, Terms]]:
    """Scalars, or arrays [K] of the K steps up to `last` -> the terms of each step."""
    count = max(np.size(value) for value in terms.values())
    rows = {name: np.reshape(value, count) for name, value in terms.items()}
    return [(last - count + 1 + k, {name: row[k] for name, row in rows.items()}) for k in range(count)]


def _first_non_finite(steps: list[tuple[int, Terms]]) -> tuple[int, str, float] | None:
    """Step, name and value of the first term that is infinite or NaN."""
    for step, terms in steps:
        for name, value in terms.items():
            if not math.isfinite(value):
                return step, name, float(value)
    return None


def _drop_records_after(path: pathlib.Path, step: int, scored: bool) -> None:
    """Removes records of steps that will be taken again, and of the evaluation at `step` unless `scored`."""
    if path.exists():
        kept = [record for record in records.clean(path, records.is_metrics) if record["step"] <= step]
        kept = [record for record in kept if scored or record["step"] < step or "loss_rec" in record]
        records.write(path, kept)
