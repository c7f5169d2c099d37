"""Preparing: every form read back equal, by us and by TFDS; killed and run again; refused."""

import ast
import errno
import hashlib
import importlib
import itertools
import json
import pathlib
import random
import shlex
import subprocess
import sys
import time

import miniatures
import numpy as np
import pytest

from configs import default
from introvae_jax import config as config_lib
from introvae_jax.data import arrayrecord, images, readers, source
from introvae_jax.data.preparation import train_command, write
from introvae_jax.data.preparation.encode import encode_entry
from introvae_jax.data.preparation.spec import DatasetSpec
from introvae_jax.data.readers import files
from introvae_jax.data.readers.base import natural
from introvae_jax.errors import UserError

ROOT = pathlib.Path(__file__).parent.parent.parent
IMAGES = miniatures.arrays()


def prepare(path, data_dir, *, name="faces", size=64, test="3", strict=False, encoding="png", **target):
    reader = readers.open_reader(path, size=size, num_images=12)
    target = images.Target(size, **{"channels": 3, **target})
    plan = DatasetSpec(str(path), reader.fingerprint, name, target, encoding, 95, test)
    return write.write_dataset(reader, plan, pathlib.Path(data_dir), workers=1, strict=strict)


def read_back(data_dir, name, size=64):
    """Training and held-out images as a run reads them."""
    config = default.get_config().data
    config.source, config.path, config.name, config.size = "tfds", str(data_dir), name, size
    splits = source.open_splits(config)
    return tuple(part[np.arange(len(part))] for part in (splits.train, splits.test))


def rows(*parts):
    return sorted(image.tobytes() for part in parts for image in part)


FORMS = {
    "folder": lambda path: miniatures.folder(path / "images", IMAGES),
    "zip": lambda path: miniatures.zipped(path / "images.zip", IMAGES),
    "tar": lambda path: miniatures.celebahq_tar(path / "data64x64.tar", IMAGES),
    "tfrecords": lambda path: miniatures.progan_tfrecords(path / "tfrecords", IMAGES),
    "hdf5": lambda path: miniatures.progan_hdf5(path / "celeba-hq.h5", IMAGES),
    "lmdb": lambda path: miniatures.lsun_lmdb(path / "lmdb", IMAGES),
}


@pytest.mark.parametrize("form", FORMS)
def test_every_form_is_read_back_equal_by_us_and_by_tfds_s_own_celeb_a_hq(form, tmp_path):
    directory = prepare(FORMS[form](tmp_path), tmp_path / "out", name="celeb_a_hq", strict=True)
    train, test = read_back(tmp_path / "out", "celeb_a_hq/64")
    assert (len(train), len(test)) == (9, 3)
    assert rows(train, test) == rows(IMAGES)
    import tensorflow_datasets as tfds

    stock = tfds.data_source("celeb_a_hq/64", data_dir=tmp_path / "out")
    assert type(stock["train"].dataset_info.features["image"]).__name__ == "Image"
    np.testing.assert_array_equal([example["image"] for example in stock["train"]], train)
    np.testing.assert_array_equal([example["image"] for example in stock["test"]], test)
    assert "tensorflow" not in sys.modules
    digests = sorted(hashlib.sha256(image.tobytes()).hexdigest()[:32] for image in IMAGES)
    content = hashlib.sha256("".join(digests).encode()).hexdigest()
    assert miniatures.manifest(directory)["content"] == content  # the same in every form


def test_a_tfds_set_keeps_its_own_split(tmp_path, monkeypatch):
    monkeypatch.setenv("TFDS_DATA_DIR", str(tmp_path))
    small = miniatures.arrays(size=32)
    miniatures.tfds_set(tmp_path, "cifar10", {"train": small[:8], "test": small[8:]})
    prepare("tfds:cifar10", tmp_path, name="cifar10", size=32, test="")
    train, test = read_back(tmp_path, "cifar10/32", 32)
    np.testing.assert_array_equal(train, small[:8])
    np.testing.assert_array_equal(test, small[8:])
    direct = read_back(tmp_path, "cifar10", 32)  # the stock set needs no preparing
    np.testing.assert_array_equal(direct[0], train)


def test_a_tfds_set_that_is_not_prepared_names_the_extra(tmp_path, monkeypatch):
    monkeypatch.setenv("TFDS_DATA_DIR", str(tmp_path))
    with pytest.raises(UserError, match=r"needs TensorFlow to prepare it: pip install '\.\[tfds-prepare\]'"):
        prepare("tfds:cifar10", tmp_path)
    with pytest.raises(UserError, match="tfds:nothing_like_it: "):
        prepare("tfds:nothing_like_it", tmp_path)


