"""Intervals: the steps at which a run reports, draws, saves and scores, and the number of steps per call."""

import ml_collections

from introvae_jax.reporting.time_left import Pauses


def scores_at(config: ml_collections.ConfigDict, step: int) -> bool:
    """True if the checkpoint of `step` is to be scored."""
    return config.eval.every > 0 and (step == config.steps or step % config.eval.every == 0)


def next_stop(config: ml_collections.ConfigDict, step: int) -> int:
    """The next step at which the loop reports, draws, saves, scores or changes the objective."""
    intervals = [config.log.every, config.log.pictures_every, config.checkpoint.every]
    intervals += [config.eval.every] if config.eval.every else []
    stops = [config.steps, *(step + every - step % every for every in intervals)]
    if step < config.objective.warmup_steps:
        stops.append(config.objective.warmup_steps)
    return min(stops)


def steps_at_once(config: ml_collections.ConfigDict, longest: int, room: int) -> int:
    """The number of steps that one call takes, at most `room`: a log interval, or otherwise a power of two.

    Each distinct number compiles another program. Intervals that do not divide each other would need many programs.
    """
    count = min(longest, room)
    return count if count == config.log.every else 1 << (count.bit_length() - 1)


def pauses(config: ml_collections.ConfigDict) -> Pauses:
    """The kinds of work besides steps, with their intervals."""
    scores = [config.eval.every] if config.eval.every else []
    saves, draws = [config.checkpoint.every, *scores], [config.log.pictures_every]
    kinds = {"statistics": [*saves, *draws], "pictures": draws, "checkpoints": saves}
    return Pauses(kinds | ({"scores": scores} if scores else {}), config.steps)
