"""Writes samples, reconstructions and interpolations of a model as pictures, for introvae_jax.sample."""

from collections.abc import Sequence
import csv
import dataclasses
import pathlib

import numpy as np
from PIL import Image

from introvae_jax import disk, model, pictures, plots, progress
from introvae_jax.data import densities, folder, images, readers, source
from introvae_jax.errors import UserError
from introvae_jax.metrics import reconstruction
from introvae_jax.objectives import terms

MODES = ("sample", "reconstruct", "interpolate")
PAIRS = 6  # per row of a sheet
# Flags that only some modes use.
_READ_BY = {"images": ("reconstruct", "interpolate"), "seeds": ("interpolate",), "seed": ("sample",)}
_SUFFIXES = ", ".join(f"NAME{suffix}" for suffix in pictures.FORMATS)


@dataclasses.dataclass(frozen=True)
class Options:
    """Flags of introvae_jax.sample; None for those that were not given."""

    mode: str = "sample"
    num: int | None = None
    seed: int | None = None
    seeds: Sequence[str] | None = None
    images: str | None = None
    out: str | None = None


def check(options: Options) -> None:
    """Raises UserError for flags that the mode would ignore, and for an --out in an unknown format."""
    for name, modes in _READ_BY.items():
        if getattr(options, name) is not None and options.mode not in modes:
            readers = " or ".join(f"--mode={mode}" for mode in modes)
            raise UserError(f"--{name} has no effect with --mode={options.mode}; it needs {readers}")
    if options.mode == "interpolate":
        if (options.seeds is None) == (options.images is None):
            raise UserError("--mode=interpolate takes either --seeds=A,B or --images=A.png,B.png")
        if options.num == 1:
            raise UserError("--num=1: must be 2 or more with --mode=interpolate")
    if options.mode == "reconstruct" and not options.images:
        raise UserError("--mode=reconstruct needs --images=DIR, a folder or archive of images, or files")
    suffix = pathlib.PurePath(options.out or "").suffix.lower()
    if suffix == ".gif" and options.mode != "interpolate":
        raise UserError(f"--out={options.out}: a GIF needs --mode=interpolate; name {_SUFFIXES}")
    if suffix in {*Image.registered_extensions(), ".svg", ".npy", ".npz"} - {*pictures.FORMATS, ".gif"}:
        raise UserError(f"--out={options.out}: this format is not supported; name {_SUFFIXES}, or a folder")


def write(trained: model.Model, options: Options, workdir: str) -> pathlib.Path:
    """Makes the pictures that `options` describe; returns their path. Raises UserError for invalid options."""
    check(options)
    if len(trained.image_shape) == 1 and options.mode != "sample":
        raise UserError(f"--mode={options.mode}: {workdir} is a model of points; only --mode=sample is supported")
    out = disk.resolve(options.out) if options.out else disk.resolve(workdir) / f"{options.mode}.png"
    make = {"sample": _sample, "reconstruct": _reconstruct, "interpolate": _interpolate}[options.mode]
    try:
        make(trained, options, out)
    except OSError as error:
        raise UserError(f"{error.filename or out}: {error.strerror or error}") from error
    return out


def slerp(z0: np.ndarray, z1: np.ndarray, num: int) -> np.ndarray:
    """`num` latents on the great-circle path from z0 to z1, both [Z], ends included: float32 [num, Z].

    The length is interpolated linearly. Source: Shoemake 1985; White 2016 (arXiv 1609.04468).
    """
    t = np.linspace(0.0, 1.0, num)[:, None]
    length0, length1 = np.linalg.norm(z0), np.linalg.norm(z1)
    unit0, unit1 = z0 / max(length0, 1e-12), z1 / max(length1, 1e-12)
    angle = np.arccos(np.clip(unit0 @ unit1, -1.0, 1.0))
    if np.sin(angle) < 1e-6:
        return np.asarray((1 - t) * z0 + t * z1, np.float32)
    direction = (np.sin((1 - t) * angle) * unit0 + np.sin(t * angle) * unit1) / np.sin(angle)
    return np.asarray(direction * ((1 - t) * length0 + t * length1), np.float32)


def _sample(trained: model.Model, options: Options, out: pathlib.Path) -> None:
    num, first = options.num or 64, options.seed or 0
    if len(trained.image_shape) == 1:
        _save_points(trained, out, num, first)
        return
    if _is_picture(out):
        _require_size(trained, out, num, pictures.square(num))
        pictures.save(pictures.grid(trained.sample(num, first)), out)
        return
    if out.suffix.lower() == ".csv":
        raise UserError(f"--out={out}: must be a folder or NAME.png; only models of points write NAME.csv")
    with progress.phase("sampling", num, "images") as sampled:
        for start in range(first, first + num, trained.batch_size):
            size = min(trained.batch_size, first + num - start)
            names = [f"seed_{seed:06d}" for seed in range(start, start + size)]
            _save_each(names, trained.sample(size, start), out)
            sampled.advance(size)


