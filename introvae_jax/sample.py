"""Images from a trained model. Usage:

    python -m introvae_jax.sample --workdir=RUN                                  one grid of samples
    python -m introvae_jax.sample --workdir=RUN --num=1000 --out=DIR             single PNGs, one seed each
    python -m introvae_jax.sample --workdir=RUN --mode=reconstruct --images=DIR  images beside reconstructions
    python -m introvae_jax.sample --workdir=RUN --mode=interpolate --seeds=3,7   a path between two seeds
    python -m introvae_jax.sample --workdir=RUN --mode=interpolate --images=A.png,B.png   or two images

Single pictures go to WORKDIR/MODE.png unless --out says otherwise.
"""

import pathlib

from absl import flags
import numpy as np

from introvae_jax import disk, errors, model, pictures, plots, programs
from introvae_jax.data import densities, folder, forms, images, source

_WORKDIR = flags.DEFINE_string("workdir", None, "Work directory of a run; its latest checkpoint is used.")
_STEP = flags.DEFINE_string("step", "latest", 'Step of another checkpoint, or "best".')
_WEIGHTS = flags.DEFINE_enum("weights", "ema", model.WEIGHTS, "Averaged or raw weights.")
_MODE = flags.DEFINE_enum("mode", "sample", ["sample", "reconstruct", "interpolate"], "What to make.")
_NUM = flags.DEFINE_integer(
    "num", None, "Samples (64 without it), images to reconstruct (all), or steps of a path (10).", lower_bound=1
)
_SEED = flags.DEFINE_integer("seed", 0, "Seed of the first sample; the next has the next one.", lower_bound=0)
_SEEDS = flags.DEFINE_list("seeds", None, "interpolate: the two seeds to go between, for instance 3,7.")
_IMAGES = flags.DEFINE_string("images", None, "reconstruct, interpolate: a folder or archive of images, or files.")
_OUT = flags.DEFINE_string(
    "out", None, "A folder for single PNGs, or NAME.png for one picture, the default; NAME.csv for points."
)
_BATCH_SIZE = flags.DEFINE_integer("batch_size", 64, "Images at a time; changes speed and memory only.", lower_bound=1)


def main(_) -> None:
    """Makes the picture or pictures that the flags ask for."""
    programs.keep()
    trained = model.load(
        _WORKDIR.value, step=model.parse_step(_STEP.value), weights=_WEIGHTS.value, batch_size=_BATCH_SIZE.value
    )
    if len(trained.image_shape) == 1 and _MODE.value != "sample":
        raise errors.UserError(f"--mode={_MODE.value}: {_WORKDIR.value} is a model of points; it has --mode=sample")
    make = {"sample": _sample, "reconstruct": _reconstruct, "interpolate": _interpolate}[_MODE.value]
    out = disk.place(_OUT.value) if _OUT.value else disk.place(_WORKDIR.value) / f"{_MODE.value}.png"
    try:
        make(trained, out)
    except OSError as error:
        raise errors.UserError(f"{error.filename or out}: {error.strerror or error}") from error
    print(f"{out}: {_MODE.value}, checkpoint of step {trained.step}, {trained.weights} weights")


def _sample(trained: model.Model, out: pathlib.Path) -> None:
    num, first = _NUM.value or 64, _SEED.value
    if len(trained.image_shape) == 1:
        _save_points(trained, out, num, first)
        return
    if _is_picture(out):
        pictures.save(pictures.grid(trained.sample(num, first)), out)
        return
    if out.suffix.lower() == ".csv":
        raise errors.UserError(f"--out={out}: a folder or NAME.png; numbers are for models of points")
    for start in range(first, first + num, trained.batch_size):
        size = min(trained.batch_size, first + num - start)
        for seed, image in enumerate(pictures.to_uint8(trained.sample(size, start)), start):
            pictures.save(pictures.to_image(image), out / f"seed_{seed:06d}.png")


def _save_points(trained: model.Model, out: pathlib.Path, num: int, first: int) -> None:
    """Samples of a 2-D density as a plot, or as numbers."""
    points = trained.sample(num, first)
    if _is_picture(out):
        reach = densities.DENSITIES[trained.config["data"]["name"]].reach
        pictures.save(plots.points({f"{num} samples": points}, reach), out)
        return
    if out.suffix.lower() != ".csv":
        raise errors.UserError(f"--out={out}: NAME.png or NAME.csv, for a model of points")
    with disk.whole_file(out) as temporary:
        np.savetxt(temporary, points, fmt="%.6g", delimiter=",", header="x,y", comments="")


def _reconstruct(trained: model.Model, out: pathlib.Path) -> None:
    names, originals = _read_images(trained)
    originals = originals[: _NUM.value]
    copies = trained.reconstruct(originals)
    if _is_picture(out):
        pictures.save(pictures.pairs(originals / 255.0, copies), out)
        return
    for name, image in zip(names, pictures.to_uint8(copies), strict=False):
        pictures.save(pictures.to_image(image), out / f"{name}.png")


def _interpolate(trained: model.Model, out: pathlib.Path) -> None:
    if (_SEEDS.value is None) == (_IMAGES.value is None):
        raise errors.UserError("--mode=interpolate takes either --seeds=A,B or --images=A.png,B.png")
    if _SEEDS.value is not None:
        ends = trained.latents(_two_seeds(_SEEDS.value))
    else:
        originals = _read_images(trained)[1]
        if len(originals) < 2:
            raise errors.UserError(f"--images={_IMAGES.value}: {len(originals)} image there, two are needed")
        ends = trained.encode(originals[:2])[0]
    path = trained.decode(model.slerp(ends[0], ends[1], _NUM.value or 10), posterior=_IMAGES.value is not None)
    if _is_picture(out):
        pictures.save(pictures.grid(path, columns=len(path)), out)
        return
    for i, image in enumerate(pictures.to_uint8(path)):
        pictures.save(pictures.to_image(image), out / f"path_{i:04d}.png")


def _is_picture(out: pathlib.Path) -> bool:
    return out.suffix.lower() == ".png"


def _two_seeds(words: list[str]) -> list[int]:
    if len(words) != 2 or not all(word.strip().isdigit() for word in words):
        raise errors.UserError(f"--seeds={','.join(words)}: must be two whole numbers, for instance --seeds=3,7")
    return [int(word) for word in words]


def _read_images(trained: model.Model) -> tuple[list[str], np.ndarray]:
    """Names and uint8 images of --images, cropped and resized as the training images were."""
    if not _IMAGES.value:
        raise errors.UserError(f"--mode={_MODE.value} needs --images=DIR, a folder or archive of images, or files")
    target = source.target_of(trained.config["data"])
    form = forms.open_places(_IMAGES.value, size=target.size)
    decoded = folder.decode_all(form, target)
    if not decoded:
        raise errors.UserError(f"--images={_IMAGES.value}: no readable image there ({images.FORMAT_WORDS})")
    names = [f"{i:05d}_{pathlib.Path(form.names[place]).stem}" for i, place in enumerate(decoded)]
    return names, np.stack(list(decoded.values()))


if __name__ == "__main__":
    flags.mark_flag_as_required("workdir")
    errors.run(main)
