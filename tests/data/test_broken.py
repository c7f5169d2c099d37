"""Every kind of broken and odd input gets what its case says; docs/broken_input.md is the table of it.

When an outcome changes on purpose: PYTHONPATH=.:tests python tests/data/test_broken.py > docs/broken_input.md
"""

import collections
import contextlib
import functools
import io
import os
import pathlib
import re
import subprocess
import sys
import tarfile
import tempfile
import time
import unittest.mock
import zipfile

from absl import flags
from absl.testing import flagsaver
import broken
from broken import CHANGED, IN_PART, KEPT, LEFT_OUT, REFUSED, Case
from broken_archives import GROUPS, UNSAFE
from broken_sources import SOURCES
import grain.experimental  # noqa: F401  before flags are saved: it defines some of its own
import miniatures
import numpy as np
from PIL import Image
import pytest
import strangers
import tensorflow_datasets as tfds

from introvae_jax import prepare
from introvae_jax.data import readers
from introvae_jax.data.images import Target
from introvae_jax.data.preparation import encode, write
from introvae_jax.data.preparation.spec import DatasetSpec
from introvae_jax.data.readers import hdf5, lmdb, zip_file
from introvae_jax.errors import UserError, printable

ROOT = pathlib.Path(__file__).parent.parent.parent
TABLE = ROOT / "docs" / "broken_input.md"
SCRATCH = tempfile.TemporaryDirectory(prefix="introvae_jax_broken_")
HEAD = """\
# Broken and odd input

What `python -m introvae_jax.prepare` does with input that is not simply a whole image. No row ends with a traceback,
and no entry is dropped silently: it is kept as it is, or listed in report.txt as changed, left out or duplicate, or the
whole source is refused with one line. "..." stands for words of a library or of the system. `--strict` refuses a source
with any entry that is not "kept".

All commands treat unreadable images alike. Training, `sample --images` and `evaluate` skip them; one warning lists them
and gives the number of images that are used. `prepare` lists all in report.txt and the first three on the terminal.

The tests write this table: `PYTHONPATH=.:tests python tests/data/test_broken.py > docs/broken_input.md`

| input | what it gets | in these words |
|---|---|---|
"""


def arguments(source, out, options):
    return [f"--source={source}", "--name=cases", "--resolution=64", "--workers=1", f"--data_dir={out}", *options]


def run_alone(source, out, *options, timeout):
    """The command as a user starts it."""
    command = [sys.executable, "-m", "introvae_jax.prepare", *arguments(source, out, options)]
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=timeout, check=False)


def run(source, out, *options):
    """The command, in this process: the folder of the finished set, or UserError."""
    argv = ["prepare", *arguments(source, out, options)]
    for cached in (zip_file._archive, hdf5._file, lmdb._environment):
        cached.cache_clear()
    try:
        with flagsaver.flagsaver(), contextlib.redirect_stdout(io.StringIO()):
            flags.FLAGS(argv)
            prepare.main(argv)
    finally:
        flags.FLAGS.unparse_flags()
    return out / "cases/64/1.0.0"


def stored(directory):
    """The encoded images of a finished set by the name of their source."""
    decoders = {"image": tfds.decode.SkipDecoding()}
    splits = tfds.builder_from_directory(directory).as_data_source(decoders=decoders)
    return {row["image/filename"].decode(): row["image"] for split in splits.values() for row in split}


def reported(directory):
    """(kind, name, words) of each line of the report."""
    return [tuple(line.split("\t")) for line in (directory / "report.txt").read_text("utf-8").splitlines()]


def matches(words, pattern):
    """Whether these are the words; "..." in the pattern stands for any, so that libraries may reword theirs."""
    return re.fullmatch(".*".join(re.escape(part) for part in pattern.split("...")), words) is not None


def settled(case, gets, words):
    """The outcome as the table says it: in the case's own words where they match."""
    return gets, case.words if matches(words, case.words) else words


# Sources of many cases.


