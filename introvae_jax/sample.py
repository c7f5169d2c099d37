"""Makes pictures from a trained model: samples, reconstructions, interpolations. Usage:

    python -m introvae_jax.sample --workdir=RUN                                  a grid of samples
    python -m introvae_jax.sample --workdir=RUN --num=1000 --out=DIR             single PNGs, one seed each
    python -m introvae_jax.sample --workdir=RUN --mode=reconstruct --images=DIR  images beside reconstructions
    python -m introvae_jax.sample --workdir=RUN --mode=interpolate --seeds=3,7   a path between two seeds
    python -m introvae_jax.sample --workdir=RUN --mode=interpolate --images=A.png,B.png   or two images
    python -m introvae_jax.sample --workdir=RUN --mode=interpolate --seeds=3,7 --out=path.gif   as an animation

A single picture is written to WORKDIR/MODE.png, or to --out=NAME.png, .jpg or .webp. With a sheet of reconstructions,
NAME.csv lists the file, PSNR (dB) and KL (nats) of each image. In sheets and GIFs, images smaller than 128 pixels are
enlarged by an integer factor; single PNGs are not enlarged.
"""

from collections.abc import Sequence

from absl import flags

from introvae_jax import errors, progress

if __name__ == "__main__":
    errors.announce()
    IMPORTING = progress.phase("importing JAX and its libraries")

from introvae_jax import compilation_cache, model, sampling

_WORKDIR = flags.DEFINE_string("workdir", None, "Work directory of a run; its latest checkpoint is used.")
_STEP = flags.DEFINE_string("step", "latest", 'Step of another checkpoint, or "best".')
_WEIGHTS = flags.DEFINE_enum("weights", "ema", model.WEIGHTS, "Averaged or raw weights.")
_MODE = flags.DEFINE_enum("mode", "sample", sampling.MODES, "What to make.")
_NUM = flags.DEFINE_integer(
    "num", None, "Number of samples (default 64), of images to reconstruct (all) or of steps (10).", lower_bound=1,
    upper_bound=2**32,
)  # fmt: skip
_SEED = flags.DEFINE_integer(
    "seed", None, "sample: seed of the first image (default 0); each further image adds 1.", lower_bound=0
)
_SEEDS = flags.DEFINE_list("seeds", None, "interpolate: the two seeds, for instance 3,7.")
_IMAGES = flags.DEFINE_string("images", None, "reconstruct, interpolate: a folder or archive of images, or files.")
_OUT = flags.DEFINE_string(
    "out",
    None,
    "For a single picture NAME.png, .jpg or .webp; for single PNGs a folder; for interpolate also NAME.gif. "
    "Points: NAME.csv.",
)
_BATCH_SIZE = flags.DEFINE_integer("batch_size", 64, "Images at a time; changes speed and memory only.", lower_bound=1)


def main(_: Sequence[str]) -> None:
    """Makes the pictures and prints their place."""
    options = sampling.Options(
        mode=_MODE.value, num=_NUM.value, seed=_SEED.value, seeds=_SEEDS.value, images=_IMAGES.value, out=_OUT.value
    )
    sampling.check(options)
    with progress.phase("starting the devices"):
        compilation_cache.enable()
    trained = model.load(_WORKDIR.value, step=_STEP.value, weights=_WEIGHTS.value, batch_size=_BATCH_SIZE.value)
    out = sampling.write(trained, options, _WORKDIR.value)
    print(f"{out}: {_MODE.value}, checkpoint of step {trained.step}, {trained.weights} weights")


if __name__ == "__main__":
    IMPORTING.close()
    flags.mark_flag_as_required("workdir")
    errors.run(main)
