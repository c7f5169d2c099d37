"""Data sets made to run code, to read files of the machine, or to take it out of service; see docs/broken_input.md."""

import json
import os
import pathlib
import sys
import time

import h5py
import miniatures
import numpy as np
import pytest

from configs import default
from introvae_jax.data import readers, source
from introvae_jax.data.readers import tfds
from introvae_jax.errors import UserError

SMALL = miniatures.arrays(size=32)


def train_on(data_dir, name="faces"):
    config = default.get_config().data
    config.source, config.path, config.name, config.size = "tfds", str(data_dir), name, 32
    return source.open_splits(config)


@pytest.fixture
def tfds_dir(tmp_path, monkeypatch):
    """The directory of a TFDS data set, in the place where tfds: finds it, and a module that tells of its import."""
    (tmp_path / "stranger.py").write_text("import pathlib\npathlib.Path(__file__).with_name('imported').touch()\n")
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.setenv("TFDS_DATA_DIR", str(tmp_path))
    tfds._opened.cache_clear()
    yield miniatures.tfds_set(tmp_path, "faces", {"train": SMALL[:8], "test": SMALL[8:]})
    assert not (tmp_path / "imported").exists()
    assert "stranger" not in sys.modules


def new_style(features):
    features["featuresDict"]["features"]["label"]["pythonClassName"] = "stranger.Feature"


def other_spelling(features):
    label = features["featuresDict"]["features"]["label"]
    del label["pythonClassName"]
    label["python_class_name"] = "stranger.Feature"


def top_level(features):
    features["pythonClassName"] = "stranger.Feature"


def old_style(features):
    inner = {"type": "stranger.Feature", "content": {}}
    kind = "tensorflow_datasets.core.features.features_dict.FeaturesDict"
    features.clear()
    features.update({"type": kind, "content": {"image": inner}})


def within_a_string(features):
    label = features["featuresDict"]["features"]["label"]
    label.clear()
    label["pythonClassName"] = "tensorflow_datasets.core.features.features_dict.FeaturesDict"
    label["jsonFeature"] = {"json": json.dumps({"x": {"type": "stranger.Feature", "content": {}}})}


def not_a_feature(features):
    features["pythonClassName"] = "tensorflow_datasets.core.features.audio_feature_test.AudioFeatureTest"


@pytest.mark.parametrize("way", ["training", "prepare"])
@pytest.mark.parametrize("change", [new_style, other_spelling, top_level, old_style, within_a_string, not_a_feature])
def test_a_tfds_set_imports_nothing(change, way, tfds_dir):
    path = tfds_dir / "features.json"
    features = json.loads(path.read_text())
    change(features)
    path.write_text(json.dumps(features))
    with pytest.raises(UserError, match=r"features\.json: names the class .*, which TFDS would import"):
        train_on(tfds_dir.parents[1]) if way == "training" else readers.open_reader("tfds:faces", size=32)
    assert "tensorflow_datasets.core.features.audio_feature_test" not in sys.modules


@pytest.mark.parametrize("way", ["training", "prepare"])
@pytest.mark.parametrize("field", ["filepathTemplate", "name"])
def test_a_tfds_set_reads_no_other_set(field, way, tfds_dir, tmp_path):
    secret = miniatures.tfds_set(tmp_path / "private", "faces", {"train": SMALL[:8], "test": SMALL[8:]})
    path = tfds_dir / "dataset_info.json"
    info = json.loads(path.read_text())
    if field == "filepathTemplate":
        info["splits"][0][field] = f"{secret}/{{DATASET}}-{{SPLIT}}.{{FILEFORMAT}}-{{SHARD_X_OF_Y}}"
    else:
        info[field] = f"../../private/faces/{secret.name}/faces"
    path.write_text(json.dumps(info))
    with pytest.raises(UserError, match=r"not a file of the data set|not a data set in ArrayRecord form"):
        train_on(tmp_path) if way == "training" else readers.open_reader("tfds:faces", size=32)


@pytest.mark.parametrize("way", ["training", "prepare"])
@pytest.mark.parametrize("name", ["features.json", "dataset_info.json", "faces-train.array_record-00000-of-00001"])
def test_a_tfds_set_waits_for_no_fifo(name, way, tfds_dir, tmp_path):
    (tfds_dir / name).unlink()
    os.mkfifo(tfds_dir / name)
    with pytest.raises(UserError, match=f"{name}: neither a file nor a folder"):
        train_on(tmp_path) if way == "training" else readers.open_reader("tfds:faces", size=32)


