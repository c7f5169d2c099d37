"""Prepares images for training: images in any format -> TFDS ArrayRecord files. Usage:

    python -m introvae_jax.prepare --source=DIR --name=faces --resolution=256
    python -m introvae_jax.prepare --source=data1024x1024.tar --name=celeb_a_hq --resolution=256
    python -m introvae_jax.prepare --source=img_align_celeba.zip --name=celeb_a --resolution=64 --crop=178x178
    python -m introvae_jax.prepare --source=avatars --name=avatars --resolution=64

--source is a folder, a zip, a tar, ProGAN's TFRecords or HDF5, an LSUN LMDB folder, tfds:NAME[/CONFIG]
or avatars[:STYLE]. Rerun the same command to resume. report.txt beside the data lists skipped, changed and duplicate
images; manifest.json describes the source. The last line of the output is the command that trains on the data set.
"""

from collections.abc import Sequence
import os
import re

from absl import flags

from introvae_jax import command_line, errors, progress

_SOURCE = flags.DEFINE_string("source", None, "The source of the images; see above.")
_NAME = flags.DEFINE_string("name", None, "Name of the data set: lower-case letters, digits and _.")
_RESOLUTION = flags.DEFINE_integer("resolution", None, "Height and width in pixels.", lower_bound=4, upper_bound=4096)
_DATA_DIR = flags.DEFINE_string("data_dir", "", "Folder of data sets; by default TFDS's folder.")
_CHANNELS = flags.DEFINE_integer("channels", 3, "1 (grey) or 3 (RGB).")
_CROP = flags.DEFINE_string("crop", "center", "center, none, WxH (centred) or WxH+X+Y.")
_RESIZE = flags.DEFINE_enum("resize", "lanczos", ["lanczos", "bicubic", "bilinear", "box"], "Filter, antialiased.")
_FORMAT = flags.DEFINE_enum(
    "format", "png", ["png", "jpeg"], "png is lossless (JPEGs that already fit are kept); jpeg reads faster."
)
_QUALITY = flags.DEFINE_integer("quality", 95, "Of --format=jpeg.", lower_bound=1, upper_bound=100)
_TEST = flags.DEFINE_string(
    "test", "", "Test images: 5%, 1000 (by the hash of their names) or last:1000; by default the standard split."
)
_NUM_IMAGES = flags.DEFINE_integer("num_images", 0, "Number of avatars to draw, by default 10,000.", lower_bound=0)
_WORKERS = flags.DEFINE_integer("workers", 0, "Number of processes; by default one per core.", lower_bound=0)
_STRICT = flags.DEFINE_bool("strict", False, "Refuse a source with broken, changed, enlarged or duplicate images.")


def main(_: Sequence[str]) -> None:
    """Prepares the data set that the flags describe."""
    _check_flags()
    # Imported here, so that --help and wrong flags are fast, and worker processes do not import it.
    with progress.phase("importing the libraries"):
        from introvae_jax.data import arrayrecord, images, readers
        from introvae_jax.data.preparation import source_report, spec, train_command, write

    if problem := train_command.untrainable(_RESOLUTION.value):
        errors.warn(problem)

    try:
        with progress.phase(f"listing {_SOURCE.value}"):
            reader = readers.open_reader(_SOURCE.value, size=_RESOLUTION.value, num_images=_NUM_IMAGES.value)
        if not reader.names:
            raise errors.UserError(f"{_SOURCE.value}: contains no files")
        target = images.Target(_RESOLUTION.value, _CHANNELS.value, _CROP.value, _RESIZE.value)
        wanted = spec.DatasetSpec(
            source=_SOURCE.value, fingerprint=reader.fingerprint, name=_NAME.value, target=target,
            encoding=_FORMAT.value, quality=_QUALITY.value, test=_TEST.value,
        )  # fmt: skip
        workers = _WORKERS.value or os.cpu_count() or 1
        directory = write.write_dataset(
            reader, wanted, arrayrecord.data_dir(_DATA_DIR.value), workers=workers, strict=_STRICT.value
        )
    except OSError as error:
        raise errors.UserError(f"{error.filename or _DATA_DIR.value}: {error.strerror or error}") from error
    print(source_report.describe(directory))


def _check_flags() -> None:
    from introvae_jax.data import images

    if not _SOURCE.value:
        raise errors.UserError("--source is empty: name a folder, an archive, tfds:NAME or avatars")
    if not re.fullmatch(r"[a-z][a-z0-9_]*", _NAME.value):
        raise errors.UserError(f"--name={_NAME.value}: must be lower-case letters, digits and _, a letter first")
    if _CHANNELS.value not in (1, 3):
        raise errors.UserError(f"--channels={_CHANNELS.value}: must be 1 or 3")
    if _FORMAT.value == "png":
        command_line.refuse_unused(["quality"], "needs --format=jpeg")
    if not (_SOURCE.value == "avatars" or _SOURCE.value.startswith("avatars:")):
        command_line.refuse_unused(["num_images"], "needs --source=avatars")
    try:
        images.crop_box(_CROP.value, 1, 1)
    except ValueError as error:
        raise errors.UserError(f"--{error}") from error


if __name__ == "__main__":
    flags.mark_flags_as_required(["source", "name", "resolution"])
    errors.run(main)
