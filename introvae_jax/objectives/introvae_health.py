"""Health rules of IntroVAE: one for each failure mode in docs/troubleshooting.md.

They read the records since the start of the run. Records of the warm-up have no hinge terms.
"""

from collections.abc import Sequence

from introvae_jax.objectives.base import Facts, Record


def encoder_wins(records: Sequence[Record], facts: Facts) -> str | None:
    """The KL of generated images is far above the margin, and the decoder cannot reduce it."""
    last, margin = records[-1], _margin(records[-1], facts)
    if "hinge_rec_active" not in last or max(last["hinge_rec_active"], last["hinge_fake_active"]) > 0.05:
        return None
    if min(last["kl_rec"], last["kl_fake"]) < 1.5 * margin or last["kl_real"] > margin:
        return None
    return (
        f"the encoder wins: kl_rec {last['kl_rec']:.0f} and kl_fake {last['kl_fake']:.0f} are far above the margin "
        f"{margin:g} and both hinges are off. Lower the margin to a few nats above where kl_real settles in a VAE, "
        "raise alpha_d or beta, or lower the learning rate"
    )


def margin_too_low(records: Sequence[Record], facts: Facts) -> str | None:
    """The KL of real images exceeds the margin, so the losses do not separate generated images from real ones."""
    last, margin = records[-1], _margin(records[-1], facts)
    if "hinge_rec_active" not in last or last["kl_real"] <= margin or last["hinge_rec_active"] > 0.2:
        return None
    return (
        f"the margin is too low: kl_real {last['kl_real']:.1f} lies above it ({margin:g}), so generated images are "
        "not separated from real ones. Raise the margin to a few nats above kl_real, or lower beta"
    )


def margin_too_high(records: Sequence[Record], facts: Facts) -> str | None:
    """Reconstructions get worse while the gap between generated and real images grows."""
    last, best = records[-1], min(record["loss_rec"] for record in records)
    if "hinge_rec_active" not in last or last["loss_rec"] < 1.25 * best:
        return None
    if last["kl_real"] < 1 or last["kl_gap"] < 0.3 * last["kl_real"]:
        return None
    warm_up = [record["kl_real"] for record in records if "hinge_rec_active" not in record]
    settled = f" ({warm_up[-1]:.1f})" if warm_up else ""
    return (
        f"the margin is too high: loss_rec rose from {best:.3g} to {last['loss_rec']:.3g} and the gap to "
        f"{last['kl_gap']:+.1f}. Lower the margin ({_margin(last, facts):g}) to a few nats above kl_real at the "
        f"end of the warm-up{settled}, or raise beta"
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


def _margin(record: Record, facts: Facts) -> float:
    """The margin at the record: the logged term if the margin changes, otherwise the config's."""
    return record.get("margin", facts.objective["margin"])


RULES = (encoder_wins, margin_too_low, margin_too_high, decoder_wins)
