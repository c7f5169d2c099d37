"""Implements introvae_jax.evaluate: computes results from its flags, and writes the table and the record."""

from collections.abc import Callable, Sequence
import dataclasses
import datetime
import functools
import pathlib
import tempfile
from typing import Any

import jax

from introvae_jax import bucket, disk, hashes, model, progress
from introvae_jax.data import images, source
from introvae_jax.errors import UserError, warn
from introvae_jax.evaluation import image_sets, results, specs
from introvae_jax.evaluation.cache import Cache
from introvae_jax.evaluation.encoder_evaluation import EncoderEvaluation
from introvae_jax.evaluation.extractors import FeatureExtractors
from introvae_jax.evaluation.results import Result
from introvae_jax.evaluation.set_evaluation import SetEvaluation
from introvae_jax.evaluation.specs import EncoderSpec, SetSpec
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
    def extractors(self) -> FeatureExtractors:
        """The feature extractors that the flags describe."""
        return FeatureExtractors(self.resize, self.inception, self.inception_sha256.lower() or INCEPTION_SHA256)


def evaluate(options: Options) -> tuple[str, pathlib.Path | None]:
    """Returns the table and the path of the record. Raises UserError for every problem that the user can fix."""
    of_sets, of_encoder = specs.parse(options.metrics)
    if not (of_sets or of_encoder):
        raise UserError("--metrics is empty: name one or more, for instance --metrics=fid,reconstruction")
    path = _record_path(options)
    try:
        with jax.default_matmul_precision("highest"):
            if options.fake is None:
                score = _of_model(options, of_sets, of_encoder)
            else:
                score = _of_folders(options, options.fake, of_sets, of_encoder)
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


def _save(found: Sequence[Result], path: pathlib.Path | None) -> None:
    """Writes the record; if that fails, prints the table, so that no result is lost."""
    if path is None:
        return
    try:
        results.save(found, path)
    except OSError:
        print(results.table(found))
        raise


def _of_folders(
    options: Options, fake_path: str, of_sets: Sequence[SetSpec], of_encoder: Sequence[EncoderSpec]
) -> Callable[[], list[Result]]:
    if options.workdir is not None:
        raise UserError("--workdir and --fake exclude each other: give one of them")
    if options.real is None:
        raise UserError("--fake needs --real=DIR, the images to compare with")
    if options.ood is not None or options.data_path is not None:
        raise UserError("--ood and --data_path are for --workdir=RUN, not for --fake=DIR")
    if of_encoder:
        raise UserError(f"{of_encoder[0].name} is a metric of a model: it needs --workdir=RUN instead of --fake")
    target = images.Target(options.size, 3) if options.size else None
    real = image_sets.from_path(options.real, "real", target, options.seed)
    fake = image_sets.from_path(fake_path, "generated", target, options.seed)
    evaluation = SetEvaluation(
        of_sets, real, fake.shape, options.extractors, generated=fake.count, floor=options.floor,
        batch_size=options.batch_size, cache=Cache(real.cache_key) if options.cache else None,
    )  # fmt: skip
    return functools.partial(evaluation.score, fake)


def _of_model(
    options: Options, of_sets: Sequence[SetSpec], of_encoder: Sequence[EncoderSpec]
) -> Callable[[], list[Result]]:
    if options.workdir is None:
        raise UserError("--workdir=RUN is needed, or --real=DIR and --fake=DIR")
    if options.size is not None:
        raise UserError("--size needs --fake=DIR; samples of a run have the size of its model")
    trained = model.load(
        options.workdir, step=model.parse_step(options.step), weights=options.weights, batch_size=options.batch_size
    )
    if len(trained.image_shape) == 1:
        raise UserError(f"{options.workdir} is a model of points; python -m benchmarks.toy2d scores those")
    metadata = image_sets.model_metadata(trained, options.workdir)
    data = dict(trained.config["data"]) | ({"path": options.data_path} if options.data_path else {})
    target, work = source.target_of(data), list[Callable[[], list[Result]]]()
    splits = functools.cache(lambda: _open_splits(options, data, trained))  # opened once, if at all
    if of_sets:
        if options.real is not None:
            real = image_sets.from_path(options.real, "real", target, options.seed)
        else:
            real = image_sets.from_split(splits(), options.split, "real", data, options.seed)
        evaluation = SetEvaluation(
            of_sets, real, trained.image_shape, options.extractors, floor=options.floor, batch_size=options.batch_size,
            cache=Cache(real.cache_key) if options.cache else None,
        )  # fmt: skip
        if options.seed + evaluation.generated > 2**32:
            raise UserError(
                f"--seed={options.seed}: {evaluation.generated:,} samples use this and the following seeds, which must "
                "be below 2**32"
            )
        work.append(functools.partial(evaluation.score, image_sets.from_model(trained, metadata, options.seed)))
    if of_encoder:
        outside = None if options.ood is None else image_sets.from_path(options.ood, "outside", target, options.seed)
        held_out = image_sets.from_split(splits(), "test", "held_out", data, options.seed)
        encoder = EncoderEvaluation(
            of_encoder, held_out, trained.config, outside=outside, seed=options.seed, batch_size=options.batch_size
        )
        work.append(functools.partial(encoder.score, trained, metadata))
    return lambda: [result for part in work for result in part()]


def _open_splits(options: Options, data: dict[str, Any], trained: model.Model) -> source.Splits:
    """Opens the run's images at their current path."""
    if data["source"] == "folder":
        if not data["path"]:
            raise UserError(f"{options.workdir} has no image source: name a folder or archive with --data_path=DIR")
        if not disk.expand(data["path"]).exists():
            raise UserError(
                f"{data['path']}: the images of {options.workdir} are not there; give their path with --data_path=DIR"
            )
    with progress.phase("opening the images"):
        splits = source.open_splits(data)
    if trained.data_identity not in ("", splits.identity):
        warn(
            f"{options.workdir} was trained on images other than those there now; metrics use the latter, and the "
            "model may have been trained on held-out ones"
        )
    return splits


def _record_path(options: Options) -> pathlib.Path | None:
    if options.out is not None:
        path = disk.resolve(options.out)
        if path.suffix != ".json":
            raise UserError(f"--out={options.out}: must be NAME.json; the table goes to NAME.md")
        for each in (path, path.with_suffix(".md")):
            if each.exists():
                raise UserError(f"--out={options.out}: {each} exists already; name another file")
        return path
    if options.workdir is None:
        return None
    now = datetime.datetime.now().strftime("%Y%m%d_%H%M%S")
    asked = hashes.sha256(repr(options).encode())[:4]  # distinguishes two records of the same second
    return disk.resolve(options.workdir) / "evaluations" / f"{now}_{asked}.json"
