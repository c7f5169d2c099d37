"""The command's work: from what was asked to scores, table and record."""

from collections.abc import Callable, Sequence
import dataclasses
import datetime
import functools
import hashlib
import pathlib
import tempfile
from typing import Any

import jax

from introvae_jax import bucket, disk, model, progress
from introvae_jax.data import images, source
from introvae_jax.errors import UserError, warn
from introvae_jax.evaluation import encoder_evaluation, image_sets, results, specs
from introvae_jax.evaluation.cache import Cache
from introvae_jax.evaluation.extractors import Views
from introvae_jax.evaluation.set_evaluation import Comparison
from introvae_jax.features.weights import INCEPTION_SHA256


@dataclasses.dataclass(frozen=True)
class Options:
    """The flags of introvae_jax.evaluate."""

    metrics: Sequence[str]
    workdir: str | None = None
    step: str = "latest"
    weights: str = "ema"
    real: str | None = None
    fake: str | None = None
    split: str = "train"
    data_path: str | None = None
    ood: str | None = None
    size: int | None = None
    resize: str = "pytorch"
    inception: str = ""
    inception_sha256: str = ""
    floor: bool = False
    seed: int = 0
    batch_size: int = 64
    cache: bool = True
    out: str | None = None

    @property
    def views(self) -> Views:
        return Views(self.resize, self.inception, self.inception_sha256.lower() or INCEPTION_SHA256)


def evaluate(options: Options) -> tuple[str, pathlib.Path | None]:
    """The table, and where the record was written. Raises UserError for what the user can put right."""
    of_sets, of_encoder = specs.parse(options.metrics)
    if not (of_sets or of_encoder):
        raise UserError("--metrics is empty: name one or more, for instance --metrics=fid,reconstruction")
    path = _record_path(options)
    try:
        prepare = _of_model if options.fake is None else _of_folders
        with jax.default_matmul_precision("highest"):
            score = prepare(options, of_sets, of_encoder)
            _require_place(path)
            found = score()
        _save(found, path)
    except OSError as error:
        raise UserError(f"{error.filename or 'temporary files'}: {error.strerror or error}") from error
    return results.table(found), path


def _require_place(path: pathlib.Path | None) -> None:
    """Raises OSError, before anything is computed, if the record cannot be written."""
    if path is not None and bucket.is_bucket(path):
        bucket.require(path.parent, writes=True)
    elif path is not None:
        path.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=path.parent):
            pass


def _save(found: Sequence[results.Score], path: pathlib.Path | None) -> None:
    """Writes the record; if that fails after all, what was computed is at least shown."""
    if path is None:
        return
    try:
        results.save(found, path)
    except OSError:
        print(results.table(found))
        raise


def _of_folders(
    options: Options, of_sets: Sequence[specs.OfSets], of_encoder: Sequence[specs.OfEncoder]
) -> Callable[[], list[results.Score]]:
    if options.workdir is not None:
        raise UserError("--workdir and --fake: samples come from one of them")
    if options.real is None:
        raise UserError("--fake needs --real=DIR, the images to compare with")
    if options.ood is not None or options.data_path is not None:
        raise UserError("--ood and --data_path are for --workdir=RUN, not for --fake=DIR")
    if of_encoder:
        raise UserError(f"{of_encoder[0].name} is a figure of a model: it needs --workdir=RUN instead of --fake")
    target = images.Target(options.size, 3) if options.size else None
    real = image_sets.of_place(options.real, "real", target, options.seed)
    fake = image_sets.of_place(options.fake, "generated", target, options.seed)
    comparison = Comparison(
        of_sets, real, fake.shape, options.views, generated=fake.count, floor=options.floor,
        batch_size=options.batch_size, cache=Cache(real.stamp) if options.cache else None,
    )  # fmt: skip
    return functools.partial(comparison.score, fake)


def _of_model(
    options: Options, of_sets: Sequence[specs.OfSets], of_encoder: Sequence[specs.OfEncoder]
) -> Callable[[], list[results.Score]]:
    if options.workdir is None:
        raise UserError("--workdir=RUN is needed, or --real=DIR and --fake=DIR")
    if options.size is not None:
        raise UserError("--size is for --fake=DIR; a run has the size of its model")
    trained = model.load(
        options.workdir, step=model.parse_step(options.step), weights=options.weights, batch_size=options.batch_size
    )
    if len(trained.image_shape) == 1:
        raise UserError(f"{options.workdir} is a model of points: python -m benchmarks.toy2d scores such")
    says = image_sets.describe(trained, options.workdir)
    data = dict(trained.config["data"]) | ({"path": options.data_path} if options.data_path else {})
    target, splits, work = source.target_of(data), None, []
    if options.real is None or of_encoder:
        splits = _open_splits(options, data, trained)
    if of_sets:
        if options.real is not None:
            real = image_sets.of_place(options.real, "real", target, options.seed)
        else:
            real = image_sets.of_split(splits, options.split, "real", data, options.seed)
        comparison = Comparison(
            of_sets, real, trained.image_shape, options.views, floor=options.floor, batch_size=options.batch_size,
            cache=Cache(real.stamp) if options.cache else None,
        )  # fmt: skip
        if options.seed + comparison.generated > 2**32:
            raise UserError(
                f"--seed={options.seed}: {comparison.generated:,} samples take seeds from there on, and all must be "
                "below 2**32"
            )
        work.append(functools.partial(comparison.score, image_sets.of_model(trained, says, options.seed)))
    if of_encoder:
        outside = None if options.ood is None else image_sets.of_place(options.ood, "outside", target, options.seed)
        held_out = image_sets.of_split(splits, "test", "held_out", data, options.seed)
        encoder = encoder_evaluation.Encoding(
            of_encoder, held_out, trained.config, outside=outside, seed=options.seed, batch_size=options.batch_size
        )
        work.append(functools.partial(encoder.score, trained, says))
    return lambda: [score for part in work for score in part()]


def _open_splits(options: Options, data: dict[str, Any], trained: model.Model) -> source.Splits:
    """The run's images, from where they are now."""
    if data["source"] == "folder":
        if not data["path"]:
            raise UserError(f"{options.workdir} knows no images: name the folder or archive with --data_path=DIR")
        if not disk.expand(data["path"]).exists():
            raise UserError(
                f"{data['path']}: the images of {options.workdir} are not there; say where with --data_path=DIR"
            )
    with progress.phase("opening the images"):
        splits = source.open_splits(data)
    if trained.data_identity not in ("", splits.identity):
        warn(
            f"{options.workdir} was trained on other images than are there now: the figures are of these, and held-out "
            "ones may have been trained on"
        )
    return splits


def _record_path(options: Options) -> pathlib.Path | None:
    if options.out is not None:
        path = disk.place(options.out)
        if path.suffix != ".json":
            raise UserError(f"--out={options.out}: must be NAME.json; the table goes to NAME.md")
        for each in (path, path.with_suffix(".md")):
            if each.exists():
                raise UserError(f"--out={options.out}: {each} is there already, and nothing is written over")
        return path
    if options.workdir is None:
        return None
    now = datetime.datetime.now().strftime("%Y%m%d_%H%M%S")
    asked = hashlib.sha256(repr(options).encode()).hexdigest()[:4]  # two of one second are told apart
    return disk.place(options.workdir) / "evaluations" / f"{now}_{asked}.json"
