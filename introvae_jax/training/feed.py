"""Feeds images to the step: streamed batch by batch, or gathered on the device from a resident data set."""

import collections
from collections.abc import Callable, Iterator
from concurrent import futures
import errno
import itertools
import os
from typing import Protocol

import jax
import ml_collections
import numpy as np

from introvae_jax.data import loader
from introvae_jax.data.source import Source
from introvae_jax.errors import UserError, one_line
from introvae_jax.objectives.base import Terms
from introvae_jax.parallel import Replicas
from introvae_jax.training.state import State

LONGEST = 1024  # most steps in one program; a stop signal waits for the end of the program
AHEAD = 2  # batches that are prefetched to the device while a step runs
ROWS_AT_ONCE = 256

Step = Callable[[State, jax.Array], tuple[State, Terms]]


class Feed(Protocol):
    """Runs training steps on batches in the order of the run. longest: most steps in one call of `advance`."""

    longest: int

    def use(self, step: Step) -> None:
        """Sets the step function, a pure function, for the following calls of `advance`."""

    def advance(self, state: State, count: int) -> tuple[State, Terms]:
        """Takes `count` steps. Returns the new state and the terms: scalars if count is 1, otherwise arrays [count]."""


class Streamed:
    """Takes one step per call. The next batches are decoded and copied to the devices during the step."""

    longest = 1

    def __init__(self, batches: Iterator[np.ndarray], replicas: Replicas):
        self._replicas = replicas
        self._batches = _ahead(map(replicas.split, _read(batches)))

    def use(self, step: Step) -> None:
        self._step = self._replicas.map(step)

    def advance(self, state: State, count: int) -> tuple[State, Terms]:
        return self._step(state, next(self._batches))


class Resident:
    """Keeps all images on every device. A program takes the indices of its images and runs any number of steps."""

    def __init__(self, source: Source, order: Iterator[np.ndarray], replicas: Replicas):
        self._replicas, self._order = replicas, order
        self.longest = LONGEST if replicas.loops_are_fast else 1
        size = len(source) * source[np.arange(1)].nbytes
        replicas.require_memory(size, f"config.data.cache = 'device': {len(source):,} images")
        self._images = replicas.replicate(load(source))

    def use(self, step: Step) -> None:
        self._steps = self._replicas.map_resident(step)

    def advance(self, state: State, count: int) -> tuple[State, Terms]:
        rows = np.stack(list(itertools.islice(self._order, count)))
        return self._steps(state, self._replicas.split_rows(rows), self._images)


def create(config: ml_collections.ConfigDict, source: Source, replicas: Replicas, *, start: int = 0) -> Feed:
    """Creates the feed selected by `config.data`. Its first batch is that of step `start` + 1."""
    if config.data.cache == "device":
        order = loader.order(len(source), batch_size=config.batch_size, seed=config.seed)
        return Resident(source, iter(order[start:]), replicas)
    batches = loader.batches(
        source, batch_size=config.batch_size, seed=config.seed, start=start, threads=config.data.threads,
        process_index=jax.process_index(), process_count=jax.process_count(),
    )  # fmt: skip
    return Streamed(batches, replicas)


def load(source: Source) -> np.ndarray:
    """Decodes all images of `source` on all cores. Returns uint8 [N, S, S, C], or points float32 [N, 2]."""
    parts = [np.arange(i, min(i + ROWS_AT_ONCE, len(source))) for i in range(0, len(source), ROWS_AT_ONCE)]
    first = source[parts[0][:1]]
    images = np.empty((len(source), *first.shape[1:]), first.dtype)

    def fill(rows: np.ndarray) -> None:
        images[rows] = source[rows]

    with futures.ThreadPoolExecutor(os.cpu_count()) as pool:
        list(pool.map(fill, parts))
    return images


def _read(batches: Iterator[np.ndarray]) -> Iterator[np.ndarray]:
    """Yields the same batches. Raises OSError for any error of a thread that reads them, as for a disk error."""
    while True:
        try:
            batch = next(batches)
        except StopIteration:
            return
        except (UserError, OSError):
            raise
        except Exception as error:
            raise OSError(errno.EIO, f"a batch of images could not be read ({one_line(error)})") from error
        yield batch


def _ahead(arrays: Iterator[jax.Array]) -> Iterator[jax.Array]:
    """Yields the same arrays and prefetches `AHEAD` of them, so that the copy to the device overlaps the steps."""
    waiting = collections.deque(itertools.islice(arrays, AHEAD))
    for array in arrays:
        waiting.append(array)
        yield waiting.popleft()
