"""The scores of checkpoints: STEP/metrics/metrics, a JSON file where Orbax keeps metrics.

Scores include a "rank", a number that is higher for better checkpoints, and "rank_of", the metric of the rank.
"""

from collections.abc import Mapping
import json
import math
from typing import Any

from etils import epath

from introvae_jax import bucket
from introvae_jax.checkpoints import files

Scores = Mapping[str, Any]


def path(folder: epath.Path) -> epath.Path:
    """The file with the scores of the checkpoint in `folder`."""
    return folder / "metrics" / "metrics"


def read(folder: epath.Path) -> Scores | None:
    """The scores of a checkpoint, None if it was not scored.

    Raises ValueError if the file is damaged, OSError if it cannot be read.
    """
    try:
        found = files.read_json(path(folder))
    except FileNotFoundError:
        return None
    except (NotADirectoryError, IsADirectoryError) as error:
        raise ValueError(error.strerror) from error
    if not isinstance(found, dict):
        raise ValueError(f"they are {type(found).__name__} instead of an object")
    if isinstance(rank := found.get("rank"), bool) or not isinstance(rank, int | float):
        raise ValueError(f"rank is {rank!r} instead of a number")
    if not isinstance(metric := found.get("rank_of", ""), str):
        raise ValueError(f"rank_of is {metric!r} instead of a metric")
    return found


def write(folder: epath.Path, scores: Scores) -> None:
    """Adds scores to a checkpoint by an atomic rename of their folder; a bucket has no folders."""
    file = path(folder)
    partly = file.parent if bucket.is_bucket(file) else folder / "metrics.partly"
    partly.mkdir(exist_ok=True)
    (partly / file.name).write_text(json.dumps(scores))
    if partly != file.parent:
        partly.rename(file.parent)


def best(scored: Mapping[int, Scores], metric: str | None) -> int | None:
    """The step with the highest rank by `metric`; None if no step was ranked by it."""
    ranked = {step: _rank(scores) for step, scores in scored.items() if scores.get("rank_of") == metric}
    return max(ranked, key=ranked.__getitem__, default=None)


def best_of_each_metric(scored: Mapping[int, Scores]) -> set[int]:
    """The best step by each metric. Ranks by different metrics cannot be compared."""
    metrics = {scores.get("rank_of") for scores in scored.values()}
    return {step for metric in metrics if (step := best(scored, metric)) is not None}


def _rank(scores: Scores) -> float:
    return -math.inf if math.isnan(scores["rank"]) else scores["rank"]
