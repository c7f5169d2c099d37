"""How images reach the step: streamed to it batch by batch, or gathered on the device from a set that lives there."""

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

LONGEST = 1024  # steps in one program: how long a stop signal may wait
AHEAD = 2  # batches on their way to the device while a step runs
ROWS_AT_ONCE = 256

Step = Callable[[State, jax.Array], tuple[State, Terms]]


class Feed(Protocol):
    """Takes steps on the batches of a run, in their order. `longest`: steps that one call may take."""

    longest: int

    def use(self, step: Step) -> None:
        """Takes `step`, a pure function, from now on."""

    def advance(self, state: State, count: int) -> tuple[State, Terms]:
        """The state after `count` steps, and their terms: scalars of a single step, or arrays [count]."""


class Streamed:
    """One step at a time; the next batches are decoded and travel to the devices meanwhile."""

    longest = 1

    def __init__(self, batches: Iterator[np.ndarray], replicas: Replicas):
        self._replicas = replicas
        self._batches = _ahead(map(replicas.split, _read(batches)))

    def use(self, step: Step) -> None:
        self._step = self._replicas.map(step)

    def advance(self, state: State, count: int) -> tuple[State, Terms]:
        return self._step(state, next(self._batches))


class Resident:
    """All images on every device; any number of steps is one program (`lax.scan`) on the numbers of its images."""

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
    """The feed that `config.data` asks for, beginning with the batch of step `start` + 1."""
    if config.data.cache == "device":
        order = loader.order(len(source), batch_size=config.batch_size, seed=config.seed)
        return Resident(source, iter(order[start:]), replicas)
    batches = loader.batches(
        source, batch_size=config.batch_size, seed=config.seed, start=start, threads=config.data.threads,
        process_index=jax.process_index(), process_count=jax.process_count(),
    )  # fmt: skip
    return Streamed(batches, replicas)


def load(source: Source) -> np.ndarray:
    """All images of `source`, decoded by all cores; uint8 [N, S, S, C], or points float32 [N, 2]."""
    parts = [np.arange(i, min(i + ROWS_AT_ONCE, len(source))) for i in range(0, len(source), ROWS_AT_ONCE)]
    first = source[parts[0][:1]]
    images = np.empty((len(source), *first.shape[1:]), first.dtype)

    def fill(rows: np.ndarray) -> None:
        images[rows] = source[rows]

    with futures.ThreadPoolExecutor(os.cpu_count()) as pool:
        list(pool.map(fill, parts))
    return images


def _read(batches: Iterator[np.ndarray]) -> Iterator[np.ndarray]:
    """The same batches; whatever a thread that reads them dies of becomes an OSError, as a disk's."""
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
    """The same arrays, without end, each asked for while `AHEAD` wait: the copy to the device overlaps the steps."""
    waiting = collections.deque(itertools.islice(arrays, AHEAD))
    for array in arrays:
        waiting.append(array)
        yield waiting.popleft()
