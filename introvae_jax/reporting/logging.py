"""What a run says while it goes: terminal, metrics.jsonl, TensorBoard, and the check for non-finite numbers."""

from collections.abc import Sequence
import json
import math
import pathlib
import sys
import time

import jax
import numpy as np
from PIL import Image
import tqdm

from introvae_jax import disk
from introvae_jax.bucket import Spool
from introvae_jax.evaluation.scores import Score, headlines, number
from introvae_jax.objectives.base import Terms
from introvae_jax.reporting import records
from introvae_jax.reporting.tensorboard import TensorBoard

PART_BYTES = 2**20  # of TensorBoard's events in a bucket, where a growing file is uploaded again and again
RUN_AHEAD = 2  # steps that may be dispatched before an older one is waited for


class NonFinite(Exception):
    """A loss term or gradient norm is infinite or no number at `step`."""

    def __init__(self, message: str, step: int):
        super().__init__(message)
        self.step = step


class Progress:
    """A bar on a terminal, plain lines in a log."""

    def __init__(self, start: int, total: int):
        self._bar = None
        if sys.stderr.isatty():
            self._bar = tqdm.tqdm(initial=start, total=total, unit="step", dynamic_ncols=True, smoothing=0.05)

    def step(self, count: int) -> None:
        if self._bar is not None:
            self._bar.update(count)

    def line(self, text: str) -> None:
        """One line, above the bar if there is one."""
        if self._bar is not None:
            self._bar.write(text, file=sys.stderr)
        else:
            print(text, file=sys.stderr, flush=True)

    def close(self) -> None:
        if self._bar is not None:
            self._bar.close()


class Reporter:
    """Collects the terms of each step and reports their means.

    start: the step that the run goes on from; later records of an interrupted run are dropped. scored: whether the
    evaluation of that step, if there is one, stays.
    enabled: False on processes that write nothing; they still check for non-finite numbers.
    """

    def __init__(
        self, workdir: pathlib.Path, *, start: int, total: int, batch_size: int, enabled: bool, scored: bool = True
    ):
        self.records_path = workdir / "metrics.jsonl"
        self._total, self._batch_size, self._enabled, self._start = total, batch_size, enabled, start
        self._pending: list[tuple[int, Terms]] = []
        self._seconds, self._since, self._timed_steps, self._compiles = 0.0, None, 0, True
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
            self._progress = Progress(start, total)

    def resume(self, *, compiles: bool) -> None:
        """Starts the clock, or goes on. A step that `compiles` is not timed."""
        if compiles:
            self.pause()
        self._compiles = compiles
        if self._since is None and not compiles:
            self._since = time.perf_counter()

    def collect(self, step: int, terms: Terms) -> None:
        """Takes the terms of the steps up to `step`, still on their way from the device.

        terms: scalars of one step, or arrays [K] of the last K. Waits for those of an earlier call.
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
            self._progress.step(count)

    def pause(self) -> None:
        """Stops the clock: what comes next (pictures, checkpoints, compiling) is no training."""
        if self._pending:
            jax.block_until_ready(self._pending[-1][1])
        if self._since is not None:
            self._seconds += time.perf_counter() - self._since
            self._since = None

    def report(self) -> dict[str, float]:
        """Writes and returns the means of all terms since the last report, up to the first non-finite one.

        Raises NonFinite, naming that one's step and term.
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
        record = {"step": last, "kimg": last * self._batch_size / 1000}
        if self._timed_steps:
            record["images_per_second"] = self._batch_size * self._timed_steps / self._seconds
        self._seconds, self._timed_steps = 0.0, 0
        names = dict.fromkeys(name for _, terms in steps for name in terms)
        return record | {n: float(np.mean([terms[n] for _, terms in steps if n in terms])) for n in names}

    def _write(self, record: dict[str, float]) -> None:
        self._append(record)
        self._tensorboard.scalars(record["step"], {n: v for n, v in record.items() if n != "step"})
        self._spool.publish()
        self._progress.line(summary(record, self._total, self._batch_size))

    def losses(self) -> list[dict[str, float]]:
        """The records of training so far, without those of evaluations."""
        found = records.read(self.records_path, records.is_metrics)[0] if self.records_path.exists() else []
        return [record for record in found if "loss_rec" in record and record["step"] <= self._start]

    def scored(self, step: int, scores: Sequence[Score]) -> None:
        """Writes the figures of an evaluation as a record of their own."""
        if not self._enabled:
            return
        figures = {score.name: score.value for score in scores}
        self._append({"step": step, "kimg": step * self._batch_size / 1000} | figures)
        self._tensorboard.scalars(step, {f"eval/{name}": value for name, value in figures.items()})
        self.flush()
        shown = " | ".join(f"{name} {number(figures[name])}" for name in headlines(figures))
        self._progress.line(f"step {step}/{self._total} | evaluation | {shown}")

    def picture(self, name: str, image: Image.Image, step: int) -> None:
        """Shows a picture in TensorBoard."""
        self._tensorboard.image(step, name, image)
        self._spool.publish()

    def flush(self) -> None:
        """Returns once everything written so far lies in the work directory. Raises OSError if it cannot."""
        if self._enabled:
            self._spool.publish()
            self._spool.wait()

    def say(self, text: str) -> None:
        """One line for the reader."""
        if self._enabled:
            self._progress.line(text)

    def _append(self, record: dict[str, float]) -> None:
        disk.require_space(self.records_path.parent, 0, "the log")
        self._records.write(json.dumps(record) + "\n")
        self._records.flush()

    def close(self) -> None:
        if self._enabled:
            self._progress.close()
            self._records.close()
            self._tensorboard.close()
            self._spool.close()


