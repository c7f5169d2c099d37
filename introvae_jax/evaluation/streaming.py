"""One pass over a set of images for all figures at once."""

from collections.abc import Mapping, Sequence
import dataclasses
from typing import Any

import numpy as np

from introvae_jax import progress
from introvae_jax.evaluation.accumulators import Collection
from introvae_jax.evaluation.extractors import View
from introvae_jax.evaluation.image_sets import Images


@dataclasses.dataclass(frozen=True)
class Take:
    """The images `start` to `stop` of a pass, as `view` shows them, go into `collection`."""

    view: str
    collection: Collection
    start: int
    stop: int


def collect(images: Images, takes: Sequence[Take], views: Mapping[str, View], *, batch_size: int, title: str) -> None:
    """Fills the collections of `takes` in one pass, announced as `title`."""
    last = max((take.stop for take in takes), default=0)
    waiting: list[tuple[Collection, Any]] = []
    place = 0
    with progress.phase(title, last, "images") as looking:
        for batch in images.batches(last, batch_size):
            wanted = [take for take in takes if take.start < place + len(batch) and take.stop > place]
            seen = {name: views[name].look(batch) for name in dict.fromkeys(take.view for take in wanted)}
            _hand_over(waiting)  # while the devices look at this batch
            waiting = [
                (take.collection, seen[take.view][max(take.start - place, 0) : take.stop - place]) for take in wanted
            ]
            place += len(batch)
            looking.advance(len(batch))
        _hand_over(waiting)


def _hand_over(waiting: Sequence[tuple[Collection, Any]]) -> None:
    for collection, rows in waiting:
        collection.add(np.asarray(rows))