def test_avatars_are_the_same_for_everybody(tmp_path):
    directory = prepare("avatars", tmp_path, name="avatars", size=32)
    assert miniatures.manifest(directory)["content"][:16] == "0c57810dee16bcc5"
    assert miniatures.manifest(directory)["findings"] == {"left out": 0, "changed": 0, "duplicate": 0}
    with pytest.raises(UserError, match="avatars:micah: no such style; choose from lorelei"):
        prepare("avatars:micah", tmp_path)


def test_images_are_cropped_and_shrunk_without_aliasing(tmp_path):
    board = np.indices((218, 178)).sum(0) % 2 * 255  # the finest pattern: its mean everywhere once it is shrunk
    wide = np.repeat(board[..., None], 3, axis=2).astype(np.uint8)
    wide[:20], wide[198:] = 255, 255  # what the centre crop of CelebA takes away
    path = miniatures.zipped(tmp_path / "img_align_celeba.zip", [wide] * 2 + [wide[:, ::-1]])
    prepare(path, tmp_path, name="celeb_a", crop="178x178", test="1")
    train, _ = read_back(tmp_path, "celeb_a/64")
    np.testing.assert_allclose(train, 127.5, atol=3)


def test_jpegs_that_fit_keep_their_bytes_and_others_are_encoded_without_loss(tmp_path):
    kept = miniatures.folder(tmp_path / "a", IMAGES, "JPEG", "{:02d}.jpg")
    prepare(kept, tmp_path, name="kept")
    train, test = read_back(tmp_path, "kept/64")
    originals = [images.decode(path.read_bytes(), images.Target(64, 3)).array for path in sorted(kept.iterdir())]
    assert rows(train, test) == rows(originals)
    prepare(kept, tmp_path, name="shrunk", size=32)
    assert rows(*read_back(tmp_path, "shrunk/32", 32)) == rows(
        [images.decode(path.read_bytes(), images.Target(32, 3)).array for path in kept.iterdir()]
    )
    directory = prepare(kept, tmp_path, name="small", size=32, encoding="jpeg")
    assert (
        json.loads((directory / "features.json").read_text())["featuresDict"]["features"]["image"]["image"][
            "encodingFormat"
        ]
        == "jpeg"
    )


def test_the_usual_splits(tmp_path):
    many = np.zeros((20_010, 4, 4, 3), np.uint8)
    many[:, 0, 0, 0], many[:, 0, 0, 1] = np.divmod(np.arange(20_010), 256)
    import h5py

    with h5py.File(tmp_path / "many.h5", "w") as file:
        file["data4x4"] = many.transpose(0, 3, 1, 2)
    for name, expected in (("ffhq", 10_000), ("celeb_a", 19_962), ("celeb_a_hq", 1_000), ("others", 1_000)):
        reader = readers.open_reader(tmp_path / "many.h5", size=4)
        plan = DatasetSpec("many.h5", reader.fingerprint, name, images.Target(4, 3), "png", 95, "")
        parts = write.shards(plan, reader)
        held_out = [entry for shard in parts if shard.split == "test" for entry in shard.entries]
        assert len(held_out) == expected
        assert (held_out == list(range(20_010 - expected, 20_010))) == (name in ("ffhq", "celeb_a"))
        assert sorted(entry for shard in parts for entry in shard.entries) == list(range(20_010))


def test_what_lies_beside_the_images_does_not_shift_the_official_split(tmp_path, capsys):
    names = [f"{i:06d}.jpg" for i in range(202_599)]
    reader = files.Files(tmp_path, sorted([*names, "LICENSE.txt", "list_attr_celeba.csv"], key=natural), [], "")
    parts = write.shards(DatasetSpec("faces", "", "celeb_a", images.Target(64, 3), "png", 95, ""), reader)
    held_out = [reader.names[entry] for shard in parts if shard.split == "test" for entry in shard.entries]
    assert held_out == names[-19_962:]
    assert capsys.readouterr().err == ""
    some = files.Files(tmp_path, names[:30_000], [], "")
    write.shards(DatasetSpec("faces", "", "celeb_a", images.Target(64, 3), "png", 95, ""), some)
    assert "30,000 images, celeb_a has 202,599; the split will not be the standard one" in capsys.readouterr().err


