"""Health rules of IntroVAE: one for each failure mode in docs/troubleshooting.md.

They read the records since the start of the run. Records of the warm-up have no hinge terms.
"""

from collections.abc import Sequence

from introvae_jax.objectives import weighting
from introvae_jax.objectives.base import PATIENCE, Facts, Record


def encoder_wins(records: Sequence[Record], facts: Facts) -> str | None:
    """The KL of generated images is far above the margin, and the decoder cannot reduce it."""
    last, margin = records[-1], _margin(records[-1], facts)
    if "hinge_rec_active" not in last or max(last["hinge_rec_active"], last["hinge_fake_active"]) > 0.05:
        return None
    if min(last["kl_rec"], last["kl_fake"]) < 1.5 * margin or last["kl_real"] > margin:
        return None
    return (
        f"the encoder wins: kl_rec {last['kl_rec']:.0f} and kl_fake {last['kl_fake']:.0f} are far above the margin "
        f"{margin:.4g} and both hinges are off. {_lower_margin(facts)}, raise alpha_d or "
        f"{weighting.key(facts.objective)}, or lower the learning rate"
    )


def margin_too_low(records: Sequence[Record], facts: Facts) -> str | None:
    """The KL of real images exceeds the margin, so the losses do not separate generated images from real ones."""
    last, margin = records[-1], _margin(records[-1], facts)
    if "hinge_rec_active" not in last or last["kl_real"] <= margin or last["hinge_rec_active"] > 0.2:
        return None
    return (
        f"the margin is too low: kl_real {last['kl_real']:.1f} lies above it ({margin:.4g}), so generated images are "
        "not separated from real ones. Raise the margin to a few nats above kl_real, or lower "
        f"{weighting.key(facts.objective)}"
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
        f"{last['kl_gap']:+.1f}{settled}. {_lower_margin(facts)}, or raise {weighting.key(facts.objective)}"
    )


def decoder_wins(records: Sequence[Record], facts: Facts) -> str | None:
    """Samples are closer to the prior than real images, although the hinge is always active."""
    last = records[-1]
    if "hinge_fake_active" not in last or last["hinge_fake_active"] < 0.99:
        return None
    if last["kl_real"] < 1 or last["kl_fake"] > 0.5 * last["kl_real"]:
        return None
    return (
        f"the decoder wins: kl_fake {last['kl_fake']:.1f} is far below kl_real "
        f"({last['kl_real']:.1f}) with the hinge always active. Raise alpha, lower alpha_d, or set "
        "model.norm = 'batch'"
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
        f"active. Lower {weighting.key(facts.objective)}, or raise alpha"
    )


def _margin(record: Record, facts: Facts) -> float:
    """The margin in nats: the logged term if it changes, otherwise the config's."""
    return record.get("margin", facts.objective["margin"])


def _lower_margin(facts: Facts) -> str:
    """How to lower the margin."""
    if facts.objective.get("margin_offset"):
        return f"Lower margin_offset ({facts.objective['margin_offset']:g})"
    return f"Lower the margin ({facts.objective['margin']:g}) to a few nats above where kl_real settles in a VAE"


RULES = (encoder_wins, margin_too_low, margin_too_high, decoder_wins, not_told_apart)
