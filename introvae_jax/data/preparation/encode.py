"""Encodes images in several processes: every entry of a reader becomes encoded bytes or a reason to skip it."""

import collections
from collections.abc import Iterator, Sequence
from concurrent import futures
import dataclasses
import itertools
import multiprocessing
import os
import signal
import threading
from typing import Any

from introvae_jax import hashes
from introvae_jax.data import images, jpeg
from introvae_jax.data.preparation.spec import DatasetSpec
from introvae_jax.data.readers.base import Reader
from introvae_jax.errors import UserError

AHEAD = 4  # tasks queued for each worker
PIXELS_PER_TASK = 2**20


@dataclasses.dataclass(frozen=True)
class EncodedImage:
    """The result of one entry.

    data: the encoded image, None if it is skipped. digest: of its pixels, to find duplicates in any encoding. width,
    height: of the original, in pixels. changes: beyond cropping and shrinking. reason: why it is skipped.
    """

    data: bytes | None
    digest: str = ""
    width: int = 0
    height: int = 0
    changes: tuple[str, ...] = ()
    reason: str = ""

    def record(self) -> dict[str, Any]:
        """The metadata for the shard's record, as JSON."""
        if self.data is None:
            return {"reason": self.reason}
        return {"digest": self.digest, "size": f"{self.width}x{self.height}", "changes": list(self.changes)}


def encode_entry(reader: Reader, spec: DatasetSpec, entry: int) -> EncodedImage:
    """Reads, decodes and encodes one entry. An image that already has the target form keeps its bytes."""
    try:
        data = reader.read(entry)
        decoded = images.decode(data, spec.target)
    except images.BadImage as error:
        return EncodedImage(None, reason=str(error))
    is_jpeg = isinstance(data, bytes) and data[:2] == b"\xff\xd8"
    flaw = jpeg.flaw(data) if isinstance(data, bytes) and is_jpeg else ""
    changes = (*decoded.changes, flaw) if flaw else decoded.changes
    keeps = decoded.fits and not flaw and (spec.encoding == "png" or is_jpeg)
    encoded = data if isinstance(data, bytes) and keeps else images.encode(decoded.array, spec.encoding, spec.quality)
    pixels = hashes.sha256(decoded.array.tobytes())[:32]
    return EncodedImage(encoded, pixels, decoded.width, decoded.height, changes)


def encode_all(reader: Reader, spec: DatasetSpec, entries: Sequence[int], workers: int) -> Iterator[EncodedImage]:
    """Yields the encoded `entries` in order; `workers` processes encode them.

    Raises UserError if a worker dies or memory runs out.
    """
    if not entries:
        return
    size = max(1, min(64, PIXELS_PER_TASK // spec.target.size**2))
    tasks = [entries[i : i + size] for i in range(0, len(entries), size)]
    pool = futures.ProcessPoolExecutor(
        workers, multiprocessing.get_context("spawn"), initializer=_start_worker, initargs=(reader, spec)
    )
    try:
        submitted = (pool.submit(_encode_task, task) for task in tasks)
        running = collections.deque(itertools.islice(submitted, workers * AHEAD))
        while running:
            encoded = running.popleft().result()
            running.extend(itertools.islice(submitted, 1))
            yield from encoded
    except futures.process.BrokenProcessPool as error:
        raise UserError(
            "a worker process died, which happens when memory runs out or a database is damaged; rerun the same "
            "command to resume from the last complete shard, with a lower --workers if memory is short"
        ) from error
    except MemoryError as error:
        raise UserError("out of memory; rerun the same command with a lower --workers to resume") from error
    finally:
        pool.shutdown(wait=False, cancel_futures=True)


_reader: Reader  # of a worker process
_spec: DatasetSpec


def _start_worker(reader: Reader, spec: DatasetSpec) -> None:
    global _reader, _spec
    _reader, _spec = reader, spec
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the parent handles Ctrl-C and ends the workers
    threading.Thread(target=_end_with_parent, daemon=True).start()


def _end_with_parent() -> None:
    """Ends a worker whose parent was killed; otherwise it would wait for tasks forever."""
    parent = multiprocessing.parent_process()
    assert parent is not None  # this runs in a worker
    parent.join()
    os._exit(1)


def _encode_task(entries: Sequence[int]) -> list[EncodedImage]:
    return [encode_entry(_reader, _spec, entry) for entry in entries]
