"""Parses metric specs: "fid50k", "kid", "swd16384", "reconstruction500". k stands for 1,000 in all of them."""

from collections.abc import Sequence
import dataclasses
import difflib
import re

from introvae_jax.errors import UserError
from introvae_jax.evaluation.figures import FIGURES, Figure

OF_ENCODER = ("reconstruction", "active_units", "likelihood", "ood")
# Values that are computed together with others, under the metric that has them.
PART_OF = {
    **dict.fromkeys(("mse", "psnr", "ssim", "lpips"), "reconstruction"),
    **dict.fromkeys(("elbo", "iw_bound", "bits_per_dim", "nll"), "likelihood"),
    **dict.fromkeys(("precision", "recall"), "precision_recall"),
    "auroc": "ood",
}
KILO = 1000
_WORD = re.compile(r"([a-z_]+?)(?:([1-9][0-9]{0,11})(k?))?(_full)?")


@dataclasses.dataclass(frozen=True)
class OfSets:
    """A figure of two sets of images. word: as asked. count: as it says, None for as many as there are.

    whole: whether all real images count, however many samples they are compared with.
    """

    word: str
    name: str
    figure: Figure
    count: int | None
    whole: bool

    def label(self, name: str, count: int) -> str:
        """`name` of a figure, with the number of images in the published manner: "fid50k"."""
        number = f"{count // KILO}k" if count % KILO == 0 else str(count)
        return name.format(number + ("_full" if self.whole else ""))


@dataclasses.dataclass(frozen=True)
class OfEncoder:
    """A figure of the encoder. word: as asked. count: held-out images, None for all that are there."""

    word: str
    name: str
    count: int | None


def split(words: Sequence[str]) -> list[str]:
    """The words, each once: they may come with commas between, and blanks around."""
    return list(dict.fromkeys(part.strip() for word in words for part in str(word).split(",")))


def parse(words: Sequence[str]) -> tuple[list[OfSets], list[OfEncoder]]:
    """What `words` ask for. Raises UserError for a word that is no figure, or asks one for too few images."""
    of_sets, of_encoder = [], []
    for word in split(words):
        match = _WORD.fullmatch(word)
        name = match[1] if match else ""
        if name not in FIGURES and (name not in OF_ENCODER or match[4]):
            raise UserError(_unknown(word))
        count = int(match[2]) * (KILO if match[3] else 1) if match[2] else None
        if name in OF_ENCODER:
            of_encoder.append(OfEncoder(word, name, count))
            continue
        figure = FIGURES[name]
        if count is not None and count * figure.per_count < figure.least:
            raise UserError(f"{word}: {name} needs {figure.least:,} images or more")
        if match[4] and figure.equal:
            raise UserError(f"{word}: {name} compares equally many images; ask for {word.removesuffix('_full')}")
        of_sets.append(OfSets(word, name, figure, count, bool(match[4])))
    return of_sets, of_encoder


def _unknown(word: str) -> str:
    """The error for a word that is no metric, with the one that was probably meant."""
    known = (*FIGURES, *OF_ENCODER)
    start = re.match(r"[a-z_-]*", word.lower().strip())[0].replace("-", "_").removesuffix("_")
    near = difflib.get_close_matches(start, (*known, *PART_OF), n=1)
    hint = f" (did you mean {near[0]}?)" if near else ""
    if near and near[0] in PART_OF:
        hint = f" (ask for {PART_OF[near[0]]}, of which {near[0]} is a part)"
    return (
        f"{word!r} is no metric{hint}: they are {', '.join(known)}; a number of images may follow, as in fid50k, where "
        "k stands for 1,000"
    )
