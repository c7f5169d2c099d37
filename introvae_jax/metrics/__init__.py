"""The registry of metrics. To add a metric, add its file and an entry to METRICS."""

from collections.abc import Iterable

from introvae_jax.metrics import (
    active_units,
    frechet,
    kernel,
    likelihood,
    msssim,
    ood,
    precision_recall,
    reconstruction,
    swd,
)  # fmt: skip
from introvae_jax.metrics.base import Metric

METRICS: dict[str, Metric] = {
    metric.name: metric
    for metric in (
        frechet.FID,
        kernel.KID,
        precision_recall.PRECISION_RECALL,
        frechet.ALEXNET_FRECHET,
        kernel.ALEXNET_KERNEL,
        precision_recall.ALEXNET_PRECISION_RECALL,
        swd.SWD,
        msssim.MSSSIM,
        reconstruction.RECONSTRUCTION,
        active_units.ACTIVE_UNITS,
        likelihood.LIKELIHOOD,
        ood.OOD,
    )
}


def headlines(values: Iterable[str]) -> list[str]:
    """The names of values without details: "swd16k", but not "swd16k_64"."""
    return [value for value in values if not any(metric.is_detail(value) for metric in METRICS.values())]