def summary(record: dict[str, float], total: int, batch_size: int) -> str:
    """A record as one line: where the run stands, every loss term, and adversarial health."""
    parts = [f"step {record['step']}/{total}", f"{record['kimg']:.1f} kimg"]
    if "images_per_second" in record:
        left = (total - record["step"]) * batch_size / record["images_per_second"]
        parts.append(f"{record['images_per_second']:.0f} images/s, {duration(left)} left")
    parts.append(f"rec {record['loss_rec']:.2f}")
    kls = [f"{name} {record[f'kl_{name}']:.1f}" for name in ("real", "rec", "fake") if f"kl_{name}" in record]
    parts.append("kl " + " ".join(kls) + (f" gap {record['kl_gap']:+.1f}" if "kl_gap" in record else ""))
    if "hinge_rec_active" in record:
        parts.append(f"hinge rec {record['hinge_rec_active']:.0%} fake {record['hinge_fake_active']:.0%}")
    if "exp_elbo_rec" in record:
        parts.append(f"exp(ELBO) rec {record['exp_elbo_rec']:.3f} fake {record['exp_elbo_fake']:.3f}")
    parts.append(f"loss E {record['loss_encoder']:.2f} D {record['loss_decoder']:.2f}")
    return " | ".join(parts)


def duration(seconds: float) -> str:
    """ "1h02m", "3m05s" or "12s"."""
    minutes, seconds = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    if hours:
        return f"{hours}h{minutes:02d}m"
    return f"{minutes}m{seconds:02d}s" if minutes else f"{seconds}s"


def _single_steps(last: int, terms: Terms) -> list[tuple[int, Terms]]:
    """Scalars, or arrays [K] of the K steps up to `last` -> the terms of each step."""
    count = max(np.size(value) for value in terms.values())
    rows = {name: np.reshape(value, count) for name, value in terms.items()}
    return [(last - count + 1 + k, {name: row[k] for name, row in rows.items()}) for k in range(count)]


def _first_non_finite(steps: list[tuple[int, Terms]]) -> tuple[int, str, float] | None:
    """Step, name and value of the first term that is infinite or no number."""
    for step, terms in steps:
        for name, value in terms.items():
            if not math.isfinite(value):
                return step, name, value
    return None


def _drop_records_after(path: pathlib.Path, step: int, scored: bool) -> None:
    """Forgets records of steps that will be taken again, and of the evaluation at `step` if it will."""
    if path.exists():
        kept = [record for record in records.clean(path, records.is_metrics) if record["step"] <= step]
        kept = [record for record in kept if scored or record["step"] < step or "loss_rec" in record]
        records.write(path, kept)