@pytest.mark.parametrize("make", [miniatures.progan_tfrecords, miniatures.progan_hdf5])
def test_the_same_images_are_held_out_at_every_size(make, tmp_path):
    path = make(tmp_path / "source", IMAGES)
    for size in (16, 32, 64):
        prepare(path, tmp_path, size=size)
    small, middle, large = (read_back(tmp_path, f"faces/{size}", size)[1] for size in (16, 32, 64))
    np.testing.assert_array_equal(large[:, ::2, ::2], middle)
    np.testing.assert_array_equal(large[:, ::4, ::4], small)


def test_a_machine_that_fails_loses_no_image(tmp_path, monkeypatch):
    folder = miniatures.folder(tmp_path / "images", IMAGES)
    reader, read = readers.open_reader(folder, size=64), files.Files.read

    def failing(reader, index):
        if index > 4:
            raise OSError(errno.EIO, "Input/output error", str(folder))
        return read(reader, index)

    monkeypatch.setattr(files.Files, "read", failing)
    plan = DatasetSpec("images", reader.fingerprint, "faces", images.Target(64, 3), "png", 95, "3")
    with pytest.raises(OSError, match="Input/output error"):
        list(encode_entry(reader, plan, entry) for entry in range(12))
    monkeypatch.undo()
    prepare(folder, tmp_path)
    assert sum(map(len, read_back(tmp_path, "faces/64"))) == 12


def test_a_folder_called_avatars_is_not_taken_for_the_drawn_ones(tmp_path, monkeypatch):
    miniatures.folder(tmp_path / "avatars", IMAGES)
    monkeypatch.chdir(tmp_path)
    with pytest.raises(UserError, match=r"avatars: a folder here has the same name; write \./avatars for it"):
        prepare("avatars", tmp_path)
    config = default.get_config().data
    config.path = "avatars"
    assert len(source.open_splits(config).train) == 11


def test_the_rest_of_the_folder_does_not_change_an_image_s_split(tmp_path):
    a = prepare(miniatures.folder(tmp_path / "a", IMAGES), tmp_path, name="a", test="25%")
    (tmp_path / "b").mkdir()
    for path in (tmp_path / "a").glob("*.png"):
        (tmp_path / "b" / path.name).write_bytes(path.read_bytes())
    (tmp_path / "b" / "00004.png").write_bytes(b"broken")
    b = prepare(tmp_path / "b", tmp_path, name="b", test="25%")
    counts = [miniatures.manifest(d)["splits"] for d in (a, b)]
    assert sum(s["images"] for s in counts[0].values()) - 1 == sum(s["images"] for s in counts[1].values())
    assert set(rows(read_back(tmp_path, "b/64")[1])) <= set(rows(read_back(tmp_path, "a/64")[1]))


def test_strict_refuses_what_is_not_as_it_should_be_and_loses_nothing(tmp_path):
    folder = miniatures.folder(tmp_path / "images", IMAGES)
    (folder / "again.png").write_bytes((folder / "00003.png").read_bytes())
    (folder / "cut.png").write_bytes((folder / "00003.png").read_bytes()[:500])
    (folder / "small.png").write_bytes(miniatures.encoded(IMAGES[0, :20, :30]))
    (folder / "notes.txt").write_text("no image")
    with pytest.raises(
        UserError, match=r"--strict: 2 left out .*cut\.png: .*1 changed .*enlarged.*1 duplicate"
    ) as error:
        prepare(folder, tmp_path / "out", strict=True)
    assert not (tmp_path / "out/faces/64/1.0.0").exists()
    report = pathlib.Path(str(error.value).split("named in ")[1].split(". Correct")[0])
    assert len(report.read_text().splitlines()) == 4
    directory = prepare(folder, tmp_path / "out")
    assert (directory / "report.txt").read_text().splitlines() == [
        "left out\tcut.png\timage file is truncated",
        "left out\tnotes.txt\tnot a png, jpeg, webp, bmp, gif or tiff image",
        "changed\tsmall.png\tenlarged from 20x20",
        "duplicate\tagain.png\tsame pixels as 00003.png; both are kept",
    ]
    assert sum(len(part) for part in read_back(tmp_path / "out", "faces/64")) == 14


