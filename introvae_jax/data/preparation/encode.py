"""Converting images by several processes: every entry of a form becomes encoded bytes, or the reason why not."""

import collections
from collections.abc import Iterator, Sequence
from concurrent import futures
import dataclasses
import hashlib
import itertools
import multiprocessing
import os
import signal
import threading
from typing import Any

from introvae_jax.data import images
from introvae_jax.data.preparation.spec import Plan
from introvae_jax.data.readers.base import Form
from introvae_jax.errors import UserError

AHEAD = 4  # tasks waiting for each worker
PIXELS_PER_TASK = 2**20


@dataclasses.dataclass(frozen=True)
class Outcome:
    """What became of one entry.

    data: the encoded image, None if there is none. digest: of its pixels, so that the same image is known
    again in whatever encoding. width, height: of the original. changes: beyond cropping and shrinking.
    reason: why it was left out.
    """

    data: bytes | None
    digest: str = ""
    width: int = 0
    height: int = 0
    changes: tuple[str, ...] = ()
    reason: str = ""

    def record(self) -> dict[str, Any]:
        """What is kept of it beside the data."""
        if self.data is None:
            return {"reason": self.reason}
        return {"digest": self.digest, "size": f"{self.width}x{self.height}", "changes": list(self.changes)}


def convert(form: Form, plan: Plan, entry: int) -> Outcome:
    """Reads, decodes and encodes one entry. An image that fits keeps its bytes."""
    try:
        data = form.read(entry)
        decoded = images.decode(data, plan.target)
    except images.BadImage as error:
        return Outcome(None, reason=str(error))
    changes = (*decoded.changes, flaw) if (flaw := images.flaw(data)) else decoded.changes
    keeps = decoded.fits and not flaw and (plan.encoding == "png" or data[:2] == b"\xff\xd8")
    encoded = data if keeps else images.encode(decoded.array, plan.encoding, plan.quality)
    pixels = hashlib.sha256(decoded.array.tobytes()).hexdigest()[:32]
    return Outcome(encoded, pixels, decoded.width, decoded.height, changes)


def convert_all(form: Form, plan: Plan, entries: Sequence[int], workers: int) -> Iterator[Outcome]:
    """The outcomes of `entries`, in order, made by `workers` processes."""
    if not entries:
        return
    size = max(1, min(64, PIXELS_PER_TASK // plan.target.size**2))
    tasks = [entries[i : i + size] for i in range(0, len(entries), size)]
    pool = futures.ProcessPoolExecutor(
        workers, multiprocessing.get_context("spawn"), initializer=_start_worker, initargs=(form, plan)
    )
    try:
        submitted = (pool.submit(_convert_task, task) for task in tasks)
        running = collections.deque(itertools.islice(submitted, workers * AHEAD))
        while running:
            outcomes = running.popleft().result()
            running.extend(itertools.islice(submitted, 1))
            yield from outcomes
    except futures.process.BrokenProcessPool as error:
        raise UserError(
            "a worker process died, as they do when memory runs out or a database is damaged; the same command goes on "
            "from the last whole shard, and a lower --workers needs less memory"
        ) from error
    except MemoryError as error:
        raise UserError("out of memory; the same command goes on, with a lower --workers") from error
    finally:
        pool.shutdown(wait=False, cancel_futures=True)


def _start_worker(form: Form, plan: Plan) -> None:
    global _form, _plan
    _form, _plan = form, plan
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is for the parent, which ends the workers
    threading.Thread(target=_end_with_parent, daemon=True).start()


def _end_with_parent() -> None:
    """A worker whose parent was killed would wait for tasks for ever."""
    multiprocessing.parent_process().join()
    os._exit(1)


def _convert_task(entries: Sequence[int]) -> list[Outcome]:
    return [convert(_form, _plan, entry) for entry in entries]
