"""The order of the images. The batch of step s depends on the seed and s only, not on the number of processes."""

from collections.abc import Iterator
import os

import grain
import numpy as np

from introvae_jax.data.source import Source

PASSES = 2**32  # of all images, in effect endless; unlike Grain's infinity, divisible by any batch size
MAX_THREADS = 32  # more only wait for Python's global interpreter lock


def order(count: int, *, batch_size: int, seed: int) -> grain.MapDataset:
    """The indices of the global batches 0, 1, ... without end: int [batch_size] each, shuffled anew in each pass.

    A batch is a pure function of `seed` and its number, so a run's place in its data is its step alone.
    """
    return grain.MapDataset.range(count).seed(seed).shuffle().repeat(PASSES).batch(batch_size).map(np.asarray)


def batches(
    source: Source, *, batch_size: int, seed: int, start: int = 0, process_index: int = 0, process_count: int = 1,
    threads: int = 0,
) -> Iterator[np.ndarray]:  # fmt: skip
    """This process's part of the global batches `start`, `start` + 1, ...; uint8 [batch_size / process_count, S, S, C].

    A process decodes the rows of its own slice only, in `threads` threads (0: one for each core, up to 32); decoding
    releases Python's global interpreter lock.
    """
    rows = batch_size // process_count
    mine = slice(process_index * rows, (process_index + 1) * rows)
    loaded = order(len(source), batch_size=batch_size, seed=seed).map(lambda indices: source[indices[mine]])
    return _read_ahead(loaded[start:], threads)


def once(source: Source, rows: np.ndarray, *, batch_size: int, threads: int = 0) -> Iterator[np.ndarray]:
    """The images `rows` of `source`, each once and in this order, `batch_size` at a time; the last may be fewer."""
    loaded = grain.MapDataset.range(len(rows)).batch(batch_size).map(lambda places: source[rows[np.asarray(places)]])
    return _read_ahead(loaded, threads)


def _read_ahead(dataset: grain.MapDataset, threads: int) -> Iterator[np.ndarray]:
    threads = threads or min(max(2, os.cpu_count() or 1), MAX_THREADS)
    options = grain.ReadOptions(num_threads=threads, prefetch_buffer_size=threads + 2)
    return iter(dataset.to_iter_dataset(options))