def _save_points(trained: model.Model, out: pathlib.Path, num: int, first: int) -> None:
    """Writes samples of a 2-D density as a plot or as numbers."""
    if not _is_picture(out) and out.suffix.lower() != ".csv":
        raise UserError(f"--out={out}: must be NAME.png or NAME.csv for a model of points")
    points = trained.sample(num, first)
    if _is_picture(out):
        reach = densities.DENSITIES[trained.config["data"]["name"]].reach
        pictures.save(plots.points({f"{num} samples": points}, reach), out)
        return
    with disk.atomic_write(out) as temporary:
        np.savetxt(temporary, points, fmt="%.6g", delimiter=",", header="x,y", comments="")


def _reconstruct(trained: model.Model, options: Options, out: pathlib.Path) -> None:
    names, originals = _read_images(trained, options.images or "")
    names, originals = names[: options.num], originals[: options.num]
    if _is_picture(out):
        _require_size(trained, out, 2 * len(originals), 2 * min(PAIRS, len(originals)))
    mu, logvar = trained.encode(originals)
    copies = trained.decode(mu, posterior=True)
    if not _is_picture(out):
        _save_each([f"{i:05d}_{pathlib.Path(name).stem}" for i, name in enumerate(names)], copies, out)
        return
    pictures.save(pictures.pairs(originals / 255.0, copies, PAIRS), out)
    _save_index(names, reconstruction.errors(originals / 255.0, copies)["psnr"], np.asarray(terms.kl(mu, logvar)), out)


def _save_index(names: Sequence[str], psnr: np.ndarray, kl: np.ndarray, out: pathlib.Path) -> None:
    """Writes NAME.csv beside the sheet NAME.png: a line for each pair, in reading order.

    row, column: of the pair, from 1. psnr: in dB, of the pair on the sheet. kl: of the posterior to the prior, in nats;
    empty for latents on the sphere, which have none.
    """
    with (
        disk.atomic_write(out.with_suffix(".csv")) as temporary,
        temporary.open("w", encoding="utf-8", newline="") as file,
    ):
        rows = csv.writer(file)
        rows.writerow(["row", "column", "file", "psnr", "kl"])
        for i, name in enumerate(names):
            nats = f"{kl[i]:.6g}" if np.isfinite(kl[i]) else ""
            rows.writerow([i // PAIRS + 1, i % PAIRS + 1, name, f"{psnr[i]:.4f}", nats])


def _interpolate(trained: model.Model, options: Options, out: pathlib.Path) -> None:
    num = options.num or 10
    if _is_picture(out):
        _require_size(trained, out, num, num)
    if options.seeds is not None:
        ends = trained.latents(_two_seeds(options.seeds))
    else:
        originals = _read_images(trained, options.images or "")[1]
        if len(originals) < 2:
            raise UserError(f"--images={options.images}: {len(originals)} image found, two are needed")
        ends = trained.encode(originals[:2])[0]
    path = trained.decode(slerp(ends[0], ends[1], num), posterior=options.images is not None)
    if out.suffix.lower() == ".gif":
        pictures.save_animation(path, out)
    elif _is_picture(out):
        pictures.save(pictures.grid(path, columns=len(path)), out)
    else:
        _save_each([f"path_{i:04d}" for i in range(len(path))], path, out)


def _save_each(names: Sequence[str], pixels: np.ndarray, out: pathlib.Path) -> None:
    """Writes single PNGs to a folder, in the size of the model."""
    with progress.phase("writing images", len(names)) as writing:
        for name, image in zip(names, pictures.to_uint8(pixels), strict=True):
            pictures.save(pictures.to_image(image), out / f"{name}.png")
            writing.advance()


def _is_picture(out: pathlib.Path) -> bool:
    return out.suffix.lower() in pictures.FORMATS


def _require_size(trained: model.Model, out: pathlib.Path, num: int, columns: int) -> None:
    """Raises UserError, before anything is computed, for a sheet that is too large for its format."""
    sides = pictures.sheet_size(num, columns, *trained.image_shape[:2])
    form = pictures.FORMATS[out.suffix.lower()]
    if max(sides) + pictures.HEADER > pictures.MOST_PIXELS[form]:
        raise UserError(
            f"{out}: {num:,} images make a picture of {sides[0]:,} x {sides[1]:,} pixels; {form} allows "
            f"{pictures.MOST_PIXELS[form]:,} per side. Use a smaller --num, or --out=DIR for single PNGs"
        )


def _two_seeds(words: Sequence[str]) -> list[int]:
    if len(words) != 2 or not all(word.strip().isdecimal() and len(word) < 20 for word in words):
        raise UserError(f"--seeds={','.join(words)}: must be two whole numbers, for instance --seeds=3,7")
    return [int(word) for word in words]


def _read_images(trained: model.Model, places: str) -> tuple[list[str], np.ndarray]:
    """Names and uint8 images of --images, cropped and resized like the training images."""
    target = source.target_of(trained.config["data"])
    reader = readers.open_places(places, size=target.size)
    decoded = folder.decode_all(reader, target)
    if not decoded:
        raise UserError(f"--images={places}: no readable image found ({images.FORMAT_WORDS})")
    return [reader.names[i] for i in decoded], np.stack(list(decoded.values()))
