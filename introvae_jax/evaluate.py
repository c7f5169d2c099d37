"""Scores a trained model, or one set of images against another. Usage:

    python -m introvae_jax.evaluate --workdir=RUN --metrics=fid50k,swd16384,reconstruction
    python -m introvae_jax.evaluate --workdir=RUN --metrics=fid,kid --floor     with the noise floor
    python -m introvae_jax.evaluate --workdir=RUN --metrics=ood --ood=DIR       out-of-distribution detection
    python -m introvae_jax.evaluate --real=DIR --fake=DIR --metrics=fid         no model needed

Metrics of image sets: fid, kid, precision_recall (Inception-v3), alexnet_frechet, alexnet_kernel,
alexnet_precision_recall (no download), swd, msssim. A number of images may follow, as in fid50k (k is 1,000); without
it, a metric uses as many images as there are. fid50k_full uses all real images.
Metrics of the encoder, on held-out images: reconstruction, active_units, likelihood, ood.
Writes a table and a record with the protocol of each value to RUN/evaluations/. See docs/evaluation.md.
"""

from collections.abc import Sequence

from absl import flags

from introvae_jax import command_line, errors, progress

DEFAULT_METRICS = "fid,reconstruction"  # of a model; "fid" for --fake

_WORKDIR = flags.DEFINE_string("workdir", None, "Work directory of a run; its latest checkpoint is scored.")
_STEP = flags.DEFINE_string("step", "latest", 'Step of another checkpoint, or "best".')
_WEIGHTS = flags.DEFINE_enum("weights", "ema", ["ema", "raw"], "Averaged or raw weights.")
_METRICS = flags.DEFINE_list("metrics", None, f"Metrics, separated by commas; by default {DEFAULT_METRICS}.")
_REAL = flags.DEFINE_string("real", None, "Folder or archive of real images; by default the run's training images.")
_FAKE = flags.DEFINE_string("fake", None, "Folder or archive of generated images, instead of samples of a run.")
_SPLIT = flags.DEFINE_enum("split", "train", ["train", "test"], "The split of the run's images to compare with.")
_DATA_PATH = flags.DEFINE_string("data_path", None, "Where the run's images are now, if they have moved.")
_OOD = flags.DEFINE_string("ood", None, "Folder or archive of images of another kind, for the metric ood.")
_SIZE = flags.DEFINE_integer(
    "size", None, "Crop --real and --fake to the centre and resize them to this size.", lower_bound=1
)
_RESIZE = flags.DEFINE_enum(
    "resize",
    "pytorch",
    ["pytorch", "tensorflow"],
    "How Inception's input is resized: as in pytorch-fid, or as in torch-fidelity.",
)
_INCEPTION = flags.DEFINE_string("inception", "", "File of Inception's weights; by default downloaded once.")
_SHA256 = flags.DEFINE_string("inception_sha256", "", "SHA-256 of non-canonical weights.")
_FLOOR = flags.DEFINE_bool("floor", False, "Also score two halves of the real images against each other.")
_SEED = flags.DEFINE_integer("seed", 0, "Seed of the samples and of the order of real images.", lower_bound=0)
_BATCH_SIZE = flags.DEFINE_integer("batch_size", 64, "Images at a time; changes speed and memory only.", lower_bound=2)
_CACHE = flags.DEFINE_bool("cache", True, "Cache statistics of real images on disk.")
_OUT = flags.DEFINE_string("out", None, "NAME.json for the record; by default a new file in RUN/evaluations/.")


def main(_: Sequence[str]) -> None:
    """Scores a model or a set of images."""
    with progress.phase("importing JAX and its libraries"):  # imported here, so that --help and wrong flags are fast
        from introvae_jax import compilation_cache
        from introvae_jax.evaluation import evaluator

    default = DEFAULT_METRICS.split(",") if _FAKE.value is None else ["fid"]
    _refuse_unused(default if _METRICS.value is None else _METRICS.value)
    with progress.phase("starting the devices"):
        compilation_cache.enable()
    options = evaluator.Options(
        metrics=default if _METRICS.value is None else _METRICS.value, workdir=_WORKDIR.value, step=_STEP.value,
        weights=_WEIGHTS.value, real=_REAL.value, fake=_FAKE.value, split=_SPLIT.value, data_path=_DATA_PATH.value,
        ood=_OOD.value, size=_SIZE.value, resize=_RESIZE.value,
        inception=_INCEPTION.value, inception_sha256=_SHA256.value, floor=_FLOOR.value,
        seed=_SEED.value, batch_size=_BATCH_SIZE.value, cache=_CACHE.value, out=_OUT.value,
    )  # fmt: skip
    text, path = evaluator.evaluate(options)
    print(text)
    if path:
        print(f"\n{path}: record with the protocol of every value; the table is beside it")


def _refuse_unused(metrics: Sequence[str]) -> None:
    """Raises UserError for a flag that has no effect on these metrics."""
    from introvae_jax.evaluation import specs
    from introvae_jax.metrics import METRICS
    from introvae_jax.metrics.base import SetMetric

    of_sets, of_encoder = specs.parse(metrics)
    if _FAKE.value is not None:
        command_line.refuse_unused(["step", "weights"], "needs --workdir=RUN instead of --fake")
    if _REAL.value is not None or _FAKE.value is not None or not of_sets:
        command_line.refuse_unused(["split"], "needs --workdir=RUN without --real, and a metric of sets of images")
    if not of_sets:
        command_line.refuse_unused(["floor", "cache", "real"], "needs a metric of sets of images, for instance swd")
    if not any(spec.metric.features == "inception" for spec in of_sets):
        *names, last = [m.name for m in METRICS.values() if isinstance(m, SetMetric) and m.features == "inception"]
        command_line.refuse_unused(["resize"], f"needs {', '.join(names)} or {last}")
    if not any("outside" in spec.metric.images for spec in of_encoder):
        command_line.refuse_unused(["ood"], "needs --metrics=ood")


if __name__ == "__main__":
    errors.run(main)
