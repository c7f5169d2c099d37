"""How well a score tells images of another kind from those of the training kind."""

import numpy as np


def auroc(inside: np.ndarray, outside: np.ndarray) -> float:
    """Probability that a score of `outside` [M] is larger than one of `inside` [N], ties counting half; in [0, 1].

    0.5 tells nothing; scores for which it is below 0.5 tell it with the wrong sign. It is the area under the curve of
    true against false alarms. Raises ValueError for empty sets and for scores that are NaN.
    Source: Mann and Whitney 1947; Hanley and McNeil 1982.
    """
    inside, outside = np.sort(np.ravel(inside)), np.ravel(outside)
    if not (inside.size and outside.size):
        raise ValueError(f"{inside.size} scores inside and {outside.size} outside: both must have some")
    if np.isnan(inside).any() or np.isnan(outside).any():
        raise ValueError("scores that are NaN")
    below, below_or_tied = (np.searchsorted(inside, outside, side).sum() for side in ("left", "right"))
    return float((below + below_or_tied) / (2 * inside.size * outside.size))