def test_another_plan_for_the_same_place_is_refused_and_the_same_one_is_done_already(tmp_path):
    folder = miniatures.folder(tmp_path / "images", IMAGES)
    directory = prepare(folder, tmp_path)
    before = {path: path.stat().st_mtime_ns for path in directory.iterdir()}
    assert prepare(folder, tmp_path) == directory
    with pytest.raises(UserError, match=r"holds another data set \(target: .*lanczos.* there, .*box.* now\)"):
        prepare(folder, tmp_path, resize="box")
    assert {path: path.stat().st_mtime_ns for path in directory.iterdir()} == before


COMMAND = (sys.executable, "-m", "introvae_jax.prepare", "--source=avatars", "--name=avatars", "--resolution=32",
           "--num_images=3000", "--data_dir")  # fmt: skip


def contents(directory):
    return {path.name: path.read_bytes() for path in directory.iterdir()}


def test_killed_at_random_moments_and_run_again_it_gives_the_same_bytes(tmp_path):
    """Four shards of 3,000 faces; killed before the first, and after the first, second and third is written."""
    subprocess.run([*COMMAND, tmp_path / "whole", "--workers=1"], cwd=ROOT, check=True, capture_output=True)
    moments = random.Random(3)
    for shards in (0, 0, 1, 2, 3):
        process = subprocess.Popen([*COMMAND, tmp_path / "killed"], cwd=ROOT, stderr=subprocess.DEVNULL)
        deadline = time.time() + 120
        while len(list((tmp_path / "killed/avatars/32").glob(".incomplete-*/done/*.json"))) < shards:
            assert process.poll() is None
            assert time.time() < deadline
            time.sleep(0.01)
        time.sleep(moments.uniform(0, 0.2 if shards == 3 else 0.8))
        process.kill()
        process.wait()
    done = subprocess.run([*COMMAND, tmp_path / "killed"], cwd=ROOT, check=True, capture_output=True, text=True)
    assert "2,850 training and 150 held-out images" in done.stdout
    name = "avatars/32/1.0.0"
    assert contents(tmp_path / "whole" / name) == contents(tmp_path / "killed" / name)
    assert sorted(path.name for path in (tmp_path / "killed/avatars/32").iterdir()) == ["1.0.0"]


def test_workers_end_with_a_parent_that_was_killed(tmp_path):
    process = subprocess.Popen([*COMMAND, tmp_path, "--workers=2"], cwd=ROOT, stderr=subprocess.DEVNULL)
    children = pathlib.Path(f"/proc/{process.pid}/task/{process.pid}/children")
    deadline = time.time() + 60
    while len(children.read_text().split()) < 3:  # two workers and Python's resource tracker
        assert time.time() < deadline
        time.sleep(0.05)
    workers = children.read_text().split()
    process.kill()
    process.wait()
    while any(alive(worker) for worker in workers):
        assert time.time() < deadline
        time.sleep(0.05)


def alive(pid):
    try:
        return "zombie" not in pathlib.Path(f"/proc/{pid}/status").read_text()
    except OSError:
        return False


def test_two_at_the_same_place_at_once_are_refused(tmp_path):
    from introvae_jax import disk

    (tmp_path / "lock").touch()
    with disk.file_lock(tmp_path / "lock", "preparing this data set"):
        probe = f"from introvae_jax import disk\nwith disk.file_lock({str(tmp_path / 'lock')!r}, 'preparing'): pass"
        other = subprocess.run([sys.executable, "-c", probe], cwd=ROOT, capture_output=True, text=True, check=False)
    assert "another process is preparing this data set there now (process " in other.stderr


