"""Detects failing runs and says what helps: a rule for each failure mode; docs/troubleshooting.md shows them.

Rules read the records of metrics.jsonl. A rule gives advice when it holds for PERSISTENCE records in a row, and again
only after it ceased to hold. Rules for one objective alone stand in objectives/.
"""

from collections.abc import Sequence

import numpy as np

from introvae_jax import objectives
from introvae_jax.data.source import Source
from introvae_jax.objectives.base import PATIENCE, Facts, Record, Rule

PERSISTENCE = 3  # records


def error_of_mean_image(images: Source, rows: np.ndarray) -> float:
    """Half the squared error of the mean of images, summed over an image's values, in [0, 1]; of points likewise."""
    total = squares = np.zeros(())
    for row in rows:  # one at a time: at 1024 pixels they are large
        image = images[row[None]][0]
        x = image / np.float64(255) if image.dtype == np.uint8 else np.float64(image)
        total, squares = total + x, squares + x * x
    variance = squares / len(rows) - (total / len(rows)) ** 2
    return float(0.5 * variance.sum())


def collapsed(records: Sequence[Record], facts: Facts) -> str | None:
    """Reconstructions are no better than one image for all, though they had been."""
    error, best = records[-1]["loss_rec"], min(record["loss_rec"] for record in records)
    if error > 0.9 * facts.constant_error and best < 0.7 * facts.constant_error:
        return (
            f"collapsed: loss_rec {error:.3g} is that of the mean image ({facts.constant_error:.3g}), it had been "
            f"{best:.3g}. In another --workdir {_remedy(facts)}"
        )
    return None


def learns_nothing(records: Sequence[Record], facts: Facts) -> str | None:
    """Reconstructions have never been better than one image for all."""
    best = min(record["loss_rec"] for record in records)
    if len(records) >= PATIENCE and best > 0.9 * facts.constant_error > 0:
        has_warmup = objectives.kind(facts.objective).has_warmup
        warm_up = ", or begin with more objective.warmup_steps" if has_warmup else ""
        return (
            f"nothing learnt yet: loss_rec {best:.3g} is that of the mean image ({facts.constant_error:.3g}). It may "
            f"help to {_remedy(facts)}{warm_up}"
        )
    return None


def reconstruction_lost(records: Sequence[Record], facts: Facts) -> str | None:
    """Reconstructions have become much worse than they had been, short of a collapse."""
    error, best = records[-1]["loss_rec"], min(record["loss_rec"] for record in records)
    if error < 2 * best or collapsed(records, facts):
        return None
    return f"reconstructions get worse: loss_rec {error:.3g}, it had been {best:.3g}. It may help to {_remedy(facts)}"


def _remedy(facts: Facts) -> str:
    return objectives.kind(facts.objective).remedy(facts.objective)


def rules(facts: Facts) -> tuple[Rule, ...]:
    """The rules for a run, those of its objective included."""
    return (collapsed, learns_nothing, *objectives.kind(facts.objective).rules, reconstruction_lost)


class Health:
    """Follows a run record by record. before: the records of a run that goes on."""

    def __init__(self, facts: Facts, before: Sequence[Record] = ()):
        self._facts, self._rules = facts, rules(facts)
        self._records: list[Record] = []
        self._held = dict.fromkeys(self._rules, 0)
        self._texts: dict[Rule, str] = {}
        for record in before:
            self.advise(record)

    def advise(self, record: Record) -> list[str]:
        """What to tell the user after one more record: a line for each rule that has just come true for good."""
        self._records.append(record)
        lines = []
        for rule in self._rules:
            text = rule(self._records, self._facts) or ""
            self._held[rule], self._texts[rule] = self._held[rule] + 1 if text else 0, text
            if self._held[rule] == PERSISTENCE:
                lines.append(text)
        return lines

    @property
    def failing(self) -> list[str]:
        """The advice of every rule that holds now."""
        return [self._texts[rule] for rule in self._rules if self._held[rule] >= PERSISTENCE]

    @property
    def has_collapsed(self) -> bool:
        """Whether the run is past help without going back."""
        return self._held[collapsed] >= PERSISTENCE

    @property
    def well_until(self) -> int:
        """The step of the last record before a collapse that still holds, 0 if there is none."""
        well = self._records[: len(self._records) - self._held[collapsed]]
        return int(well[-1]["step"]) if well else 0
