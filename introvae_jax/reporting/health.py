"""Is a run sick, and what helps? One rule for each illness; docs/troubleshooting.md shows what they look like.

Rules look at the records of metrics.jsonl, means since the record before. A rule speaks when it holds for
PERSISTENCE records in a row, and again only after it had ceased to hold.
"""

from collections.abc import Callable, Mapping, Sequence
import dataclasses
from typing import Any

Record = Mapping[str, float]

PERSISTENCE = 3  # records
PATIENCE = 10  # records until a run should have learnt anything at all, of the warm-up or of what follows it

# What makes an objective's reconstructions better. beta, margin: the keys that set them.
REMEDIES = {
    "introvae": "raise {beta}, or lower alpha_d, {margin} or the learning rate",
    "vae": "raise {beta}, or lower the learning rate",
    "soft_introvae": "raise beta, or lower the learning rate",
    "age": "raise match_x, or lower the learning rate",
}


@dataclasses.dataclass(frozen=True)
class Facts:
    """What the rules know of a run. objective: `config.objective`. constant_error: loss_rec of the mean image."""

    objective: Mapping[str, Any]
    constant_error: float

    @property
    def beta(self) -> str:
        """The key of config.objective that sets the weight of the reconstruction term."""
        return "auto_beta" if self.objective.get("auto_beta") else "beta"

    def margin_at(self, record: Record) -> float:
        """The margin in nats, of the steps of `record` if it moves."""
        return record.get("margin", self.objective["margin"])

    @property
    def lower_margin(self) -> str:
        """How to lower the margin."""
        if self.objective.get("margin_offset"):
            return f"Lower margin_offset ({self.objective['margin_offset']:g})"
        return f"Lower the margin ({self.objective['margin']:g}) to a few nats above where kl_real settles in a VAE"

    @property
    def remedy(self) -> str:
        text = REMEDIES.get(self.objective["name"], "lower the learning rate")
        margin = "margin_offset" if self.objective.get("margin_offset") else "the margin"
        return text.format(beta=self.beta, margin=margin)


def collapsed(records: Sequence[Record], facts: Facts) -> str | None:
    """Reconstructions are no better than one image for all, though they had been."""
    error, best = records[-1]["loss_rec"], min(record["loss_rec"] for record in records)
    if error > 0.9 * facts.constant_error and best < 0.7 * facts.constant_error:
        return (
            f"collapsed: loss_rec {error:.3g} is that of the mean image ({facts.constant_error:.3g}), it had been "
            f"{best:.3g}. In another --workdir {facts.remedy}"
        )
    return None


def learns_nothing(records: Sequence[Record], facts: Facts) -> str | None:
    """Reconstructions have never been better than one image for all."""
    best = min(record["loss_rec"] for record in records)
    if len(records) >= PATIENCE and best > 0.9 * facts.constant_error > 0:
        warm_up = "" if facts.objective["name"] == "age" else ", or begin with more objective.warmup_steps"
        return (
            f"nothing learnt yet: loss_rec {best:.3g} is that of the mean image ({facts.constant_error:.3g}). It may "
            f"help to {facts.remedy}{warm_up}"
        )
    return None


def encoder_wins(records: Sequence[Record], facts: Facts) -> str | None:
    """Generated images are pushed far beyond the margin and the decoder cannot follow."""
    last, margin = records[-1], facts.margin_at(records[-1])
    if "hinge_rec_active" not in last or max(last["hinge_rec_active"], last["hinge_fake_active"]) > 0.05:
        return None
    if min(last["kl_rec"], last["kl_fake"]) < 1.5 * margin or last["kl_real"] > margin:
        return None
    return (
        f"the encoder wins: kl_rec {last['kl_rec']:.0f} and kl_fake {last['kl_fake']:.0f} are far above the margin "
        f"{margin:.4g} and both hinges are off. {facts.lower_margin}, raise alpha_d or {facts.beta}, or lower the "
        "learning rate"
    )


def margin_too_low(records: Sequence[Record], facts: Facts) -> str | None:
    """Real images lie beyond the margin, so that nothing sets generated ones apart from them."""
    last, margin = records[-1], facts.margin_at(records[-1])
    if "hinge_rec_active" not in last or last["kl_real"] <= margin or last["hinge_rec_active"] > 0.2:
        return None
    return (
        f"the margin is too low: kl_real {last['kl_real']:.1f} lies above it ({margin:.4g}), so generated images are "
        f"not told from real ones. Raise the margin to a few nats above kl_real, or lower {facts.beta}"
    )