def test_a_run_on_a_set_that_is_damaged_or_missing_ends_in_one_line(tmp_path, run_command):
    directory = prepare(miniatures.folder(tmp_path / "images", IMAGES), tmp_path, name="faces", size=64)
    base = ("--config=configs/folder.py", "--config.model.channels=(4, 4, 4, 4)", "--config.batch_size=4",
            "--config.data.source=tfds", f"--config.data.path={tmp_path}")  # fmt: skip
    shard = next(directory.glob("*train*"))
    content = bytearray(shard.read_bytes())
    content[len(content) // 2] ^= 0xFF
    shard.write_bytes(content)
    cases = {
        "faces/64": f"{directory}: image",
        "faces/128": f"config.data.name = 'faces/128': no such set in {tmp_path} (faces/64 there)",
        "": "config.data.name is empty",
    }
    for name, words in cases.items():
        result = run_command("introvae_jax.main", *base, f"--config.data.name={name}", f"--workdir={tmp_path / 'run'}")
        assert result.returncode == 1
        assert "Traceback" not in result.stderr
        last = result.stderr.strip().splitlines()[-1]
        assert last.startswith("introvae_jax: error: ")
        assert words in last
    (directory / "features.json").write_text("{}")
    with pytest.raises(UserError, match="not a data set in ArrayRecord form"):
        read_back(tmp_path, "faces/64")


def run_prepare(run_command, *args, **environment):
    """The lines that the command prints."""
    done = run_command("introvae_jax.prepare", *args, "--workers=1", **environment)
    assert done.returncode == 0, done.stderr
    return done.stdout.splitlines(), done.stderr


def test_the_command_that_prepare_prints_trains_at_the_prepared_size(tmp_path, run_command):
    """As printed, but for fewer steps, the directory of the run and a narrower network: from a place with a space."""
    folder = miniatures.folder(tmp_path / "images", miniatures.arrays(40, 16))
    data_dir = tmp_path / "my data"
    args = (f"--source={folder}", "--name=faces", "--resolution=16", f"--data_dir={data_dir}", "--channels=1")
    lines, _ = run_prepare(run_command, *args)
    words = shlex.split(lines[-1].removeprefix("train on it: "))
    assert words[:3] == ["python", "-m", "introvae_jax.main"]
    shorter = ["--config.steps=1", "--config.objective.warmup_steps=0", "--config.checkpoint.calibration_batches=1"]
    done = run_command("introvae_jax.main", *words[3:], *shorter, f"--workdir={tmp_path / 'run'}")
    assert done.returncode == 0, done.stderr
    assert "enlarged" not in done.stderr
    (record,) = (tmp_path / "run").rglob("1/run/metadata")  # of the checkpoint of step 1
    data = json.loads(record.read_text())["config"]["data"]
    assert (data["size"], data["channels"], data["name"]) == (16, 1, "faces/16")


@pytest.mark.parametrize("name", ["faces", "avatars", "celeb_a", "celeb_a_hq", "ffhq", "cifar10", "lsun_church"])
def test_every_command_that_prepare_prints_is_a_valid_experiment(name, tmp_path, monkeypatch):
    """At every size that can be trained, grey and RGB, in the usual place of data sets and elsewhere."""
    monkeypatch.setenv("TFDS_DATA_DIR", str(tmp_path))
    for size, channels, root in itertools.product(train_command.SIZES, (1, 3), (tmp_path, tmp_path / "it's here")):
        words = shlex.split(train_command.command(root / name / str(size) / "1.0.0", name, size, channels))
        path, _, argument = words[3].removeprefix("--config=").partition(":")
        module = importlib.import_module(path.removesuffix(".py").replace("/", "."))
        config = module.get_config(argument) if argument else module.get_config()
        for key, value in (word.removeprefix("--config.").split("=", 1) for word in words[4:] if "--config." in word):
            part, _, leaf = key.rpartition(".")
            old = config[part][leaf]
            config[part][leaf] = value if isinstance(old, str) else ast.literal_eval(value)
        config_lib.validate(config)
        assert (config.data.source, config.data.name) == ("tfds", f"{name}/{size}")
        assert (config.data.size, config.data.channels) == (size, channels)
        assert arrayrecord.data_dir(config.data.path) == root


def test_a_size_that_cannot_be_trained_is_said_before_and_after(tmp_path, run_command):
    folder = miniatures.folder(tmp_path / "images", IMAGES)
    (folder / "\x1b[31mred.png").write_bytes(b"no image")
    args = (f"--source={folder}", "--name=faces", "--resolution=33", f"--data_dir={tmp_path}")
    lines, warnings = run_prepare(run_command, *args)
    assert "the nearest is --resolution=32" in lines[-1]
    assert "the nearest is --resolution=32" in warnings.splitlines()[0]
    assert "introvae_jax.main" not in lines[-1]
    assert r"1 left out (\x1b[31mred.png: not a png" in lines[1]
    assert "\x1b" not in "".join(lines) + warnings.replace("\x1b[A", "")


def test_a_set_that_is_smaller_than_the_run_is_named(tmp_path, capsys):
    prepare(miniatures.folder(tmp_path / "images", IMAGES), tmp_path, size=32)
    read_back(tmp_path, "faces/32", 64)
    assert "images of 32x32 pixels are enlarged to config.data.size = 64" in capsys.readouterr().err
