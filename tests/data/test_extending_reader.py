"""The data format of docs/extending.md, taken word for word."""

import pathlib
import re
import sys
import types

import numpy as np
import pytest

from configs import default
from introvae_jax.data import image_set, readers, source
from introvae_jax.errors import UserError

PAGE = pathlib.Path(__file__).parent.parent.parent / "docs" / "extending.md"
IMAGES = np.random.default_rng(0).integers(0, 256, (12, 16, 16, 3), dtype=np.uint8)


@pytest.fixture(autouse=True)
def registered(monkeypatch):
    """The page's module and its entry in FORMATS."""
    (code,) = (block for block in re.findall(r"```python\n(.*?)```", PAGE.read_text(), re.S) if "class Npy" in block)
    module = types.ModuleType("npy_file")
    monkeypatch.setitem(sys.modules, "npy_file", module)
    exec(code, vars(module))
    monkeypatch.setattr(readers, "FORMATS", (*readers.FORMATS[:-1], module, readers.FORMATS[-1]))


def test_its_images_train_and_are_compared(tmp_path):
    np.save(tmp_path / "images.npy", IMAGES)
    config = default.get_config().data
    config.source, config.path, config.size, config.test_fraction = "folder", str(tmp_path / "images.npy"), 16, 0.25
    splits = source.open_splits(config)
    assert (len(splits.train), len(splits.test)) == (9, 3)
    read = [*splits.train[np.arange(9)], *splits.test[np.arange(3)]]
    assert {image.tobytes() for image in read} == {image.tobytes() for image in IMAGES}
    found, _ = image_set.open_image_set(str(tmp_path / "images.npy"))
    np.testing.assert_array_equal(found[np.arange(12)], IMAGES)


@pytest.mark.parametrize(
    ("content", "told"),
    [(IMAGES[..., 0], r"uint8 \[12, 16, 16\]; uint8"), (IMAGES / 255, "float64"), (np.array([{}]), "not a whole .npy")],
)
def test_other_arrays_are_refused(tmp_path, content, told):
    np.save(tmp_path / "images.npy", content, allow_pickle=True)
    with pytest.raises(UserError, match=rf"images\.npy: .*{told}"):
        readers.open_reader(tmp_path / "images.npy", size=16)


def test_a_file_cut_short_is_refused(tmp_path):
    np.save(tmp_path / "whole.npy", IMAGES)
    (tmp_path / "cut.npy").write_bytes((tmp_path / "whole.npy").read_bytes()[:-1])
    with pytest.raises(UserError, match=r"cut\.npy: not a whole \.npy file"):
        readers.open_reader(tmp_path / "cut.npy", size=16)


def test_errors_name_it_with_the_others(tmp_path):
    (tmp_path / "text").write_text("text")
    with pytest.raises(UserError, match="not a zip, HDF5, tar, LMDB, TFRecord, npy or folder of images"):
        readers.open_reader(tmp_path / "text", size=16)
