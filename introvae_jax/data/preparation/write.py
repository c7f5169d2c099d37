"""Packing: a form of images -> a TFDS data set in ArrayRecord files, by several processes.

    DATA_DIR/NAME/RESOLUTION/VERSION                 the finished set, which appears in one piece
    DATA_DIR/NAME/RESOLUTION/.incomplete-PLAN/       until then: data/ as it will be, done/ a record of each shard

A shard's bytes depend on the plan and its entries alone, and a shard counts once its record is there. So a
packing that was killed goes on where it was, and ends with the same bytes as one that was not.
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
from introvae_jax.data.preparation.encode import Outcome, convert_all
from introvae_jax.data.preparation.spec import Plan, Shard, shards
from introvae_jax.data.readers.base import Form
from introvae_jax.errors import UserError, printable, warn


def pack(form: Form, plan: Plan, data_dir: pathlib.Path, *, workers: int, strict: bool) -> pathlib.Path:
    """Writes the data set, or what is missing of it, and returns its folder.

    strict: any finding of the report refuses the set. Raises UserError then, if no image is whole, if the
    place holds another set, or if the disk is full; what is written stays and counts when run again.
    """
    final = data_dir / plan.name / str(plan.target.size) / plan.version
    partial = final.parent / f".incomplete-{plan.digest()}"
    todo = shards(plan, form)
    final.parent.mkdir(parents=True, exist_ok=True)
    with disk.only_one(final.parent / ".lock", "preparing this data set"):
        if (final / "manifest.json").exists():
            _require_same(final, plan)
            shutil.rmtree(partial, ignore_errors=True)  # a kill between the last two steps leaves it
            return final
        if final.exists():
            raise UserError(f"{final}: made by another program; remove it or give another --data_dir")
        if others := [str(path) for path in final.parent.glob(".incomplete-*") if path != partial]:
            warn(f"{', '.join(others)}: begun with other settings or versions; remove it if it is not wanted")
        for folder in ("data", "done"):
            (partial / folder).mkdir(parents=True, exist_ok=True)
        _write_missing(form, plan, todo, partial, workers)
        with progress.phase("looking for duplicates"):
            records = [(shard, json.loads(_record_path(partial, shard).read_text(encoding="utf-8"))) for shard in todo]
            findings = source_report.findings(form, records)
        source_report.write(partial / "data" / "report.txt", findings)
        if strict and findings:
            raise UserError(
                f"--strict: {source_report.summary(findings)}; all are named in {partial / 'data' / 'report.txt'}. "
                "Mend the source, or leave out --strict: what is written will be used"
            )
        _write_metadata(partial / "data", plan, records, findings)
        (partial / "data").rename(final)
        shutil.rmtree(partial)
    return final


def features(plan: Plan) -> tfds.features.FeaturesDict:
    """Those of TFDS's own celeb_a_hq, so that its reader takes every prepared set."""
    shape = (plan.target.size, plan.target.size, plan.target.channels)
    image = tfds.features.Image(shape=shape, encoding_format=plan.encoding)
    return tfds.features.FeaturesDict({"image": image, "image/filename": tfds.features.Text()})


def _write_missing(form: Form, plan: Plan, todo: Sequence[Shard], partial: pathlib.Path, workers: int) -> None:
    missing = [shard for shard in todo if not _record_path(partial, shard).exists()]
    entries = [entry for shard in missing for entry in shard.entries]
    outcomes = convert_all(form, plan, entries, workers)
    written = sum(len(shard.entries) for shard in todo) - len(entries)
    preparing = f"preparing {plan.name}/{plan.target.size}"
    with progress.phase(preparing, len(form.names), "images", done=written) as images:
        for shard in missing:
            _write_shard(form, plan, shard, outcomes, partial, images)


def _write_shard(
    form: Form, plan: Plan, shard: Shard, outcomes: Iterator[Outcome], partial: pathlib.Path, images: progress.Phase
) -> None:
    """The next outcomes, of this shard's entries, as a file and the record that it is done."""
    layout, examples, rows = features(plan), [], []
    for entry, outcome in zip(shard.entries, outcomes, strict=False):  # which leaves the next shard's outcomes alone
        name = form.names[entry]
        if outcome.data is not None:
            example = layout.serialize_example({"image": outcome.data, "image/filename": printable(name)})
            examples.append(tf_example_pb2.Example.FromString(example).SerializeToString(deterministic=True))
        rows.append({"name": name, **outcome.record()})
        images.advance()
    size = sum(map(len, examples))
    what = f"shard {shard.number} of {shard.split}"
    disk.require_space(partial, 2 * size, what, resume="it goes on from the last whole shard")
    with disk.whole_file(partial / "data" / shard.filename(plan.name)) as temporary:
        writer = ArrayRecordWriter(str(temporary), "group_size:1,uncompressed")  # the images are compressed
        for example in examples:
            writer.write(example)
        writer.close()
    with disk.whole_file(_record_path(partial, shard)) as temporary:
        temporary.write_text(json.dumps({"bytes": size, "rows": rows}), encoding="utf-8")


def _write_metadata(
    directory: pathlib.Path, plan: Plan, records: source_report.Records, findings: source_report.Findings
) -> None:
    counts = source_report.counts(records)
    if not sum(counts["train"][0]):
        raise UserError(
            f"{plan.source}: {source_report.summary(findings) or 'nothing there'}; no image is left to train on"
        )
    infos = []
    for split, (lengths, size) in counts.items():
        if sum(lengths):
            infos.append(tfds.core.SplitInfo(name=split, shard_lengths=lengths, num_bytes=size))
        else:  # all broken: readers hold out a part of the training images then
            for path in directory.glob(f"{plan.name}-{split}.array_record-*"):
                path.unlink()
    tfds.folder_dataset.write_metadata(
        data_dir=directory, features=features(plan), split_infos=infos, version=plan.version, check_data=False,
        description=f"{printable(plan.source)} at {plan.target.size}x{plan.target.size}, prepared by introvae_jax",
    )  # fmt: skip
    manifest = source_report.manifest(plan, records, findings)
    (directory / "manifest.json").write_text(json.dumps(manifest, indent=2) + "\n", encoding="utf-8")


def _record_path(partial: pathlib.Path, shard: Shard) -> pathlib.Path:
    return partial / "done" / f"{shard.split}-{shard.number:05d}.json"


def _require_same(final: pathlib.Path, plan: Plan) -> None:
    """Raises UserError if the finished set is not what `plan` would make."""
    there, wanted = json.loads((final / "manifest.json").read_text(encoding="utf-8"))["plan"], plan.essence()
    changed = [f"{key}: {there[key]!r} there, {wanted[key]!r} now" for key in wanted if there.get(key) != wanted[key]]
    if changed:
        raise UserError(f"{final} holds another set ({'; '.join(changed)}). Remove it, or give another --data_dir")
