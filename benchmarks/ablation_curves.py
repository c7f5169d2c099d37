"""Curves of a healthy run of benchmarks/ablation.py and of failing ones: the picture of docs/troubleshooting.md.

python -m benchmarks.ablation --only=margin_10,margin_100,beta_0.5,beta_30 --seeds=0
python -m benchmarks.ablation_curves --out=runs/ablation --to=docs/pictures/troubleshooting.png
"""

import pathlib

from absl import flags
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from benchmarks import ablation_variants
from introvae_jax import disk, errors
from introvae_jax.reporting import records

_OUT = flags.DEFINE_string("out", "runs/ablation", "Folder of the runs.")
_TO = flags.DEFINE_string("to", "docs/pictures/troubleshooting.png", "The picture.")
_SHOW = flags.DEFINE_list("show", ["base_0", "no_warmup_1", "norm_none_0", *(f"{n}_0" for n in ablation_variants.SICK)],
                          "Runs, NAME_SEED.")  # fmt: skip


def main(_) -> None:
    shown = _SHOW.value
    figure = Figure(figsize=(2.6 * len(shown), 5.2), layout="constrained")
    FigureCanvasAgg(figure)
    for column, run in zip(figure.subplots(2, len(shown)).T, shown, strict=True):
        config = ablation_variants.config("digits", run.rpartition("_")[0])
        found = records.read_metrics(pathlib.Path(_OUT.value).expanduser() / "digits" / run / "metrics.jsonl")
        for name in ("kl_real", "kl_rec", "kl_fake"):
            points = [(r["step"], r[name]) for r in found if name in r]
            column[0].plot(*zip(*points, strict=True), label=name)
        column[0].axhline(config.objective.margin, color="grey", linestyle=":", label="margin")
        column[1].plot([r["step"] for r in found], [r["loss_rec"] for r in found], color="black")
        column[0].set(title=run.rpartition("_")[0], ylim=(0, 130))
        column[1].set(ylim=(5, 200), yscale="log", xlabel="step")
    figure.axes[0].set_ylabel("KL (nats)")
    figure.axes[0].legend(fontsize="small")
    figure.axes[len(shown)].set_ylabel("loss_rec")
    with disk.atomic_write(_TO.value) as temporary:
        figure.savefig(temporary, format="png", dpi=80)


if __name__ == "__main__":
    errors.run(main)
