"""The order of the images. Step s always sees the same batch, whatever the number of processes."""

from collections.abc import Iterator

import grain
import numpy as np

from introvae_jax.data.source import Source


def batches(
    source: Source, *, batch_size: int, seed: int, start: int = 0, process_index: int = 0, process_count: int = 1
) -> Iterator[np.ndarray]:
    """This process's part of the global batches `start`, `start` + 1, ...; uint8 [batch_size / process_count, S, S, C].

    Grain shuffles, repeats and batches indices, anew in each pass over the data; a process decodes the rows
    of its own slice only. Where a run stands is its step alone, so nothing else needs to be stored to go on.
    """
    rows = batch_size // process_count
    mine = slice(process_index * rows, (process_index + 1) * rows)
    order = grain.MapDataset.range(len(source)).seed(seed).shuffle().repeat().batch(batch_size)
    loaded = order.map(lambda indices: source[np.asarray(indices)[mine]])
    return iter(loaded[start:].to_iter_dataset(grain.ReadOptions(num_threads=4, prefetch_buffer_size=8)))
