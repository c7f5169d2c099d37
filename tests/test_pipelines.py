"""The data of every config: prepared by the command of its docstring from a miniature in the real format."""

import pathlib
import re
import shlex

import miniatures
import numpy as np
import pytest
from test_config import load

from introvae_jax.data import loader, source

ROOT = pathlib.Path(__file__).parent.parent

# Config and argument -> the source that its docstring names, as a miniature, and flags for few images.
PIPELINES = {
    ("celebahq", "128"): lambda path: miniatures.celebahq_tar(path / "data256x256.tar", miniatures.arrays(size=256)),
    ("celebahq", "256"): lambda path: miniatures.progan_tfrecords(path / "records", miniatures.arrays(size=256)),
    ("celebahq", "1024"): lambda path: miniatures.folder(
        path / "CelebAMask-HQ/CelebA-HQ-img", miniatures.arrays(4, 1024), "JPEG", "{}.jpg"
    ),
    ("ffhq", "128"): lambda path: (
        miniatures.folder(path / "thumbnails128x128/00000", miniatures.arrays(size=128)).parent
    ),
    ("ffhq", "256"): lambda path: miniatures.zipped(
        path / "images.zip", miniatures.arrays(size=256), name="im/{:05d}.png"
    ),
    ("celeba", "64"): lambda path: miniatures.zipped(
        path / "img_align_celeba.zip", miniatures.arrays(size=218)[:, :, 20:198], "JPEG", "img_align_celeba/{:06d}.jpg"
    ),
    ("celeba", "128"): lambda path: miniatures.folder(
        path / "img_align_celeba", miniatures.arrays(size=218)[:, :, 20:198], "JPEG", "{:06d}.jpg"
    ),
    ("lsun", "bedroom"): lambda path: miniatures.lsun_lmdb(path / "bedroom_train_lmdb", miniatures.arrays(size=300)),
    ("lsun", "church"): lambda path: miniatures.lsun_lmdb(path / "church_train_lmdb", miniatures.arrays(size=300)),
    ("cifar10", None): lambda path: miniatures.tfds_set(
        path, "cifar10", {"train": miniatures.arrays(size=32)[:8], "test": miniatures.arrays(size=32)[8:]}
    ),
    ("avatars", "128"): lambda path: None,
}


def command_of(name, config, miniature, data_dir):
    """The docstring's prepare command, with the miniature as its source."""
    text = (ROOT / "configs" / f"{name}.py").read_text()
    lines = re.findall(r"python -m (introvae_jax\.prepare .*)", text)
    set_name, _, size = config.data.name.partition("/")
    line = next(line for line in lines if f"--name={set_name}" in line)
    module, *flags = shlex.split(line)
    flags = [f for f in flags if not f.startswith("--resolution")] + [f"--resolution={size}", f"--data_dir={data_dir}"]
    if miniature is not None and "--source=tfds:" not in line:
        flags = [f for f in flags if not f.startswith("--source")] + [f"--source={miniature}", "--test=2"]
    if "--source=avatars" in line:
        flags.append("--num_images=12")
    return module, *flags


@pytest.mark.parametrize(("name", "argument"), PIPELINES)
def test_a_config_trains_on_what_its_docstring_prepares(name, argument, tmp_path, run_command):
    config = load(name, *([argument] if argument else []))
    command = command_of(name, config, PIPELINES[name, argument](tmp_path), tmp_path)
    result = run_command(*command, TFDS_DATA_DIR=str(tmp_path))
    assert result.returncode == 0, result.stderr
    assert f"train on it: python -m introvae_jax.main --config=configs/{name}.py" in result.stdout
    config.data.path = str(tmp_path)
    splits = source.open_splits(config.data)
    batch = next(loader.batches(splits.train, batch_size=4, seed=0))
    assert (batch.shape, batch.dtype) == ((4, config.data.size, config.data.size, 3), np.uint8)
    assert batch.std() > 10
