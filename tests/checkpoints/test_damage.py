"""Bytes of a checkpoint that were read and are wrong: it loads equal, is proven to be damaged, or stops the run."""

import json
import shutil

import jax
import numpy as np
import pytest
from tiny_run import contents, load, resume

from introvae_jax.checkpoints import files
from introvae_jax.checkpoints.checkpoint import Checkpoints, Damaged
from introvae_jax.errors import EXIT_RETRY, UserError

JSON = ("_CHECKPOINT_METADATA", "run/metadata", "state/_METADATA", "state/_sharding", "statistics/_METADATA")


def some_files(folder):
    """The files of a checkpoint; of the data of one process, which are alike, the two largest of each item."""
    content = contents(folder)
    for item in ("state", "statistics"):
        alike = [name for name in content if name.startswith(f"{item}/ocdbt.process_0/d/")]
        for name in sorted(alike, key=lambda name: len(content[name]))[:-2]:
            del content[name]
    return content


def outcome(workdir, whole):
    """What came of loading a checkpoint, whose right state is `whole`."""
    got = load(workdir)
    if isinstance(got, Damaged):
        return "damaged"
    if isinstance(got, UserError):
        return "stops"
    jax.tree.map(np.testing.assert_array_equal, got, whole)
    return "equal"


@pytest.fixture(params=["manifest", "no manifest"])
def folder(request, workdir):
    """The latest checkpoint, also as older versions and buckets hold it."""
    folder = workdir / "checkpoints/4"
    if request.param == "no manifest":
        (folder / files.MANIFEST).unlink()
    return folder


def test_flipped_bytes_are_proven_load_equal_or_stop_the_run(trained, workdir, folder):
    whole, found = load(trained), {}
    for name, content in some_files(folder).items():
        for at in {0, len(content) // 2, len(content) - 1}:
            (folder / name).write_bytes(content[:at] + bytes([content[at] ^ 1]) + content[at + 1 :])
            found.setdefault(name, set()).add(outcome(workdir, whole))
        (folder / name).write_bytes(content)
    print("\n".join(f"{name}: {' '.join(sorted(outcomes))}" for name, outcomes in found.items()))
    if files.MANIFEST in found:
        assert "stops" not in set().union(*found.values())
    assert "damaged" in found["run/metadata"]
    assert any("damaged" in outcomes for name, outcomes in found.items() if name.startswith("state/d/"))
    assert outcome(workdir, whole) == "equal"


def test_missing_and_cut_files_are_proven_or_load_equal(trained, workdir, folder):
    whole, found = load(trained), {}
    for name, content in some_files(folder).items():
        for half in (None, b"", content[: len(content) // 2]):
            (folder / name).unlink()
            if half is not None:
                (folder / name).write_bytes(half)
            found.setdefault(name, set()).add(outcome(workdir, whole))
            (folder / name).write_bytes(content)
    print("\n".join(f"{name}: {' '.join(sorted(outcomes))}" for name, outcomes in found.items()))
    if files.MANIFEST in found:
        assert "stops" not in set().union(*found.values())
    for name in ("run/metadata", "state/_METADATA", "state/manifest.ocdbt", "statistics/_METADATA"):
        assert found[name] == {"damaged"}, name


@pytest.mark.parametrize("name", JSON)
def test_json_of_another_type_is_no_traceback(trained, workdir, folder, name):
    whole = load(trained)
    for content in (b"[]", b"{}", b"null", b"3", b'"x"', b'{"config": []}', b"\xff\xfe", b"[" * 5000, b"   "):
        (folder / name).write_bytes(content)
        got = outcome(workdir, whole)
        assert got != "equal" or name in ("_CHECKPOINT_METADATA", "state/_sharding"), content
        if name in ("run/metadata", "state/_METADATA") and (folder / files.MANIFEST).exists():
            assert got == "damaged", content


def test_a_start_moves_the_damaged_one_and_resumes_from_the_one_before(workdir, capfd):
    file = workdir / "checkpoints/4/run/metadata"
    file.write_bytes(b"{}")
    before = contents(workdir / "checkpoints/4")
    assert int(resume(workdir).step) == 2
    assert contents(workdir / "damaged/4_0") == before
    assert "the checkpoint is damaged" in capfd.readouterr().err
    assert not (workdir / "checkpoints/4").exists()


def test_a_damaged_manifest_proves_nothing(trained, workdir, monkeypatch):
    folder = workdir / "checkpoints/4"
    content = json.loads((folder / files.MANIFEST).read_text())
    content["files"]["run/metadata"][1] = "00000000"
    for text in (json.dumps(content), "[]", "", "null", '{"files": 3}', '{"files": {"x": 1}}'):
        (folder / files.MANIFEST).write_text(text)
        assert files.find_damage(Checkpoints(workdir).directory / "4", ValueError("unknown")) is None


def test_a_new_checkpoint_lists_all_its_files(trained):
    listed = json.loads((trained / "checkpoints/4" / files.MANIFEST).read_text())["files"]
    there = contents(trained / "checkpoints/4")
    late = {files.MANIFEST, "_CHECKPOINT_METADATA", *(name for name in there if name.endswith("commit_success.txt"))}
    assert set(there) - late <= set(listed)
    assert {name: len(there[name]) for name in listed} == {name: size for name, (size, _) in listed.items()}


def test_a_checkpoint_that_vanishes_while_it_is_read_stops_the_run(workdir, monkeypatch):
    restore = Checkpoints.restore_run

    def remove(self, step):
        stored = restore(self, step)
        shutil.rmtree(workdir / "checkpoints/4")
        return stored

    monkeypatch.setattr(Checkpoints, "restore_run", remove)
    with pytest.raises(UserError, match="another process removed or moved it") as caught:
        resume(workdir)
    assert caught.value.status == EXIT_RETRY
    monkeypatch.undo()
    assert int(resume(workdir).step) == 2


def test_a_checkpoint_that_vanishes_while_it_is_set_aside_stops_the_run(workdir):
    checkpoints = Checkpoints(workdir, keep=2)
    shutil.rmtree(workdir / "checkpoints/4")
    with pytest.raises(UserError, match="another process removed or moved it") as caught:
        checkpoints.set_aside(4)
    assert caught.value.status == EXIT_RETRY
    checkpoints.close()