@functools.cache
def group(title):
    """One prepared source: its place, the finished set, and what was there before and after."""
    cases, make = GROUPS[title]
    place = pathlib.Path(SCRATCH.name) / title / "sources"
    place.mkdir(parents=True)
    source = make(place / f"source.{title.lower()}")
    before = snapshot(place)
    held_out = max(1, len(cases) // 8)  # by their order: which of two equal images is the first is settled then
    directory = run(source, place.parent / "out", f"--test=last:{held_out}")
    return source, directory, before, snapshot(place)


def snapshot(place):
    found = [pathlib.Path(folder, name) for folder, folders, files in os.walk(place) for name in (*folders, *files)]
    return {path: (path.lstat().st_size, path.lstat().st_mtime_ns) for path in found}


def outcomes(title):
    """By case: what it got and the words."""
    _, directory, _, _ = group(title)
    there, lines = stored(directory), collections.defaultdict(list)
    for kind, name, words in reported(directory):
        lines[name].append((kind, words))
    result = {}
    for case in GROUPS[title][0]:
        name = printable(case.name)
        without = (KEPT, "") if name in there else ("dropped", "without a word")
        found = lines[name] or lines[name.partition("/")[0]] or [without]
        result[case] = settled(case, found[0][0], "; ".join(words for _, words in found))
    return result


@pytest.mark.parametrize("title", GROUPS)
def test_every_case_gets_what_it_should(title):
    found = outcomes(title)
    wrong = {case.name: got for case, got in found.items() if got != (case.gets, case.words)}
    assert not wrong


def entries(title, source):
    """The number of entries, as somebody else counts them."""
    if title == "folder":
        return sum(len(files) + sum((pathlib.Path(folder) / name).is_symlink() for name in folders)
                   for folder, folders, files in os.walk(source))  # fmt: skip
    if title == "zip":
        with zipfile.ZipFile(source) as archive:
            return len(archive.namelist())
    if title == "tar":
        with tarfile.open(source) as archive:
            return len(archive.getnames())
    return len(GROUPS[title][0])


@pytest.mark.parametrize("title", GROUPS)
def test_every_entry_is_in_the_set_or_named_as_left_out(title):
    source, directory, _, _ = group(title)
    left_out = [name for kind, name, _ in reported(directory) if kind == LEFT_OUT]
    assert len(stored(directory)) + len(left_out) == entries(title, source)
    assert miniatures.manifest(directory)["findings"]["left out"] == len(left_out)


@pytest.mark.parametrize("title", GROUPS)
def test_nothing_is_written_outside_the_output_directory(title):
    _, directory, before, after = group(title)
    assert before == after
    assert {path.name for path in directory.parents[3].iterdir()} == {"out", "sources"}
    assert [path.name for path in directory.parents[1].iterdir()] == ["64"]
    assert not pathlib.Path("/absolute.png").exists()
    assert not any((pathlib.Path.cwd() / name).exists() for name in UNSAFE)


@pytest.mark.filterwarnings("ignore:Corrupt EXIF data")
def test_what_is_kept_is_kept_unchanged():
    source, directory, _, _ = group("folder")
    there = stored(directory)
    for case in (case for case in broken.FILES if case.gets == KEPT):
        original, kept = (source / case.name).read_bytes(), there[printable(case.name)]
        pictures = [np.asarray(Image.open(io.BytesIO(data)).convert("RGB")) for data in (original, kept)]
        np.testing.assert_array_equal(*pictures)
        assert original == kept or original[:4] in (b"RIFF", b"II*\0") or original[:2] == b"BM"  # stored as PNG


def test_the_bombs_take_no_time_and_no_fifo_is_waited_for():
    source, *_ = group("folder")
    start = time.monotonic()
    reader = readers.open_reader(source, size=64)
    for name in ("bomb.png", "bomb.jpg", "bomb.webp", "ztxt.png", "itxt.png", "iccp.png", "huge.png", "fifo.png"):
        encode.encode_entry(reader, plan(source), reader.names.index(name))
    assert time.monotonic() - start < 10


def plan(source):
    return DatasetSpec(str(source), "", "cases", Target(64, 3), "png", 95, "25%")


def split_changes(case):
    return case.words.split("; ") if case.gets == CHANGED else [case.words]


def test_the_command_refuses_it_all_in_one_line_if_it_is_strict(tmp_path):
    source, *_ = group("folder")
    done = run_alone(source, tmp_path, "--test=25%", "--strict", timeout=60)
    assert done.returncode == 1
    assert "Traceback" not in done.stderr
    (line,) = (line for line in done.stderr.splitlines() if line.startswith("introvae_jax: error: "))
    for kind in ("left out", "changed", "duplicate"):
        findings = [words for case in broken.FILES if case.gets == kind for words in split_changes(case)]
        assert f"{len(findings)} {kind} (" in line
    assert not list(tmp_path.rglob("manifest.json"))


# What may not be read, which only another user than root notices.


@contextlib.contextmanager
def somebody_else():
    """Without root's right to read everything."""
    user = os.geteuid()
    try:
        os.seteuid(user or 65534)
    except OSError as error:
        pytest.skip(f"needs root that can become another user ({error})")
    try:
        yield
    finally:
        os.seteuid(user)


def of_somebody_else():
    """What is found in a folder with a file and a subfolder that may not be read: name -> (gets, words)."""
    with tempfile.TemporaryDirectory() as place:
        root = pathlib.Path(place)
        root.chmod(0o755)
        (root / "closed").mkdir()
        for name in ("open.png", "secret.png", "closed/inside.png"):
            (root / name).write_bytes(broken.png(broken.array(name)))
        (root / "secret.png").chmod(0)
        (root / "closed").chmod(0)
        with somebody_else():
            reader = readers.open_reader(root, size=64)
            made = {name: encode.encode_entry(reader, plan(root), i) for i, name in enumerate(reader.names)}
        (root / "closed").chmod(0o755)
        found = {name: (LEFT_OUT, out.reason) if out.data is None else (KEPT, "") for name, out in made.items()}
        passed = {os.path.relpath(name, root) if name.startswith("/") else name: why for name, why in reader.skipped}
        return found | {name: (LEFT_OUT, why) for name, why in passed.items()}


UNREADABLE = [
    Case("a file that may be read", "open.png", KEPT, "", None),
    Case("a file that may not be read", "secret.png", LEFT_OUT, "Permission denied", None),
    Case("a folder that may not be read", "closed", LEFT_OUT, "Permission denied", None),
]


def test_what_may_not_be_read_is_named():
    assert of_somebody_else() == {case.name: (case.gets, case.words) for case in UNREADABLE}


# Whole sources.


@functools.cache
def outcome(case):
    """What a whole source gets; the place is taken out of the words."""
    with tempfile.TemporaryDirectory() as name:
        place = pathlib.Path(name)
        try:
            with unittest.mock.patch.object(write, "encode_all", convert_here):
                directory = run(case.make(place), place / "out", "--test=last:2")
        except UserError as error:
            gets, words = REFUSED, str(error)
        except Exception as error:  # no outcome that any case may have: the row shows what went wrong
            gets, words = "crash", f"{type(error).__name__}: {error}"
        else:
            found = [": ".join(finding) for finding in reported(directory)]
            gets, words = IN_PART if found else KEPT, "; ".join([f"{len(stored(directory))} images", *found])
    return settled(case, gets, words.replace(f"{place}/", ""))


def convert_here(reader, plan, entries, _):
    """Without a process of its own for each of the many small sources."""
    return (encode.encode_entry(reader, plan, entry) for entry in entries)


@pytest.mark.parametrize("case", SOURCES, ids=lambda case: case.what)
def test_a_whole_source_is_refused_in_one_line_or_kept_with_its_loss_named(case):
    gets, words = outcome(case)
    assert (gets, words) == (case.gets, case.words)
    assert len(words.splitlines()) == 1


# The table.


def rows():
    """(input, what it gets, the words), from what really happened."""
    for title in GROUPS:
        for case, (gets, words) in outcomes(title).items():
            yield f"{title}: {case.what}", gets, words
    found = of_somebody_else()
    for case in UNREADABLE:
        yield f"folder: {case.what}", *found[case.name]
    for case in SOURCES:
        yield case.what, *outcome(case)


def table():
    cell = lambda text: text.replace("|", "\\|").replace("\n", " ")  # noqa: E731
    lines = [f"| {cell(what)} | {gets} | {cell(words)} |\n" for what, gets, words in rows()]
    return "".join([HEAD, *lines, strangers.table()])


@pytest.mark.parametrize("row", strangers.ROWS, ids=lambda row: row[3].rpartition("::")[2])
def test_what_a_stranger_can_do_is_tested_where_the_table_says(row):
    path, _, name = row[3].partition("::")
    assert f"\ndef {name}(" in (ROOT / path).read_text("utf-8")


def test_the_table_is_true():
    assert TABLE.read_text("utf-8") == table()


if __name__ == "__main__":
    print(table(), end="")
