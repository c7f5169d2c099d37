"""Writes images as a TFDS data set in ArrayRecord files.

DATA_DIR/NAME/RESOLUTION/VERSION                 the finished data set, moved here by one rename
DATA_DIR/NAME/RESOLUTION/.incomplete-DIGEST/     until then: data/ with the files, done/ with a record of each shard

The bytes of a shard depend only on the specification and its entries. A shard is complete once its record exists. A
killed command that is rerun resumes after the last complete shard and ends with the same bytes.
"""

from collections.abc import Iterator, Sequence
import json
import pathlib
import shutil

from array_record.python.array_record_module import ArrayRecordWriter
import tensorflow_datasets as tfds
from tensorflow_datasets.proto import tf_example_pb2

from introvae_jax import disk, progress
from introvae_jax.data.preparation import source_report
from introvae_jax.data.preparation.encode import EncodedImage, encode_all
from introvae_jax.data.preparation.spec import DatasetSpec, Shard, shards
from introvae_jax.data.readers.base import Reader
from introvae_jax.errors import UserError, printable, warn


def write_dataset(
    reader: Reader, spec: DatasetSpec, data_dir: pathlib.Path, *, workers: int, strict: bool
) -> pathlib.Path:
    """Writes the data set, or its missing shards, and returns its folder.

    strict: True raises UserError for any finding of the report. Also raises UserError if no image can be read, if the
    folder holds another data set, or if the disk is full. Complete shards stay, and a rerun uses them.
    """
    final = data_dir / spec.name / str(spec.target.size) / spec.version
    partial = final.parent / f".incomplete-{spec.digest()}"
    todo = shards(spec, reader)
    final.parent.mkdir(parents=True, exist_ok=True)
    with disk.file_lock(final.parent / ".lock", "preparing this data set"):
        if (final / "manifest.json").exists():
            _require_same(final, spec)
            shutil.rmtree(partial, ignore_errors=True)  # left if the command was killed before this line
            return final
        if final.exists():
            raise UserError(f"{final}: made by another program; remove it or give another --data_dir")
        if others := [str(path) for path in final.parent.glob(".incomplete-*") if path != partial]:
            warn(f"{', '.join(others)}: begun with other settings or versions; remove it if you do not need it")
        for folder in ("data", "done"):
            (partial / folder).mkdir(parents=True, exist_ok=True)
        _write_missing(reader, spec, todo, partial, workers)
        with progress.phase("looking for duplicates"):
            records = [(shard, json.loads(_record_path(partial, shard).read_text(encoding="utf-8"))) for shard in todo]
            findings = source_report.findings(reader, records)
        source_report.write(partial / "data" / "report.txt", findings)
        if strict and findings:
            raise UserError(
                f"--strict: {source_report.summary(findings)}; all are named in {partial / 'data' / 'report.txt'}. "
                "Correct the source, or rerun without --strict, which reuses the written shards"
            )
        _write_metadata(partial / "data", spec, records, findings)
        (partial / "data").rename(final)
        shutil.rmtree(partial)
    return final


def features(spec: DatasetSpec) -> tfds.features.FeaturesDict:
    """The features of TFDS's own celeb_a_hq, so that TFDS reads every prepared data set."""
    shape = (spec.target.size, spec.target.size, spec.target.channels)
    image = tfds.features.Image(shape=shape, encoding_format=spec.encoding)
    return tfds.features.FeaturesDict({"image": image, "image/filename": tfds.features.Text()})


def _write_missing(
    reader: Reader, spec: DatasetSpec, todo: Sequence[Shard], partial: pathlib.Path, workers: int
) -> None:
    missing = [shard for shard in todo if not _record_path(partial, shard).exists()]
    entries = [entry for shard in missing for entry in shard.entries]
    encoded = encode_all(reader, spec, entries, workers)
    written = sum(len(shard.entries) for shard in todo) - len(entries)
    preparing = f"preparing {spec.name}/{spec.target.size}"
    with progress.phase(preparing, len(reader.names), "images", done=written) as counter:
        for shard in missing:
            _write_shard(reader, spec, shard, encoded, partial, counter)


def _write_shard(
    reader: Reader, spec: DatasetSpec, shard: Shard, encoded: Iterator[EncodedImage], partial: pathlib.Path,
    counter: progress.Phase,
) -> None:  # fmt: skip
    """Writes the images of a shard, the next ones of `encoded`, and then the record of the complete shard."""
    layout, examples, rows = features(spec), [], []
    for entry, image in zip(shard.entries, encoded, strict=False):  # takes none of the next shard
        name = reader.names[entry]
        if image.data is not None:
            example = layout.serialize_example({"image": image.data, "image/filename": printable(name)})
            examples.append(tf_example_pb2.Example.FromString(example).SerializeToString(deterministic=True))
        rows.append({"name": name, **image.record()})
        counter.advance()
    size = sum(map(len, examples))
    what = f"shard {shard.number} of {shard.split}"
    disk.require_space(partial, 2 * size, what, resume="to resume from the last complete shard")
    with disk.atomic_write(partial / "data" / shard.filename(spec.name)) as temporary:
        writer = ArrayRecordWriter(str(temporary), "group_size:1,uncompressed")  # the images are compressed
        for example in examples:
            writer.write(example)
        writer.close()
    with disk.atomic_write(_record_path(partial, shard)) as temporary:
        temporary.write_text(json.dumps({"bytes": size, "rows": rows}), encoding="utf-8")


def _write_metadata(
    directory: pathlib.Path, spec: DatasetSpec, records: source_report.Records, findings: source_report.Findings
) -> None:
    counts = source_report.counts(records)
    if not sum(counts["train"][0]):
        raise UserError(
            f"{spec.source}: {source_report.summary(findings) or 'nothing there'}; no image is left to train on"
        )
    infos = []
    for split, (lengths, size) in counts.items():
        if sum(lengths):
            infos.append(tfds.core.SplitInfo(name=split, shard_lengths=lengths, num_bytes=size))
        else:  # no test image is readable: a share of the training images is held out when the set is read
            for path in directory.glob(f"{spec.name}-{split}.array_record-*"):
                path.unlink()
    tfds.folder_dataset.write_metadata(
        data_dir=directory, features=features(spec), split_infos=infos, version=spec.version, check_data=False,
        description=f"{printable(spec.source)} at {spec.target.size}x{spec.target.size}, prepared by introvae_jax",
    )  # fmt: skip
    manifest = source_report.manifest(spec, records, findings)
    (directory / "manifest.json").write_text(json.dumps(manifest, indent=2) + "\n", encoding="utf-8")


def _record_path(partial: pathlib.Path, shard: Shard) -> pathlib.Path:
    return partial / "done" / f"{shard.split}-{shard.number:05d}.json"


def _require_same(final: pathlib.Path, spec: DatasetSpec) -> None:
    """Raises UserError if the finished data set has another specification."""
    there, wanted = json.loads((final / "manifest.json").read_text(encoding="utf-8"))["plan"], spec.comparable_record()
    changed = [f"{key}: {there[key]!r} there, {wanted[key]!r} now" for key in wanted if there.get(key) != wanted[key]]
    if changed:
        raise UserError(f"{final} holds another data set ({'; '.join(changed)}). Remove it, or give another --data_dir")