def margin_too_high(records: Sequence[Record], facts: Facts) -> str | None:
    """Reconstructions get worse while the gap between generated and real images grows."""
    last, best = records[-1], min(record["loss_rec"] for record in records)
    if "hinge_rec_active" not in last or last["loss_rec"] < 1.25 * best:
        return None
    if last["kl_real"] < 1 or last["kl_gap"] < 0.3 * last["kl_real"]:
        return None
    warm_up = [record["kl_real"] for record in records if "hinge_rec_active" not in record]
    settled = f" (kl_real {warm_up[-1]:.1f} at the end of the warm-up)" if warm_up else ""
    return (
        f"the margin is too high: loss_rec rose from {best:.3g} to {last['loss_rec']:.3g} and the gap to "
        f"{last['kl_gap']:+.1f}{settled}. {facts.lower_margin}, or raise {facts.beta}"
    )


def decoder_wins(records: Sequence[Record], facts: Facts) -> str | None:
    """Samples lie closer to the prior than real images although the encoder pushes at all times."""
    last = records[-1]
    if "hinge_fake_active" not in last or last["hinge_fake_active"] < 0.99:
        return None
    if last["kl_real"] < 1 or last["kl_fake"] > 0.5 * last["kl_real"]:
        return None
    return (
        f"the encoder cannot hold samples off: kl_fake {last['kl_fake']:.1f} is far below kl_real "
        f"({last['kl_real']:.1f}) with the hinge always active. Raise alpha, lower alpha_d, or normalise "
        "(model.norm = 'batch')"
    )


def not_told_apart(records: Sequence[Record], facts: Facts) -> str | None:
    """Both hinges are always active, and generated images still lie no farther from the prior than real ones."""
    last = records[-1]
    if sum("hinge_rec_active" in record for record in records) < PATIENCE or "hinge_rec_active" not in last:
        return None
    if min(last["hinge_rec_active"], last["hinge_fake_active"]) < 0.95 or last["kl_gap"] > 0 or last["kl_real"] < 1:
        return None
    return (
        f"the encoder does not tell generated images from real ones: gap {last['kl_gap']:+.1f} with both hinges always "
        f"active. Lower {facts.beta}, or raise alpha"
    )


def negative_gap(records: Sequence[Record], facts: Facts) -> str | None:
    """Soft-IntroVAE: generated images are nearer to the prior than real ones."""
    last = records[-1]
    if "exp_elbo_rec" not in last or last["kl_real"] < 1 or last["kl_gap"] > -0.05 * last["kl_real"]:
        return None
    if last["exp_elbo_fake"] > 0.01:
        return None
    return (
        f"the gap is negative ({last['kl_gap']:+.1f}): generated images are not held off, samples do not improve. "
        f"Lower beta_neg ({facts.objective['beta_neg']:g}): while exp(ELBO) is 0 the encoder feels no pull"
    )


def reconstruction_lost(records: Sequence[Record], facts: Facts) -> str | None:
    """Reconstructions have become much worse than they had been, short of a collapse."""
    error, best = records[-1]["loss_rec"], min(record["loss_rec"] for record in records)
    if error < 2 * best or collapsed(records, facts):
        return None
    return f"reconstructions get worse: loss_rec {error:.3g}, it had been {best:.3g}. It may help to {facts.remedy}"


RULES: tuple[Callable[[Sequence[Record], Facts], str | None], ...] = (
    collapsed, learns_nothing, encoder_wins, margin_too_low, margin_too_high, decoder_wins, not_told_apart,
    negative_gap, reconstruction_lost,
)  # fmt: skip


class Health:
    """Follows a run record by record. before: the records of a run that goes on."""

    def __init__(self, facts: Facts, before: Sequence[Record] = ()):
        self._facts, self._records = facts, []
        self._held, self._texts = dict.fromkeys(RULES, 0), {}
        for record in before:
            self.advise(record)

    def advise(self, record: Record) -> list[str]:
        """What to tell the user after one more record: a line for each rule that has just come true for good."""
        self._records.append(record)
        lines = []
        for rule in RULES:
            text = rule(self._records, self._facts)
            self._held[rule], self._texts[rule] = self._held[rule] + 1 if text else 0, text
            if self._held[rule] == PERSISTENCE:
                lines.append(text)
        return lines

    @property
    def failing(self) -> list[str]:
        """The advice of every rule that holds now."""
        return [self._texts[rule] for rule in RULES if self._held[rule] >= PERSISTENCE]

    @property
    def has_collapsed(self) -> bool:
        """Whether the run is past help without going back."""
        return self._held[collapsed] >= PERSISTENCE

    @property
    def well_until(self) -> int:
        """The step of the last record before a collapse that still holds, 0 if there is none."""
        well = self._records[: len(self._records) - self._held[collapsed]]
        return int(well[-1]["step"]) if well else 0
