"""Parses metric specs: "fid50k", "kid", "swd16384", "reconstruction500". k stands for 1,000 in all of them."""

from collections.abc import Sequence
import dataclasses
import difflib
import re
from typing import Any, Generic, TypeVar

from introvae_jax.errors import UserError
from introvae_jax.metrics import METRICS
from introvae_jax.metrics.base import EncoderMetric, Metric, SetMetric

KILO = 1000
_FORM = re.compile(r"([a-z_]+?)(?:([1-9][0-9]{0,11})(k?))?(_full)?")
M = TypeVar("M", bound=Metric)


@dataclasses.dataclass(frozen=True)
class Spec(Generic[M]):
    """A metric spec.

    word: as written. count: the number of images, None for as many as there are. full: True to use all real images,
    whatever the number of samples.
    """

    word: str
    metric: M
    count: int | None = None
    full: bool = False

    @property
    def name(self) -> str:
        """The name of the metric."""
        return self.metric.name

    def label(self, value: str, count: int) -> str:
        """The published name of a `value`: "{}" is replaced by the number of images, as in "fid50k"."""
        number = f"{count // KILO}k" if count % KILO == 0 else str(count)
        return value.format(number + ("_full" if self.full else ""))


SetSpec = Spec[SetMetric[Any]]
EncoderSpec = Spec[EncoderMetric]


def split(words: Sequence[str]) -> list[str]:
    """The specs in `words`, without repetitions. Commas may separate them; surrounding blanks are removed."""
    return list(dict.fromkeys(part.strip() for word in words for part in str(word).split(",")))


def parse(words: Sequence[str]) -> tuple[list[SetSpec], list[EncoderSpec]]:
    """The specs of metrics of image sets, and those of metrics of the encoder.

    Raises UserError for an unknown metric, and for a number of images that is too small for one.
    """
    of_sets: list[SetSpec] = []
    of_encoder: list[EncoderSpec] = []
    for word in split(words):
        match = _FORM.fullmatch(word)
        metric = METRICS.get(match[1]) if match else None
        count = int(match[2]) * (KILO if match[3] else 1) if match and match[2] else None
        full = bool(match and match[4])
        if isinstance(metric, EncoderMetric) and not full:
            of_encoder.append(Spec(word, metric, count))
        elif isinstance(metric, SetMetric):
            if count is not None and count * metric.images_per_count < metric.least:
                raise UserError(f"{word}: {metric.name} needs {metric.least:,} images or more")
            if full and metric.equal:
                remedy = word.removesuffix("_full")
                raise UserError(f"{word}: {metric.name} compares equally many images; ask for {remedy}")
            of_sets.append(Spec(word, metric, count, full))
        else:
            raise UserError(_unknown(word))
    return of_sets, of_encoder


def _unknown(word: str) -> str:
    """The error message for an unknown metric, with a suggestion."""
    part_of = {part: metric.name for metric in METRICS.values() for part in metric.parts}
    start = re.match(r"[a-z_-]*", word.lower().strip())
    near = difflib.get_close_matches(
        start[0].replace("-", "_").removesuffix("_") if start else "", (*METRICS, *part_of), n=1
    )
    hint = f" (did you mean {near[0]}?)" if near else ""
    if near and near[0] in part_of:
        hint = f" (ask for {part_of[near[0]]}, of which {near[0]} is a part)"
    return (
        f"{word!r} is no metric{hint}: choose from {', '.join(METRICS)}; a number of images may follow, as in fid50k, "
        "where k stands for 1,000"
    )
