"""Data sets made to run code, to read files of the machine, or to take it out of service; see docs/broken_input.md."""

import json
import os
import pathlib
import sys

import miniatures
import numpy as np
import pytest

from configs import default
from introvae_jax.data import forms, source
from introvae_jax.data.forms import tfds_sets
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
    tfds_sets._opened.cache_clear()
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
        train_on(tfds_dir.parents[1]) if way == "training" else forms.open_form("tfds:faces", size=32)
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
    with pytest.raises(UserError, match="not a file of the data set|not a data set in ArrayRecord form"):
        train_on(tmp_path) if way == "training" else forms.open_form("tfds:faces", size=32)


@pytest.mark.parametrize("way", ["training", "prepare"])
@pytest.mark.parametrize("name", ["features.json", "dataset_info.json", "faces-train.array_record-00000-of-00001"])
def test_a_tfds_set_waits_for_no_fifo(name, way, tfds_dir, tmp_path):
    (tfds_dir / name).unlink()
    os.mkfifo(tfds_dir / name)
    with pytest.raises(UserError, match=f"{name}: not a regular file"):
        train_on(tmp_path) if way == "training" else forms.open_form("tfds:faces", size=32)


def test_a_set_of_tfds_itself_passes(tfds_dir, tmp_path):
    splits = train_on(tmp_path)
    np.testing.assert_array_equal(splits.train[np.arange(8)], SMALL[:8])
    assert len(forms.open_form("tfds:faces", size=32).names) == 12
    assert pathlib.Path(tfds_dir, "features.json").exists()