def test_a_set_of_tfds_itself_passes(tfds_dir, tmp_path):
    splits = train_on(tmp_path)
    np.testing.assert_array_equal(splits.train[np.arange(8)], SMALL[:8])
    assert len(readers.open_reader("tfds:faces", size=32).names) == 12
    assert pathlib.Path(tfds_dir, "features.json").exists()


# HDF5


def external_storage(file, secret):
    size = secret.stat().st_size
    file.create_dataset("data64x64", (size // 12288, 3, 64, 64), np.uint8, external=[(str(secret), 0, size)])


def external_link(file, secret):
    file["data64x64"] = h5py.ExternalLink(str(secret), "data64x64")


def soft_link(file, secret):
    file["away"] = h5py.ExternalLink(str(secret), "/")
    file["data64x64"] = h5py.SoftLink("/away/data64x64")


def virtual(file, secret):
    layout = h5py.VirtualLayout((12, 3, 64, 64), np.uint8)
    layout[:] = h5py.VirtualSource(str(secret), "data64x64", (12, 3, 64, 64))
    file.create_virtual_dataset("data64x64", layout)


def virtual_without_end(file, secret):
    layout = h5py.VirtualLayout((12, 3, 64, 64), np.uint8, maxshape=(None, 3, 64, 64))
    source = h5py.VirtualSource(str(secret), "data64x64", (12, 3, 64, 64), maxshape=(None, 3, 64, 64))
    layout[: h5py.h5s.UNLIMITED] = source[: h5py.h5s.UNLIMITED]
    file.create_virtual_dataset("data64x64", layout)


OUTSIDE = [external_storage, external_link, soft_link, virtual, virtual_without_end]


@pytest.mark.parametrize("make", OUTSIDE)
@pytest.mark.parametrize("fifo", [False, True], ids=["a file", "a FIFO"])
def test_hdf5_reads_no_other_file_and_waits_for_no_fifo(make, fifo, tmp_path):
    secret = miniatures.progan_hdf5(tmp_path / "secret.h5", miniatures.arrays(12))
    with h5py.File(tmp_path / "sets.h5", "w") as file:
        make(file, secret)
    if fifo:
        secret.unlink()
        os.mkfifo(secret)
    with pytest.raises(UserError, match=r"`(data64x64|away)` is (a|stored).*may read no other file"):
        readers.open_reader(tmp_path / "sets.h5", size=64)


def test_hdf5_with_a_soft_link_within_is_refused_by_name(tmp_path):
    path = miniatures.progan_hdf5(tmp_path / "sets.h5", miniatures.arrays(2))
    with h5py.File(path, "a") as file:
        file["again"] = h5py.SoftLink("/data64x64")
    with pytest.raises(UserError, match="`again` is a link"):
        readers.open_reader(path, size=64)


BOMBS = {
    "declares 1099511627776x3x64x64 values": {"shape": (2**40, 3, 64, 64), "chunks": (1, 3, 64, 64)},
    "declares 1099511627776x3x0x0 values": {"shape": (2**40, 3, 0, 0), "maxshape": (None, 3, None, None)},
    "declares 20000x3x1024x1024 values": {"shape": (20_000, 3, 1024, 1024), "chunks": (1, 3, 1024, 1024)},
    "chunks of 3072 MiB": {"shape": (1024, 3, 1024, 1024), "chunks": (1024, 3, 1024, 1024), "compression": "gzip"},
}


@pytest.mark.parametrize("words", BOMBS)
def test_hdf5_of_a_huge_declared_size_is_refused_at_once(words, tmp_path):
    with h5py.File(tmp_path / "sets.h5", "w") as file:
        file.create_dataset("data64x64", dtype=np.uint8, **BOMBS[words])
        if "chunks" in words:  # as large as what it declares
            file["padding"] = np.zeros(2**22, np.uint8)
    start = time.monotonic()
    with pytest.raises(UserError, match=words):
        readers.open_reader(tmp_path / "sets.h5", size=64)
    assert time.monotonic() - start < 5


def test_hdf5_packed_by_a_filter_that_would_be_loaded_is_refused(tmp_path):
    with h5py.File(tmp_path / "sets.h5", "w") as file:
        layout = h5py.h5p.create(h5py.h5p.DATASET_CREATE)
        layout.set_chunk((1, 3, 64, 64))
        layout.set_filter(32015, h5py.h5z.FLAG_OPTIONAL)
        h5py.h5d.create(file.id, b"data64x64", h5py.h5t.NATIVE_UINT8, h5py.h5s.create_simple((1, 3, 64, 64)), layout)
    with pytest.raises(UserError, match="is packed by filter 32015; only deflate"):
        readers.open_reader(tmp_path / "sets.h5", size=64)
